"""The X-ray tells of the model itself: held to its outputs, its attention, and to reading everything at once."""

import dataclasses

import pytest
import torch

from nanochat.attention import attend
from nanochat.errors import UsageError
from nanochat.gpt import GPT, Attention, Block, GPTConfig, rms_norm
from nanochat.serve import trace
from nanochat.serve.trace import Trace, Xray

PLAIN = GPTConfig(vocab_size=61, n_layer=3, n_head=4, n_kv_head=4, n_embd=48, context=40)
GROUPED = dataclasses.replace(PLAIN, n_kv_head=2)
EVERYTHING = dataclasses.replace(PLAIN, n_kv_head=1, smear=True, value_embeddings=True, sharpness=1.5)
IDS = [(7 * place * place + 3) % 61 for place in range(33)]


def model_of(config: GPTConfig, dtype: torch.dtype = torch.float32) -> GPT:
    torch.manual_seed(1)
    model = GPT(config, dtype).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module", params=[PLAIN, GROUPED, EVERYTHING], ids=["plain", "grouped", "everything"])
def traced(request: pytest.FixtureRequest) -> tuple[GPT, Trace]:
    model = model_of(request.param)
    return model, Xray(model).read(IDS)


def test_each_row_of_attention_sums_to_one_and_sees_no_later_token(traced: tuple[GPT, Trace]) -> None:
    _, found = traced
    assert found.attention.shape == (3, 4, 33, 33)
    torch.testing.assert_close(found.attention.sum(-1), torch.ones(3, 4, 33))
    assert found.attention.triu(diagonal=1).abs().max() == 0
    assert (found.attention >= 0).all()


def test_logits_are_the_model_s_own_and_the_last_lens_equals_them(traced: tuple[GPT, Trace]) -> None:
    model, found = traced
    with torch.inference_mode():
        expected = model(torch.tensor([IDS]))[0]
    torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
    assert found.lens.shape == (4, 33, 61)
    assert torch.equal(found.lens[-1], found.logits)
    assert (found.lens[0] - found.logits).abs().max() > 0.1  # and the layers before it are others


def test_the_weights_are_those_that_the_model_mixes_values_by(traced: tuple[GPT, Trace]) -> None:
    model, found = traced
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(attention: Attention, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x, ids, *_ = inputs
        v = attention.value(x).view(1, 33, -1, attention.config.head_size).transpose(1, 2)
        if attention.values is not None:
            v = v + attention.values(ids).view(1, 33, -1, attention.config.head_size).transpose(1, 2)
        seen.append((v, output))

    handles = [block.attention.register_forward_hook(keep) for block in model.blocks if isinstance(block, Block)]
    with torch.inference_mode():
        model(torch.tensor([IDS]))
        for handle in handles:
            handle.remove()
        for layer, (v, output) in enumerate(seen):
            block = model.blocks[layer]
            assert isinstance(block, Block)
            mixed = found.attention[layer] @ v[0].repeat_interleave(4 // v.shape[1], dim=0)
            written = block.attention.output(mixed.transpose(0, 1).reshape(1, 33, 48))
            torch.testing.assert_close(written, output, atol=1e-4, rtol=1e-4)


def test_weights_agree_with_attend() -> None:
    torch.manual_seed(0)
    q, k = (rms_norm(torch.randn(1, heads, 16, 16), 1e-6) for heads in (4, 2))
    eye = torch.eye(16).expand(1, 2, 16, 16)  # with values that name their places, attention gives its weights away
    torch.testing.assert_close(trace.weights(q, k), attend(q, k, eye), atol=1e-6, rtol=1e-5)


def test_a_text_read_piece_by_piece_is_the_text_read_at_once(traced: tuple[GPT, Trace]) -> None:
    model, whole = traced
    xray = Xray(model)
    for length in (5, 6, 7, 20, 33):
        start = length - 2
        row = xray.read(IDS[:length], start)
        assert len(row) == 2
        torch.testing.assert_close(row.logits, whole.logits[start:length], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(row.attention, whole.attention[:, :, start:length, :length], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(row.memory, whole.memory[:, start:length], atol=1e-4, rtol=1e-4)


def test_only_new_tokens_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    xray, read = Xray(model_of(PLAIN)), []
    look = trace.look
    monkeypatch.setattr(
        trace, "look", lambda model, cache, ids, *more: (read.append(len(ids)), look(model, cache, ids, *more))[1]
    )
    xray.read(IDS[:20])
    xray.read(IDS[:21], 20)
    xray.read([*IDS[:10], 1, 2], 11)  # another way from place 10 on
    assert read == [20, 1, 2]


def test_what_it_remembers_is_the_length_of_the_values(traced: tuple[GPT, Trace]) -> None:
    model, found = traced
    cache = model.empty_cache(1)
    with torch.inference_mode():
        model.features(torch.tensor([IDS]), cache)
    torch.testing.assert_close(
        found.memory, cache.values[:, 0, :, :33].square().sum((1, 3)).sqrt(), atol=1e-4, rtol=1e-4
    )


def test_hooks_stay_off_the_model_and_weights_are_shared() -> None:
    model = model_of(PLAIN)
    xray = Xray(model)
    xray.read(IDS)
    assert all(not block._forward_hooks for block in [*model.blocks, *xray.model.blocks])
    assert xray.model.head.weight.data_ptr() == model.head.weight.data_ptr()


def test_bfloat16_rows_sum_to_one_too() -> None:
    model = model_of(EVERYTHING).to(torch.bfloat16)
    model.dtype = torch.bfloat16
    found = Xray(model).read(IDS)
    torch.testing.assert_close(found.attention.sum(-1), torch.ones(3, 4, 33))
    assert torch.equal(found.lens[-1], found.logits)


@pytest.mark.parametrize(
    ("ids", "start", "complaint"),
    [([], 0, "1 to 40 tokens"), ([1] * 41, 0, "1 to 40 tokens"), ([61], 0, "vocabulary of 61"), ([-1], 0, "vocabulary"),
     ([1, 2], 2, "start from 0 to 1"), ([1, 2], -1, "start")],
)  # fmt: skip
def test_what_the_model_cannot_read_is_refused(ids: list[int], start: int, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Xray(model_of(PLAIN)).read(ids, start)


def test_an_answer_is_limited_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST_WEIGHTS", 3 * 4 * 33 * 33 - 1)
    xray = Xray(model_of(PLAIN))
    with pytest.raises(UsageError, match="fewer rows"):
        xray.read(IDS)
    assert len(xray.read(IDS, 1)) == 32
    assert len(xray.read(IDS, attention=False)) == 33


def test_a_step_is_timed_by_part() -> None:
    xray = Xray(model_of(PLAIN))
    parts = xray.time_a_token(IDS)
    assert [name for name, _ in parts] == [
        "embedding", "attention 1", "MLP 1", "attention 2", "MLP 2", "attention 3", "MLP 3", "head",
        "norms and the rest",
    ]  # fmt: skip
    assert all(ms > 0 for name, ms in parts if name != "norms and the rest")
    torch.testing.assert_close(xray.read(IDS).logits, Xray(xray.model).read(IDS).logits)  # and nothing is left of it
