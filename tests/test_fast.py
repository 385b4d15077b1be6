"""The fast decoder against the plain model: float32 token by token, the others by what they are off."""

import copy
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nanochat import fast
from nanochat.checkpoint import find_run, load_model
from nanochat.decoder import PlainDecoder, Run
from nanochat.engine import Engine, Sampling
from nanochat.errors import DeviceError
from nanochat.fast import FORMATS, FastDecoder, decoder_for, pack
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.sampling import distribution, draw
from nanochat.scheduler import Scheduler
from tests.scripted import START, TOKENIZER

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")

SHAPES = {
    "plain": {},
    "GQA": {"n_kv_head": 2, "n_embd": 96},  # a head of 24 features, not a whole number of vectors
    "MQA": {"n_kv_head": 1, "softcap": 4.0, "rope_base": 500.0},
    "extras": {"n_kv_head": 2, "smear": True, "value_embeddings": True, "sharpness": 1.4},
    "narrow": {"n_embd": 16, "n_kv_head": 2, "smear": True, "value_embeddings": True},  # narrower than smear's gate
}
RUNTIME = Runtime(torch.device("cpu"), torch.float32, threads=2)
PROMPTS = [[START, *text.encode()] for text in ("a", "How do I boil an egg?", "Tell me about bread", "x" * 90)]
TEXT = Path(__file__).parents[1] / "nanochat/tasks/howto.jsonl"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """For the plain model beside it, which is small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_model(context: int = 160, **changes: object) -> GPT:
    """A GPT with every matrix drawn N(0, 0.2), of 267 tokens: no whole number of blocks."""
    shape = {"vocab_size": 267, "n_layer": 3, "n_head": 4, "n_kv_head": 4, "n_embd": 64, "context": context, **changes}
    model, draws = GPT(GPTConfig(**shape)), torch.Generator().manual_seed(3)  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2)
        if model.smear is not None:
            model.smear.share.fill_(0.7)
    return model


def ids_of(count: int) -> list[int]:
    return torch.randint(0, 267, (count,), generator=torch.Generator().manual_seed(0)).tolist()


def with_rounded_weights(model: GPT) -> GPT:
    """The model with its matrices rounded to bfloat16; it computes in float32."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for weight in rounded.parameters():
            if weight.ndim == 2:
                weight.copy_(weight.bfloat16())
    return rounded


