"""The model against `transformers`' NanoChatForCausalLM, and against its own cache."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from nanochat import attention, gpt
from nanochat.errors import UsageError
from nanochat.gpt import GPT, GPTConfig

SHAPES = [
    pytest.param(GPTConfig(vocab_size=320, n_layer=3, n_head=4, n_kv_head=4, n_embd=64, context=64), id="MHA"),
    pytest.param(GPTConfig(vocab_size=257, n_layer=2, n_head=6, n_kv_head=2, n_embd=96, context=80), id="GQA"),
    pytest.param(GPTConfig(vocab_size=512, n_layer=5, n_head=2, n_kv_head=1, n_embd=128, context=96), id="MQA"),
    pytest.param(
        GPTConfig(vocab_size=300, n_layer=1, n_head=1, n_kv_head=1, n_embd=32, context=40, rope_base=1e4), id="one"
    ),
]
# What transformers cannot express; the last is narrower than the gate.
SMEAR = GPTConfig(vocab_size=320, n_layer=3, n_head=4, n_kv_head=2, n_embd=64, context=64, smear=True)
VALUES = dataclasses.replace(SMEAR, smear=False, value_embeddings=True)
NARROW = GPTConfig(vocab_size=9, n_layer=1, n_head=2, n_kv_head=1, n_embd=8, smear=True, value_embeddings=True)
EXTRAS = [
    pytest.param(SMEAR, id="smear"),
    pytest.param(VALUES, id="values"),
    pytest.param(dataclasses.replace(SMEAR, value_embeddings=True), id="both"),
    pytest.param(NARROW, id="narrow"),
]
SHARP = dataclasses.replace(SMEAR, smear=False, sharpness=1.5)


FIELDS = ("smear", "value_embeddings")


def drawn(config: GPTConfig, dtype: torch.dtype = torch.float32) -> GPT:
    """A model with every matrix from N(0, 0.2): at the usual start parity would prove nothing."""
    model = GPT(config, dtype)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2)
    return model


def reference(model: GPT) -> nn.Module:
    """The same weights in transformers' model."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    c = model.config
    other = NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=c.vocab_size, hidden_size=c.n_embd, intermediate_size=4 * c.n_embd, num_hidden_layers=c.n_layer,
            num_attention_heads=c.n_head, num_key_value_heads=c.n_kv_head, max_position_embeddings=c.context,
            rms_norm_eps=c.norm_eps, final_logit_softcapping=c.softcap,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_base},
        )
    ).eval()  # fmt: skip
    names = {"embedding": "model.embed_tokens", "head": "lm_head"}
    parts = {
        "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj", "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2",
    }  # fmt: skip
    for layer in range(c.n_layer):
        names |= {f"blocks.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in parts.items()}
    weights = {f"{names[name.removesuffix('.weight')]}.weight": weight for name, weight in model.state_dict().items()}
    missing = other.load_state_dict(weights, strict=True)
    assert not missing.missing_keys
    return other


def some_ids(config: GPTConfig, rows: int = 2) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (rows, config.context), generator=torch.Generator().manual_seed(2))


def largest_difference(model: GPT, other: nn.Module) -> float:
    ids = some_ids(model.config)
    with torch.no_grad():
        ours, theirs = model(ids), other(ids).logits
    assert theirs.std() >= 1, "logits this small would hide a difference"
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("config", SHAPES)
def test_logits_are_those_of_transformers(config):
    model = drawn(config)
    assert largest_difference(model, reference(model)) < 1e-4


def norm_before_rope(self, x, ids, cosine, sine, cache=None):
    b, t, c = x.shape
    q, k, v = (m(x).view(b, t, -1, self.config.head_size).transpose(1, 2) for m in (self.query, self.key, self.value))
    q, k = (gpt.rotate(gpt.rms_norm(x, self.config.norm_eps), cosine, sine) for x in (q, k))
    return self.output(gpt.attend(q, k, v, cache=cache).transpose(1, 2).reshape(b, t, c))


