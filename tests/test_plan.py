"""The depth dial: what it says against the model that it describes."""

import pytest

from nanochat.errors import UsageError
from nanochat.gpt import GPT
from nanochat.plan import count_parameters, flops_per_token, memory_bytes, plan


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kv_heads", [0, 1])
@pytest.mark.parametrize("extras", [{}, {"smear": True}, {"value_embeddings": True}, {"sharpness": 1.5}])
def test_parameters_are_those_of_the_model(depth, kv_heads, extras):
    chosen = plan(depth, vocab_size=500, context=64, kv_heads=kv_heads, **extras)
    model = GPT(chosen.model)
    assert sum(chosen.parameters.values()) == sum(weight.numel() for weight in model.parameters())
    assert chosen.parameters["mlp"] == sum(w.numel() for n, w in model.named_parameters() if ".mlp." in n)
    for part, name in (("values", ".values."), ("smear", "smear.")):
        assert chosen.parameters.get(part, 0) == sum(w.numel() for n, w in model.named_parameters() if name in n)
    assert chosen.model.extras == tuple(extras)
    assert chosen.model.n_embd == 64 * depth
    assert chosen.model.head_size == (64 if depth < 8 else 128)
    assert chosen.model.n_kv_head == (1 if kv_heads else chosen.model.n_head)


def test_depth_20_is_561_million_and_not_270():
    """The figure that the original guide got wrong: 20 layers of width 1280 with 65,536 tokens, as many key heads."""
    chosen = plan(20, vocab_size=65_536, context=2048, kv_heads=0)
    counts = chosen.parameters
    assert counts["attention"] == 131_072_000
    assert counts["mlp"] == 262_144_000
    assert sum(counts.values()) == 560_988_160


def test_flops_are_counted_by_hand():
    model = plan(2, vocab_size=100, context=10, kv_heads=0).model
    width = 128
    multiplied = 2 * 12 * width**2 + 100 * width
    assert flops_per_token(model) == 6 * multiplied + 12 * 2 * width * 10
    assert count_parameters(model)["head"] == 100 * width


@pytest.mark.parametrize("world", [1, 2, 4])
def test_rows_and_micro_batches_make_up_the_step(world):
    chosen = plan(4, context=512, tokens_per_step=16_384, world=world)
    assert chosen.rows * chosen.accumulate * 512 * world == 16_384
    assert chosen.tokens == chosen.steps * 16_384


def test_a_batch_that_cannot_be_cut_is_refused_with_one_that_can():
    with pytest.raises(UsageError, match="use --tokens-per-step 4096"):
        plan(2, context=512, rows=8, tokens_per_step=5000)
    with pytest.raises(UsageError, match="at least 1"):
        plan(0)


def test_the_dial_grows_with_depth_down_to_2():
    plans = [plan(depth) for depth in (2, 3, 4, 6, 12, 20)]
    for what in ("tokens_per_step", "tokens", "memory_gb"):
        values = [getattr(p, what) for p in plans]
        assert values == sorted(values)
        assert values[0] > 0
    assert all(p.warmup + p.warmdown <= p.steps for p in plans)
    assert all(p.matrix_lr > 0 for p in plans)


def test_extras_change_neither_the_budget_nor_the_rates():
    """They are looked up and not multiplied, so that runs with and without them are comparable step for step."""
    plain, rich = plan(3, kv_heads=0), plan(3, kv_heads=0, smear=True, value_embeddings=True)
    for what in ("tokens", "steps", "tokens_per_step", "flops_per_token", "matrix_lr", "embedding_lr"):
        assert getattr(plain, what) == getattr(rich, what)
    assert rich.memory_gb > plain.memory_gb


def test_memory_grows_with_rows():
    model = plan(4).model
    assert memory_bytes(model, 64) > memory_bytes(model, 8)