def plain_scores(model: GPT, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("format", FORMATS)
def test_scores_are_the_models(format: str, name: str) -> None:
    """In two runs, token by token beside another row, in a copied slot, and in one taken back to an earlier token."""
    model, ids = random_model(**SHAPES[name]), ids_of(150)
    whole = plain_scores(with_rounded_weights(model) if format == "bfloat16" else model, ids)
    decoder = FastDecoder(model, RUNTIME, slots=3, format=format)
    found = [decoder.read([Run(1, 0, ids[:70], 70)]).clone(), decoder.read([Run(1, 70, ids[70:140], 70)]).clone()]
    for at in range(140, 150):
        found.append(decoder.read([Run(0, at - 140, [7]), Run(1, at, ids[at : at + 1], 1)]).clone())
    decoder.copy(1, 2, 100)
    again = decoder.read([Run(2, 100, ids[100:110], 10), Run(1, 60, ids[60:62], 2)])
    assert whole.std() >= 0.8
    error = (torch.cat(found).log_softmax(-1) - whole.log_softmax(-1)).abs()
    assert error.mean() <= {"float32": 1e-5, "bfloat16": 1e-4, "int8": 0.06}[format]
    assert error.max() <= {"float32": 1e-4, "bfloat16": 0.002, "int8": 0.6}[format]
    # Whatever is read beside a token and in however many runs, its scores are the same bits.
    assert torch.equal(again, torch.cat(found)[[*range(100, 110), 60, 61]])


def test_float32_writes_the_tokens_of_the_plain_engine() -> None:
    engine = Engine(random_model(n_kv_head=2, smear=True, value_embeddings=True, sharpness=1.4), TOKENIZER, RUNTIME)
    laws = [Sampling(temperature=0, max_tokens=60), Sampling(max_tokens=60, seed=3)]
    scheduler = Scheduler(engine, slots=3)
    assert isinstance(scheduler.decoder, FastDecoder)
    tickets = [scheduler.submit(PROMPTS[row % 4], laws[row % 2], row=row) for row in range(8)]
    found = [ticket.wait() for ticket in tickets]
    scheduler.close()
    for row, answer in enumerate(found):
        (expected,) = engine.generate([PROMPTS[row % 4]], laws[row % 2], rows=[row])
        assert (answer.ids, answer.finish, answer.text) == (expected.ids, expected.finish, expected.text)
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_a_seed_gives_the_same_bits_in_any_company(format: str) -> None:
    model, law = random_model(), Sampling(max_tokens=40, seed=9)
    engine, found = Engine(model, TOKENIZER, RUNTIME), []
    for before, after, slots, threads in ((0, 0, 1, 1), (3, 4, 8, 2), (6, 1, 8, 3)):
        runtime = Runtime(torch.device("cpu"), torch.float32, threads=threads)
        scheduler = Scheduler(engine, slots, decoder=FastDecoder(model, runtime, slots, format))
        for row in range(before):
            scheduler.submit(PROMPTS[row % 4], row=100 + row)
        ticket = scheduler.submit(PROMPTS[1], law, row=7)
        for row in range(after):
            scheduler.submit(PROMPTS[row % 4], row=200 + row)
        answer = ticket.wait()
        scheduler.close(drain=False)
        found.append((answer.ids, answer.logprobs))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("stage", ["pretrain", "rl"])
def test_the_shipped_model_loses_nothing(stage: str) -> None:
    """On real text: bfloat16 within 0.002 of the weights' own log-probabilities, int8 within 0.01 bits per byte."""
    model, tokenizer, _ = load_model(find_run(f"reference:{stage}"), RUNTIME)
    rounded = with_rounded_weights(model)
    ids = [tokenizer.special("<|bos|>"), *tokenizer.encode(TEXT.read_text("utf-8")[:12000])]
    rows = [ids[start : start + 250] for start in range(0, 2500, 250)]
    targets = torch.tensor([token for row in rows for token in row[1:]])[:, None]
    num_bytes = sum(len(tokenizer.decode_bytes(row[1:])) for row in rows)

    def log_p(scores: list[Tensor]) -> Tensor:
        return torch.cat([s[:-1] for s in scores]).log_softmax(-1)

    def nats(log_p: Tensor) -> float:
        return -log_p.gather(1, targets).sum().item()

    exact = log_p([plain_scores(model, row) for row in rows])
    for format, off in (("float32", 1e-4), ("bfloat16", 0.002), ("int8", math.inf)):
        decoder = FastDecoder(model, RUNTIME, 1, format)
        found = log_p([decoder.read([Run(0, 0, row, len(row))]).clone() for row in rows])
        same = log_p([plain_scores(rounded, row) for row in rows]) if format == "bfloat16" else exact
        assert (found - same).abs().max() <= off
        assert (nats(found) - nats(exact)) / math.log(2) / num_bytes <= 0.01


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------

LAWS = [
    Sampling(),
    Sampling(temperature=0),
    Sampling(temperature=0, logprobs_of="model"),
    Sampling(temperature=0.7, top_k=1),
    Sampling(temperature=1.3, top_k=20),
    Sampling(top_k=300),
    Sampling(top_p=0.8),
    Sampling(temperature=0.5, top_p=0.3, logprobs_of="model"),
    Sampling(min_p=0.2),
    Sampling(temperature=0.9, top_k=40, top_p=0.9, min_p=0.05, logprobs_of="model"),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"T{law.temperature} k{law.top_k} p{law.top_p} m{law.min_p}")
def test_tokens_are_drawn_as_sampling_draws_them(law: Sampling) -> None:
    """The same numbers give the same tokens, over flat and peaked scores, with ties and of awkward sizes."""
    draws = torch.Generator().manual_seed(1)
    for size in (3, 64, 267, 5000):
        decoder = FastDecoder(random_model(vocab_size=size, n_layer=1), RUNTIME, 1)
        logits = torch.randn(40, size, generator=draws) * torch.linspace(0.1, 6, 40)[:, None]
        logits[::4] = logits[::4].round()  # ties
        uniforms = torch.rand(40, generator=draws, dtype=torch.float64)
        uniforms[:2] = torch.tensor([0.0, math.nextafter(1, 0)])
        found = decoder.draw(logits, range(40), [law] * 40, uniforms.tolist())
        log_p = distribution(logits, law)
        expected = draw(log_p, uniforms)
        same = torch.tensor([token.id for token in found]) == expected
        assert same.float().mean() >= 0.97  # where rounding moves a line across a number, another token is right too
        told = logits.log_softmax(-1) if law.logprobs_of == "model" and not law.is_plain else log_p
        ids = torch.tensor([[token.id] for token in found])
        assert log_p.gather(1, ids).isfinite().all()
        wanted = told.gather(1, ids).squeeze(1).tolist()
        assert [token.logprob for token in found] == pytest.approx(wanted, abs=1e-5)


def test_rows_of_different_laws_are_drawn_each_by_its_own() -> None:
    decoder = FastDecoder(random_model(), RUNTIME, 1)
    logits = torch.randn(12, 267, generator=torch.Generator().manual_seed(2))
    rows, laws = [11, 3, 0], [Sampling(temperature=0), Sampling(top_k=5), Sampling()]
    together = decoder.draw(logits, rows, laws, [0.5] * 3)
    assert together == [decoder.draw(logits, [r], [law], [0.5])[0] for r, law in zip(rows, laws, strict=True)]
    assert together[0].id == logits[11].argmax()


# ---------------------------------------------------------------------------------------------------------------------
# Weights, and where there is no compiler
# ---------------------------------------------------------------------------------------------------------------------


def test_int8_weights_are_within_half_a_step() -> None:
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.01, 3, 40)[:, None]
    weight[7] = 0
    packed = pack(weight, "int8")
    assert packed.scales is not None
    assert packed.weights.shape == (2, 32, 32, 2)
    back = packed.weights.transpose(1, 2).reshape(64, 64) * packed.scales[:, None]
    assert ((back[:40] - weight).abs() <= packed.scales[:40, None] / 2 * 1.001).all()
    assert (back[40:] == 0).all()