MUTANTS = {
    "RoPE's sign flipped": lambda m: m.setattr(gpt, "rotate", lambda x, c, s: attention.rotate(x, c, -s)),
    "no RoPE": lambda m: m.setattr(gpt, "rotate", lambda x, c, s: x),
    "no QK-norm": lambda m: m.setattr(gpt, "rms_norm", lambda x, eps: x if x.ndim == 4 else rms_norm(x, eps)),
    "no norm after the embedding": lambda m: m.setattr(GPT, "features", features_without_first_norm),
    "wrong eps": lambda m: m.setattr(gpt, "rms_norm", lambda x, eps: rms_norm(x, torch.finfo(x.dtype).eps)),
    "no softcap": lambda m: m.setattr(gpt.Head, "cap", lambda self, z: z.float()),
    "queries share the wrong key head": lambda m: m.setattr(gpt, "attend", attend_with_heads_interleaved),
    "ReLU not squared": lambda m: m.setattr(gpt.MLP, "forward", lambda self, x: self.down(torch.relu(self.up(x)))),
}
rms_norm, plain_attend = gpt.rms_norm, attention.attend


def features_without_first_norm(self, ids, cache=None):
    angles = attention.rotary_angles(torch.arange(ids.shape[1])[None], self.config.head_size, self.config.rope_base)[
        :, None
    ]
    x = self.embedding(ids)
    for block in self.blocks:
        x = block(x, ids, angles.cos(), angles.sin())
    return rms_norm(x, self.config.norm_eps)


def attend_with_heads_interleaved(q, k, v, window=None, cache=None):
    times = q.shape[1] // k.shape[1]
    return plain_attend(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1), window, cache)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_model_fails_the_comparison(name, monkeypatch):
    model = drawn(SHAPES[1].values[0])
    with torch.no_grad():
        # Small embeddings, as after a wrong initialisation, so that eps is seen at all.
        model.embedding.weight.mul_(0.005)
    other = reference(model)
    assert largest_difference(model, other) < 1e-4
    MUTANTS[name](monkeypatch)
    assert largest_difference(model, other) > 1e-3


def first_call(model: nn.Module, ids: torch.Tensor, monkeypatch, owner=gpt, name="attend") -> list[torch.Tensor]:
    """What the model first calls `owner.name` with, which is where it hands its queries, keys and values over."""
    caught = []
    whole = getattr(owner, name)
    with monkeypatch.context() as m, torch.no_grad():
        m.setattr(owner, name, lambda *a, **k: caught.append(a) or whole(*a, **k))
        model(ids)
    return caught[0]


def test_norm_comes_after_rope(monkeypatch):
    """A rotation keeps lengths, so without parameters the two orders are the same function and no logit can tell them
    apart in float32; they round differently, and in bfloat16 our queries are transformers' to the bit."""
    model = drawn(SHAPES[0].values[0], torch.bfloat16)
    other = reference(model)
    for weight in other.parameters():  # and not its buffers: the angles stay float32, as in a checkpoint that is loaded
        weight.data = weight.data.bfloat16()
    ids = some_ids(model.config)
    wanted = first_call(other, ids, monkeypatch, nn.functional, "scaled_dot_product_attention")[0]
    right = first_call(model, ids, monkeypatch)[0]
    monkeypatch.setattr(gpt.Attention, "forward", norm_before_rope)
    swapped = first_call(model, ids, monkeypatch)[0]
    assert (right == wanted).float().mean() > 0.999
    assert (swapped == wanted).float().mean() < 0.9


@pytest.mark.parametrize("config", [*SHAPES, *EXTRAS, pytest.param(SHARP, id="sharp")])
def test_cached_logits_are_those_without_a_cache(config):
    model = drawn(config)
    ids = some_ids(config)
    with torch.no_grad():
        whole = model(ids)
        cache = model.empty_cache(2)
        pieces, at = [], 0
        for tokens in (7, 1, 1, 11, config.context - 20):
            pieces.append(model.logits(model.features(ids[:, at : at + tokens], cache)))
            at += tokens
    assert (torch.cat(pieces, dim=1) - whole).abs().max() < 1e-4


