"""Bits per byte: each byte counted once, whatever the batch; against a plain loop, and against knowing nothing."""

import math
import random

import pytest
import torch

from nanochat.errors import DataError
from nanochat.evaluate.bits import Held, bits_per_byte, document_nats, encode_held, sample, score_held, windows
from nanochat.evaluate.compression import joined, xz_bits_per_byte, xz_figures, xz_size
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime

CONTEXT = 16
RUNTIME = Runtime(torch.device("cpu"), torch.float64)


class Letters:
    """A tokenizer that is plain enough to check by hand: bytes, and pairs of them that are equal."""

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for byte in text.encode():
            if ids and ids[-1] == byte and byte < 128:
                ids[-1] = byte + 257
            else:
                ids.append(byte)
        return ids

    def special(self, name: str) -> int:
        assert name == "<|bos|>"
        return 256


def model(context: int = CONTEXT) -> GPT:
    """A model in float64 whose weights are drawn large, so that its history matters."""
    gpt = GPT(GPTConfig(vocab_size=400, n_layer=2, n_head=2, n_kv_head=1, n_embd=16, context=context), torch.float64)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.3)
    return gpt.double()


def texts() -> list[str]:
    """Documents shorter than, equal to, and longer than the context, one of a single byte, some beyond ASCII."""
    draws = random.Random(0)
    sizes = [1, 2, CONTEXT // 2, CONTEXT - 1, CONTEXT, CONTEXT + 1, CONTEXT + 8, CONTEXT + 9, 3 * CONTEXT, 121]
    # No letter stands twice in a row, so that each is one token.
    plain = ["".join(draws.choice("abc" if place % 2 else "def") for place in range(size)) for size in sizes]
    return plain + ["".join(draws.choice("abcdeé ½🍞") for _ in range(size)) for size in sizes]


def held() -> Held:
    return encode_held(Letters(), texts())


def plain_nats(gpt: GPT, ids: tuple[int, ...]) -> float:
    """-ln p of each token in turn, from one run of the model over exactly the tokens before it."""
    total = 0.0
    with torch.no_grad():
        for place in range(1, len(ids)):
            logits = gpt(torch.tensor([ids[:place]]))[0, -1]
            total -= float(logits.log_softmax(-1)[ids[place]])
    return total


def test_documents_within_the_context_agree_with_a_plain_loop_over_tokens() -> None:
    documents = held()
    nats = document_nats(model(), documents, RUNTIME)
    short = [index for index, ids in enumerate(documents.ids) if len(ids) <= CONTEXT + 1]
    assert {len(documents.ids[index]) for index in short} >= {2, CONTEXT, CONTEXT + 1}
    for index in short:
        assert nats[index] == pytest.approx(plain_nats(model(), documents.ids[index]), abs=1e-9)


def test_a_long_document_agrees_with_a_plain_loop_over_its_windows() -> None:
    # From the definition: the first window of 16 scores all it holds, each later one the 8 behind its start + 8.
    ids = held().ids[-1]
    assert len(ids) > 6 * CONTEXT
    gpt, total = model(), 0.0
    with torch.no_grad():
        for place in range(1, len(ids)):
            start = 0 if place <= CONTEXT else (place - CONTEXT + 7) // 8 * 8
            assert place - start > CONTEXT // 2 or start == 0
            total -= float(gpt(torch.tensor([ids[start:place]]))[0, -1].log_softmax(-1)[ids[place]])
    assert document_nats(gpt, held(), RUNTIME)[-1] == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("context", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("length", range(40))
def test_windows_score_every_token_once_with_half_a_context_of_history(context: int, length: int) -> None:
    scored: list[int] = []
    for window in windows(0, length, context):
        assert 1 <= window.stop - window.start <= context
        for place in range(window.scored, window.stop + 1):
            assert place - window.start >= min(place, context / 2)
            scored.append(place)
    assert scored == list(range(1, length))


def test_the_batch_changes_nothing() -> None:
    alone, seven = (document_nats(model(), held(), RUNTIME, batch=batch) for batch in (1, 7))
    assert abs(alone - seven).max() < 1e-9
    assert alone.min() > 0


def test_the_order_of_documents_and_their_company_change_nothing() -> None:
    documents = held()
    backwards = Held(documents.ids[::-1], documents.num_bytes[::-1])
    assert (
        abs(document_nats(model(), documents, RUNTIME) - document_nats(model(), backwards, RUNTIME)[::-1]).max() < 1e-9
    )


def test_the_figure_is_total_bits_over_total_bytes() -> None:
    documents, calls = held(), []
    figure = score_held(
        model(), documents, RUNTIME, stage="pretrain", name="bpb_wiki", progress=lambda *at: calls.append(at), batch=4
    )
    size = sum(len(text.encode()) for text in texts())
    assert sum(documents.num_bytes) == size
    assert figure.value == pytest.approx(document_nats(model(), documents, RUNTIME).sum() / math.log(2) / size)
    assert (figure.stage, figure.name, figure.n, figure.unit) == ("pretrain", "bpb_wiki", len(texts()), "bits/byte")
    assert figure.low < figure.value < figure.high
    assert calls[-1][0] == calls[-1][1] == sum(len(list(windows(0, len(ids), CONTEXT))) for ids in documents.ids)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_its_vocabulary() -> None:
    gpt = model()
    with torch.no_grad():
        gpt.head.weight.zero_()
    text = "no letter twice"
    figure = bits_per_byte(gpt, Letters(), [text], RUNTIME)
    assert figure.value == pytest.approx(math.log2(400) * len(Letters().encode(text)) / len(text), rel=1e-9)


def test_a_limit_draws_a_keyed_sample() -> None:
    assert sample(5, None, 0) == sample(5, 9, 0) == [0, 1, 2, 3, 4]
    first, again, other = sample(1000, 50, 0), sample(1000, 50, 0), sample(1000, 50, 1)
    assert first == again == sorted(set(first)) != other
    assert len(first) == 50
    assert 300 < sum(first) / 50 < 700
    some = encode_held(Letters(), texts(), limit=4, seed=3)
    assert some.ids == tuple((256, *Letters().encode(texts()[index])) for index in sample(len(texts()), 4, 3))


def test_no_text_is_a_users_mistake() -> None:
    with pytest.raises(DataError, match="held-out documents that hold text"):
        encode_held(Letters(), ["", ""])
    with pytest.raises(DataError, match="held-out documents that hold text"):
        xz_bits_per_byte(["text"], [])


def test_xz_pays_little_for_what_it_has_seen_and_full_price_for_noise() -> None:
    draws = random.Random(0)
    noise = ["".join(draws.choice("0123456789abcdef") for _ in range(2000)) for _ in range(40)]
    seen, new = xz_bits_per_byte(noise, noise[:10]), xz_bits_per_byte(noise[:30], noise[30:])
    assert seen.value < 0.1
    # Sixteen letters, equally likely: four bits each.
    assert 4 <= new.value < 4.3
    assert (seen.n, seen.unit, seen.has_interval) == (10, "bits/byte", False)


def test_xz_by_hand() -> None:
    train, new = ["flour, sugar, two eggs"] * 3, ["flour, sugar, three eggs", "half a cup of milk"]
    extra = xz_size(joined(train) + joined(new)) - xz_size(joined(train))
    assert xz_bits_per_byte(train, new).value == extra * 8 / len("".join(new))
    both = xz_figures(train, {"bpb_new_xz": new, "bpb_old_xz": train})
    assert [(figure.name, figure.value, figure.n) for figure in both] == [
        ("bpb_new_xz", xz_bits_per_byte(train, new).value, 2),
        ("bpb_old_xz", xz_bits_per_byte(train, train).value, 3),
    ]