def test_without_a_compiler_the_plain_decoder_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    fast.library.cache_clear()
    engine = Engine(random_model(), TOKENIZER, RUNTIME)
    with pytest.warns(UserWarning, match=r"a compiler for fast.cpp; got none; install one"):
        decoder = decoder_for(engine, 2)
    fast.library.cache_clear()
    assert isinstance(decoder, PlainDecoder)


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    fast.library.cache_clear()
    with pytest.raises(DeviceError, match="false"):
        fast.library()
    fast.library.cache_clear()
    assert list((tmp_path / "compiled").iterdir()) == []


def test_models_and_devices_it_cannot_do_are_named() -> None:
    with pytest.raises(DeviceError, match="a multiple of 16; got 24"):
        FastDecoder(random_model(n_embd=24), RUNTIME, 1)
    with pytest.raises(DeviceError, match="a CPU for the fast decoder; got cuda"):
        FastDecoder(random_model(), Runtime(torch.device("cuda"), torch.float32), 1)


def test_decoders_come_and_go() -> None:
    """Its threads end with it."""
    model, before = random_model(), len(list(Path("/proc/self/task").iterdir()))
    for _ in range(3):
        decoder = FastDecoder(model, Runtime(torch.device("cpu"), torch.float32, threads=4), 1)
        assert len(list(Path("/proc/self/task").iterdir())) == before + 3
        decoder.read([Run(0, 0, [1], 1)])
        decoder.close()
    assert len(list(Path("/proc/self/task").iterdir())) == before