@pytest.mark.parametrize("config", [*SHAPES, *EXTRAS, pytest.param(SHARP, id="sharp")])
def test_rows_of_different_lengths_share_a_cache(config):
    model = drawn(config)
    ids, lengths = some_ids(config), torch.tensor([5, 17])
    padded = ids[:, :17].clone()
    padded[0, 5:] = 0
    with torch.no_grad():
        cache = model.empty_cache(2)
        model.features(padded, cache)
        cache.lengths = lengths
        following = torch.stack([ids[0, 5:9], ids[1, 17:21]])
        got = model.logits(model.features(following, cache))
        for row, length in enumerate(lengths.tolist()):
            alone = model(ids[row : row + 1, : length + 4])[0, length:]
            assert (got[row] - alone).abs().max() < 1e-4
        chosen = cache.select(torch.tensor([1, 1, 0]))
    assert chosen.lengths.tolist() == [21, 21, 9]
    assert torch.equal(chosen.keys[:, 2], cache.keys[:, 0])
    assert torch.equal(chosen.ids[2], cache.ids[0])


def test_a_full_cache_says_so():
    model = drawn(SHAPES[0].values[0])
    cache = model.empty_cache(1, capacity=4)
    with pytest.raises(UsageError, match="at most 4 tokens"):
        model.features(torch.zeros(1, 5, dtype=torch.long), cache)


@pytest.mark.parametrize("config", [SHAPES[0], *EXTRAS])
def test_the_future_cannot_be_seen(config):
    model = drawn(config)
    ids = some_ids(model.config)
    changed = ids.clone()
    changed[:, 30:] = (changed[:, 30:] + 1) % model.config.vocab_size
    with torch.no_grad():
        before, after = model(ids), model(changed)
    assert torch.equal(before[:, :30], after[:, :30])
    assert (before[:, 30:] != after[:, 30:]).any(dim=-1).all()


def test_without_extras_the_model_is_the_portable_one():
    """The same parameters under the same names, drawn alike whatever else is there; and the extras start at nothing."""
    plain, rich = GPT(SHAPES[0].values[0]), GPT(dataclasses.replace(SHAPES[0].values[0], **dict.fromkeys(FIELDS, True)))
    assert (plain.config.extras, rich.config.extras) == ((), FIELDS)
    matrices = ("attention.query", "attention.key", "attention.value", "attention.output", "mlp.up", "mlp.down")
    names = ["embedding", *(f"blocks.{layer}.{matrix}" for layer in range(3) for matrix in matrices), "head"]
    assert list(plain.state_dict()) == [f"{name}.weight" for name in names]
    tables = {"blocks.0.attention.values.weight", "blocks.2.attention.values.weight"}
    assert set(rich.state_dict()) - set(plain.state_dict()) == {"smear.gate", "smear.share"} | tables
    plain.init_weights(3)
    rich.init_weights(3)
    assert all(torch.equal(rich.state_dict()[name], weight) for name, weight in plain.state_dict().items())
    ids = some_ids(plain.config)
    assert torch.equal(plain(ids), rich(ids))
    assert {name for name, weight in rich.named_parameters() if "smear" in name and weight.any()} == set()
    assert all(0.019 < rich.state_dict()[name].std() < 0.021 for name in tables)


@pytest.mark.parametrize("config", EXTRAS)
def test_extras_of_zeros_change_nothing_and_others_do(config):
    rich, plain = drawn(config), GPT(dataclasses.replace(config, **dict.fromkeys(FIELDS, False)))
    plain.load_state_dict({name: rich.state_dict()[name] for name in plain.state_dict()})
    ids = some_ids(config)
    with torch.no_grad():
        assert (rich(ids) - plain(ids)).abs().max() > 0.1
        for name, weight in rich.named_parameters():
            if name not in plain.state_dict() and name != "smear.gate":
                weight.zero_()
        assert torch.equal(rich(ids), plain(ids))


@pytest.mark.parametrize("config", [SMEAR, NARROW], ids=["wide", "narrow"])
def test_smear_is_its_formula(config):
    """x_t + lambda sigmoid(w x_t[:24]) x_(t-1), in a plain loop; x_(-1) is zero."""
    model = drawn(config)
    ids = some_ids(config, rows=1)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda block, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model(ids)
        x = rms_norm(model.embedding(ids), config.norm_eps)[0]
        width = min(24, config.n_embd)
        gate, share = model.smear.gate, model.smear.share
        for t, got in enumerate(seen[0][0, :10]):
            opened = 1 / (1 + math.exp(-float(x[t, :width] @ gate[:width])))
            wanted = x[t] + (float(share) * opened * x[t - 1] if t else 0)
            assert (got - wanted).abs().max() < 1e-5


@pytest.mark.parametrize(("layers", "with_tables"), [(1, [0]), (2, [0, 1]), (4, [0, 3])])
def test_the_first_and_the_last_layer_add_their_table_to_the_values(layers, with_tables, monkeypatch):
    model = drawn(dataclasses.replace(VALUES, n_layer=layers))
    tables = [block.attention.values for block in model.blocks]
    assert [layer for layer, table in enumerate(tables) if table is not None] == with_tables
    ids = some_ids(VALUES)
    _, _, values = first_call(model, ids, monkeypatch)
    wanted = tables[0](ids).view(2, 64, 2, 16).transpose(1, 2)
    with torch.no_grad():
        tables[0].weight.zero_()
        *_, bare = first_call(model, ids, monkeypatch)
        assert (values - bare - wanted).abs().max() < 1e-5


def test_a_fresh_model_predicts_every_token_alike_and_is_the_same_for_a_seed():
    config = SHAPES[0].values[0]
    model, again, other = GPT(config), GPT(config), GPT(config)
    model.init_weights(3)
    again.init_weights(3)
    other.init_weights(4)
    logits = model(some_ids(config))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), some_ids(config).flatten())
    assert abs(loss.item() - math.log(config.vocab_size)) < 0.01
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.embedding.weight, other.embedding.weight)
    assert 0.75 < model.embedding.weight.std() < 0.85


def test_bf16_is_near_fp32_and_logits_stay_float32():
    config = SHAPES[0].values[0]
    exact, rough = drawn(config), drawn(config, torch.bfloat16)
    with torch.no_grad():
        a, b = exact(some_ids(config)), rough(some_ids(config))
    assert b.dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in rough.parameters())
    assert (a.softmax(-1) - b.softmax(-1)).abs().mean() < 0.01


@pytest.mark.parametrize(
    "fields",
    [{"n_embd": 65}, {"n_head": 4, "n_kv_head": 3}, {"n_layer": 0}, {"n_embd": 12, "n_head": 4, "n_kv_head": 4}],
)
def test_impossible_shapes_are_refused(fields):
    with pytest.raises(UsageError, match="expected"):
        GPTConfig(**fields)


def test_sharpness_is_a_factor_on_every_score():
    """With queries and keys of length sqrt(D) the scores are within sqrt(D) times the factor; nothing else changes."""
    plain = drawn(dataclasses.replace(SHARP, sharpness=1.0))
    sharp = GPT(SHARP)
    sharp.load_state_dict(plain.state_dict())
    assert (plain.config.extras, sharp.config.extras) == ((), ("sharpness",))
    ids, seen = some_ids(SHARP), []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(
            gpt, "attend", lambda q, k, v, cache: seen.append((q, k)) or attention.attend(q, k, v, cache=cache)
        )
        first, other = plain(ids), sharp(ids)
    (q, k), (sharp_q, sharp_k) = seen[0], seen[SHARP.n_layer]
    torch.testing.assert_close(sharp_q, 1.5 * q)
    assert torch.equal(sharp_k, k)
    assert (first - other).abs().max() > 0.01
