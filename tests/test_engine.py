"""The engine on the real model against whole forward passes, and on scripted models for what a random one won't say."""

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nanochat.answer import TextFlow, whole_characters
from nanochat.attention import KVCache, rounded
from nanochat.engine import Completion, Engine, Piece, Sampling, grown
from nanochat.errors import ToolError, UsageError
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss import log_probabilities
from nanochat.runtime import Runtime
from nanochat.sampling import distribution
from nanochat.tokenizer import SPECIALS, Call, Message, Output, Text, message, prompt, read_reply, render
from nanochat.tools import Calculator
from tests.scripted import BOS, CALL, CALLED, END, SHOWED, SHOWN, START, TOKENIZER, Scripted, said, saying

PROMPTS = [[START, *text.encode()] for text in ("a", "How do I boil an egg?", "Tell me about bread", "x" * 40)]


def runtime(dtype: torch.dtype = torch.float32) -> Runtime:
    return Runtime(torch.device("cpu"), dtype)


def random_model(
    kv_heads: int = 4, dtype: torch.dtype = torch.float64, context: int = 160, has_extras: bool = False
) -> GPT:
    """A GPT with every matrix drawn N(0, 0.2)."""
    shape = GPTConfig(
        vocab_size=267, n_layer=2, n_head=4, n_kv_head=kv_heads, n_embd=32, context=context,
        smear=has_extras, value_embeddings=has_extras,
    )  # fmt: skip
    model, draws = GPT(shape, dtype), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2)
        if model.smear is not None:
            model.smear.share.fill_(0.7)  # one number, which may be drawn near zero
    return model


def quiet(model: GPT) -> GPT:
    """The same model, which never draws a special token: its answers go on to the end."""
    mutable = model.logits

    def logits(features: Tensor) -> Tensor:
        scores = mutable(features).clone()
        scores[..., 256:] = -30.0
        return scores

    model.logits = logits  # type: ignore[method-assign]
    return model


def full_logits(model: GPT, ids: Sequence[int]) -> Tensor:
    """Scores after each token, by one pass over all of them, without a cache."""
    with torch.no_grad():
        return model.logits(model.features(torch.tensor([ids])))[0]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models as small as these are quicker so, and do not wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[(4, False), (2, False), (1, False), (2, True)], ids=["MHA", "GQA", "MQA", "extras"])
def model(request: pytest.FixtureRequest) -> GPT:
    kv_heads, has_extras = request.param
    return random_model(kv_heads, has_extras=has_extras)


# ---------------------------------------------------------------------------------------------------------------------
# The cache and the batch change nothing
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("has_extras", [False, True], ids=["plain", "extras"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_cached_logits_are_uncached_logits(
    kv_heads: int, has_extras: bool, dtype: torch.dtype, tolerance: float
) -> None:
    model = random_model(kv_heads, dtype, has_extras=has_extras)
    ids = torch.randint(0, 256, (3, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(ids)
        assert expected.std() >= 1
        cache = model.empty_cache(3, 30)
        steps = [12, 1, 1, 5, 1, 10]
        found = torch.cat([model.logits(model.features(part, cache)) for part in ids.split(steps, dim=1)], dim=1)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_a_batch_answers_as_each_prompt_alone_without_a_cache(model: GPT) -> None:
    """Greedy, on prompts of different lengths, past the point where the cache grows."""
    found = Engine(quiet(model), TOKENIZER, runtime()).generate(PROMPTS, Sampling(temperature=0, max_tokens=90))
    for start, answer in zip(PROMPTS, found, strict=True):
        assert (len(answer.ids), answer.finish) == (90, "length")
        # Each token is the likeliest after those before it: one pass tells that of all of them.
        likeliest = full_logits(model, [*start, *answer.ids]).argmax(dim=-1)
        assert answer.ids == likeliest[len(start) - 1 : -1].tolist()


def test_float32_batch_answers_as_each_prompt_alone() -> None:
    engine = Engine(quiet(random_model(2, torch.float32)), TOKENIZER, runtime())
    greedy = Sampling(temperature=0, max_tokens=40)
    together = engine.generate(PROMPTS, greedy)
    alone = [engine.generate([start], greedy)[0] for start in PROMPTS]
    assert [a.ids for a in together] == [b.ids for b in alone]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_answer_depends_on_seed_and_row_alone(dtype: torch.dtype) -> None:
    engine = Engine(random_model(dtype=dtype), TOKENIZER, runtime())
    sampling = Sampling(max_tokens=30, seed=11)
    prompts = [PROMPTS[row % 4] for row in range(12)]
    together = engine.generate(prompts, sampling)
    assert len({tuple(answer.ids) for answer in together}) == 12
    assert [a.ids for a in engine.generate(prompts, sampling, batch=5)] == [a.ids for a in together]
    some = [10, 3, 4]
    for answer, row in zip(engine.generate([prompts[r] for r in some], sampling, rows=some), some, strict=True):
        assert answer.ids == together[row].ids
        assert answer.finish == together[row].finish
        assert answer.logprobs == pytest.approx(together[row].logprobs, abs=1e-4)
    (other,) = engine.generate([prompts[3]], Sampling(max_tokens=30, seed=12), rows=[3])
    assert other.ids != together[3].ids


def test_streaming_gives_the_answer_that_generate_gives() -> None:
    engine = Engine(random_model(), TOKENIZER, runtime())
    sampling = Sampling(max_tokens=30, temperature=0.9, top_p=0.9, seed=2)
    (whole,) = engine.generate([PROMPTS[1]], sampling, rows=[7])
    pieces = list(engine.stream(PROMPTS[1], sampling, row=7))
    assert [piece.id for piece in pieces] == whole.ids
    assert [piece.logprob for piece in pieces] == pytest.approx(whole.logprobs)
    assert "".join(piece.text for piece in pieces if piece.kind == "text") == whole.text
    assert [piece.finish for piece in pieces] == [None] * (len(pieces) - 1) + [whole.finish]


def test_a_cache_goes_on_where_it_was_after_it_is_copied_and_grown(model: GPT) -> None:
    """Prompts of three lengths; one is dropped and one is doubled; then there is room for more."""
    ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5, 12, 9])
    with torch.no_grad():
        cache = model.empty_cache(3, 12)
        model.features(torch.where(torch.arange(12) < lengths[:, None], ids[:, :12], 0), cache)
        cache.lengths = lengths
        kept = torch.tensor([2, 0, 2])
        cache = grown(model, cache.select(kept), 40)
        assert (cache.capacity, cache.lengths.tolist()) == (40, [9, 5, 9])
        for tokens in (1, 6):
            at = cache.lengths.tolist()
            following = torch.stack([ids[row, a : a + tokens] for row, a in zip(kept, at, strict=True)])
            found = model.logits(model.features(following, cache))
            for row, a, scores in zip(kept.tolist(), at, found, strict=True):
                whole = full_logits(model, ids[row, : a + tokens].tolist())
                torch.testing.assert_close(scores, whole[a:], atol=1e-10, rtol=0)


def test_samples_of_one_prompt_with_extras_are_those_of_each_alone() -> None:
    """The prompt's cache is copied to all samples, and rows that ended are dropped from it."""
    engine = Engine(random_model(has_extras=True), TOKENIZER, runtime())
    sampling = Sampling(max_tokens=80, seed=4)
    together = engine.generate([PROMPTS[1]] * 8, sampling)
    alone = [engine.generate([PROMPTS[1]], sampling, rows=[row])[0] for row in range(8)]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    assert len({len(answer.ids) for answer in together}) > 2


def test_samples_of_one_prompt_read_it_once() -> None:
    model = random_model()
    read: list[tuple[int, ...]] = []
    features = model.features

    def spied(ids: Tensor, cache: KVCache | None = None) -> Tensor:
        read.append(tuple(ids.shape))
        return features(ids, cache)

    model.features = spied  # type: ignore[method-assign]
    Engine(quiet(model), TOKENIZER, runtime()).generate([PROMPTS[1]] * 16 + [PROMPTS[0]] * 16, Sampling(max_tokens=3))
    assert read == [(2, rounded(len(PROMPTS[1]))), (32, 1), (32, 1)]


# ---------------------------------------------------------------------------------------------------------------------
# Probabilities
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_logprobs_are_those_that_the_loss_sees(dtype: torch.dtype, tolerance: float) -> None:
    """Reinforcement learning relies on it: temperature 1, no filter, the token that ends the answer included."""
    model = random_model(2, dtype)
    found = Engine(model, TOKENIZER, runtime()).generate(PROMPTS * 4, Sampling(max_tokens=20))
    assert {answer.finish for answer in found} == {"length", "malformed", "stop"}
    for start, answer in zip(PROMPTS * 4, found, strict=True):
        ids = torch.tensor([[*start, *answer.ids]])
        with torch.no_grad():
            expected = log_probabilities(model.features(ids[:, :-1]), model.head, ids[:, 1:])[0, len(start) - 1 :]
        assert answer.logprobs == pytest.approx(expected.tolist(), abs=tolerance)
        assert answer.sampled == [True] * len(answer.ids)


def test_logprobs_are_of_the_draw_unless_the_models_own_are_asked_for() -> None:
    model = random_model()
    engine = Engine(model, TOKENIZER, runtime())
    for sampling in (Sampling(temperature=0.6, top_k=5, max_tokens=20), Sampling(temperature=0, max_tokens=20)):
        (answer,) = engine.generate([PROMPTS[1]], sampling)
        own = Sampling(**{**vars(sampling), "logprobs_of": "model"})
        (same,) = engine.generate([PROMPTS[1]], own)
        assert same.ids == answer.ids
        logits = full_logits(model, [*PROMPTS[1], *answer.ids])[len(PROMPTS[1]) - 1 : -1]
        for reported, log_p in (
            (answer, distribution(logits, sampling)),
            (same, logits.log_softmax(dim=-1)),
        ):
            expected = log_p.gather(1, torch.tensor(answer.ids)[:, None]).squeeze(1)
            assert reported.logprobs == pytest.approx(expected.tolist(), abs=1e-9)
        pieces = list(engine.stream(PROMPTS[1], own))
        best = logits.softmax(dim=-1).topk(5, dim=-1)
        for piece, ids, shares in zip(pieces, best.indices.tolist(), best.values.tolist(), strict=True):
            assert [token for token, _, _ in piece.alternatives] == ids
            assert [text for _, text, _ in piece.alternatives] == [TOKENIZER.decode([token]) for token in ids]
            assert [share for _, _, share in piece.alternatives] == pytest.approx(shares)
        entropies = -(logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)
        assert [piece.entropy for piece in pieces] == pytest.approx(entropies.tolist())


def test_alternatives_are_tokens_that_could_be_drawn() -> None:
    engine = Engine(random_model(), TOKENIZER, runtime())
    for piece in engine.stream(PROMPTS[1], Sampling(top_k=2, max_tokens=5)):
        assert len(piece.alternatives) == 2
        assert sum(share for _, _, share in piece.alternatives) == pytest.approx(1)
    for piece in engine.stream(PROMPTS[1], Sampling(temperature=0, max_tokens=5)):
        assert (piece.logprob, piece.entropy) == (0, 0)
        assert [(token, share) for token, _, share in piece.alternatives] == [(piece.id, 1)]


def test_tokens_come_as_often_as_the_softmax_says() -> None:
    """Pearson's chi-square over the first token of 4,000 rows, likely tokens one by one and the others together."""
    model = random_model()
    count = 4000
    found = Engine(model, TOKENIZER, runtime()).generate(
        [PROMPTS[2]] * count, Sampling(max_tokens=1, seed=1), batch=count
    )
    seen = torch.tensor([answer.ids[0] for answer in found]).bincount(minlength=267)
    expected = full_logits(model, PROMPTS[2])[-1].softmax(dim=-1) * count
    common = expected >= 10
    freedom = int(common.sum())
    assert freedom >= 20
    rest = (seen[~common].sum() - expected[~common].sum()) ** 2 / expected[~common].sum()
    statistic = (((seen - expected)[common] ** 2 / expected[common]).sum() + rest).item()
    # The value that chance exceeds once in a thousand (Wilson and Hilferty 1931).
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


# ---------------------------------------------------------------------------------------------------------------------
# How answers end
# ---------------------------------------------------------------------------------------------------------------------


def answers(model: Scripted, count: int = 1, **settings: object) -> list[Completion]:
    tools = {"calculator": Calculator(), "long": Long(), "broken": Broken()}
    sampling = Sampling(**settings)  # type: ignore[arg-type]
    return Engine(model, TOKENIZER, runtime(), tools).generate([[row, START] for row in range(count)], sampling)


def pieces_of(model: Scripted, **settings: object) -> list[Piece]:
    sampling = Sampling(**settings)  # type: ignore[arg-type]
    return list(Engine(model, TOKENIZER, runtime(), {"calculator": Calculator()}).stream([0, START], sampling))


class Long:
    name = "long"

    def __call__(self, argument: str) -> str:
        return "é" * 300


class Broken:
    name = "broken"

    def __call__(self, argument: str) -> str:
        raise ToolError("out of order")


def test_rows_that_ended_do_not_run_out_of_the_cache() -> None:
    """They stay beside the others until they are a quarter of the batch, here to the end of the context."""
    model = random_model(context=120)
    ending = [START, *b"x" * 100]
    rows = [ending, *[[START]] * 7]
    calls = 0

    def logits(features: Tensor) -> Tensor:
        nonlocal calls
        scores = torch.zeros(len(features), 267, dtype=torch.float64)
        scores[:, 65] = 50
        scores[0, END] = 99 if calls == 0 else 0
        calls += 1
        return scores

    model.logits = logits  # type: ignore[method-assign]
    found = Engine(model, TOKENIZER, runtime()).generate(rows, Sampling(temperature=0, max_tokens=500))
    assert [(len(answer.ids), answer.finish) for answer in found] == [(1, "stop"), *[(119, "length")] * 7]


def test_assistant_end_stops() -> None:
    (answer,) = answers(saying(said("Good day")))
    assert (answer.text, answer.finish) == ("Good day", "stop")
    assert answer.ids == said("Good day", END)
    assert answer.logprobs == pytest.approx([0.0] * 9, abs=1e-9)


def test_max_tokens_and_the_context_are_the_longest_an_answer_gets() -> None:
    endless = saying(said("a" * 500), context=60)
    for most, length in ((7, 7), (58, 58), (500, 58)):
        (answer,) = answers(endless, max_tokens=most)
        assert (len(answer.ids), answer.finish) == (length, "length")
    tokens = [piece.finish for piece in pieces_of(endless, max_tokens=3)]
    assert tokens == [None, None, "length"]


def test_the_last_place_of_the_context_can_hold_the_end() -> None:
    (answer,) = answers(saying(said("abc"), context=6))
    assert (answer.text, answer.finish) == ("abc", "stop")


def test_a_prompt_that_fills_the_context_gets_an_empty_answer_and_a_longer_one_an_error() -> None:
    engine = Engine(random_model(context=40), TOKENIZER, runtime())
    full, shorter = [65] * 40, [65] * 38
    for answer, length in zip(engine.generate([full, shorter, full]), (0, 2, 0), strict=True):
        assert (len(answer.ids), answer.finish, bool(answer.text)) == (length, "length", length > 0)
    assert list(engine.stream(full)) == []
    for wrong in ([65] * 41, []):
        with pytest.raises(UsageError, match=f"1 to 40 tokens; got {len(wrong)} in row 1"):
            engine.generate([shorter, wrong])


def test_no_prompts_no_answers() -> None:
    assert Engine(random_model(), TOKENIZER, runtime()).generate([]) == []


def test_a_row_number_is_needed_for_each_prompt() -> None:
    with pytest.raises(UsageError, match="2 for 4 prompts"):
        Engine(random_model(), TOKENIZER, runtime()).generate(PROMPTS, rows=[1, 2])


@pytest.mark.parametrize("name", [name for name in SPECIALS if name not in ("<|assistant_end|>", "<|call_start|>")])
def test_a_special_token_out_of_place_ends_the_answer(name: str) -> None:
    (answer,) = answers(saying(said("So ", TOKENIZER.special(name), "more")))
    assert answer.ids == said("So ", TOKENIZER.special(name))
    assert (answer.text, answer.finish) == ("So ", "malformed")


@pytest.mark.parametrize("token", [END, CALL, SHOWN])
def test_a_call_that_does_not_end_as_a_call_is_malformed(token: int) -> None:
    (answer,) = answers(saying(said("So ", CALL, "calculator 1", token, "more")))
    assert answer.ids == said("So ", CALL, "calculator 1", token)
    assert (answer.text, answer.finish) == ("So ", "malformed")


def test_plain_text_ends_with_the_document() -> None:
    engine = Engine(Scripted(lambda known: BOS if len(known) > 4 else 65), TOKENIZER, runtime())
    (answer,) = engine.generate([[BOS, 66]])
    assert (answer.text, answer.finish) == ("AAA", "stop")


def test_stop_strings_end_an_answer_across_tokens_and_are_no_part_of_it() -> None:
    model = saying(said("one two\n\nthree"), said("one\n\ttwo"), said("\n\nlast"), said("abab\n"))
    found = answers(model, 4, stop=("\n\n", "o\n\tt"))
    assert [(answer.text, answer.finish) for answer in found] == [
        ("one two", "stop"), ("one\n\ttwo", "stop"), ("", "stop"), ("abab\n", "stop"),
    ]  # fmt: skip
    assert found[0].ids == said("one two\n\n")
    assert found[1].ids == said("one\n\ttwo", END)
    (early,) = answers(model, stop=("two", "ne t"))
    assert early.text == "o"


def test_no_piece_shows_a_part_of_a_stop_string() -> None:
    pieces = pieces_of(saying(said("a # b ## end ### no")), stop=("###", "!"))
    shown = [piece.text for piece in pieces]
    assert "".join(shown) == "a # b ## end "
    assert shown[2:4] == ["", "# "]
    assert pieces[-1].finish == "stop"
    cut_short = pieces_of(saying(said("a ##")), stop=("###",), max_tokens=4)
    assert "".join(piece.text for piece in cut_short) == "a ##"


def test_a_stop_string_in_a_call_or_an_output_is_none() -> None:
    (answer,) = answers(saying(said("a", CALL, "calculator 5+5", CALLED, "b5")), stop=("5", "10"))
    assert (answer.text, answer.finish) == ("ab", "stop")
    assert answer.ids == said("a", CALL, "calculator 5+5", CALLED, SHOWN, "10", SHOWED, "b5")


@given(st.text(alphabet="ab", max_size=30), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_text_flows_up_to_the_first_stop_string(text: str, stops: list[str]) -> None:
    flow = TextFlow(stops)
    shown = ""
    for letter in text:
        shown += flow.push(letter.encode())
        # All that is certain is shown: what is held back is the beginning of a stop string.
        if not flow.stopped:
            held = text[len(shown) :][: len(flow.held)]
            assert held == flow.held
            assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)
    shown += flow.end()
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    # The stop string that is complete first ends the text; of several, the one that begins first.
    expected = text
    if ends:
        until = text[: min(ends)]
        expected = until[: min(until.find(stop) for stop in stops if stop in until)]
    assert shown == expected
    assert flow.stopped == bool(ends)


# ---------------------------------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.one_of(st.integers(0, 255), st.sampled_from([*"é€🍕".encode(), 0xF0, 0x9F, 0xED, 0xA0])), max_size=40)
)
def test_pieces_join_to_the_decoding_of_all_ids(ids: list[int]) -> None:
    pieces = pieces_of(saying(ids), max_tokens=len(ids) + 1)
    assert [piece.id for piece in pieces] == [*ids, END]
    assert "".join(piece.text for piece in pieces) == TOKENIZER.decode(ids)


@given(st.text(max_size=20))
def test_a_character_comes_whole(text: str) -> None:
    ids = TOKENIZER.encode(text)
    shown = [piece.text for piece in pieces_of(saying(ids))]
    assert [part for part in shown if part] == list(TOKENIZER.decode(ids))


def test_bytes_of_an_unfinished_character_are_shown_when_nothing_can_follow() -> None:
    half = "🍕".encode()[:3]
    for ending, most in ((END, 256), (CALL, 256), (65, 4)):
        pieces = pieces_of(saying([65, *half, ending]), max_tokens=most)
        text = "".join(piece.text for piece in pieces if piece.kind == "text")
        assert text == "A\ufffd"


@given(st.text(min_size=1, max_size=12), st.integers(0, 12))
def test_whole_characters_are_the_longest_beginning_that_is_text(text: str, length: int) -> None:
    ids = TOKENIZER.encode(text)[:length]
    kept = bytes(whole_characters(TOKENIZER, ids)).decode()
    assert text.startswith(kept)
    following = text[len(kept) : len(kept) + 1]
    assert len((kept + following).encode()) > length or kept == text


# ---------------------------------------------------------------------------------------------------------------------
# Tools
# ---------------------------------------------------------------------------------------------------------------------


def test_a_call_is_run_and_its_output_read_while_other_rows_go_on() -> None:
    scripts = [
        said("It is ", CALL, "calculator 10/4*2", CALLED, " cups"),
        said("No sums here, I just talk on and on"),
        said(CALL, "calculator 2+2", CALLED, " and ", CALL, "calculator 3*3*1000", CALLED, "."),
    ]
    found = answers(saying(*scripts), 3)
    expected = [
        said("It is ", CALL, "calculator 10/4*2", CALLED, SHOWN, "5", SHOWED, " cups", END),
        said("No sums here, I just talk on and on", END),
        said(CALL, "calculator 2+2", CALLED, SHOWN, "4", SHOWED, " and ")
        + said(CALL, "calculator 3*3*1000", CALLED, SHOWN, "9000", SHOWED, ".", END),
    ]
    assert [answer.ids for answer in found] == expected
    assert [answer.finish for answer in found] == ["stop"] * 3
    assert [answer.text for answer in found] == ["It is  cups", "No sums here, I just talk on and on", " and ."]
    for answer in found:
        inside = False
        for token, is_sampled, logprob in zip(answer.ids, answer.sampled, answer.logprobs, strict=True):
            inside = inside or token == SHOWN
            assert is_sampled is not inside
            assert logprob == pytest.approx(0, abs=1e-9)
            assert logprob == 0 or is_sampled
            inside = inside and token != SHOWED
    assert read_reply(TOKENIZER, found[0].ids) == Message(
        "assistant", (Text("It is "), Call("calculator", "10/4*2"), Output("5"), Text(" cups"))
    )


def test_what_a_tool_writes_comes_as_it_is_read() -> None:
    pieces = pieces_of(saying(said("So ", CALL, "calculator 1+1", CALLED, "!")))
    kinds = [(piece.kind, piece.text, piece.sampled) for piece in pieces if piece.text]
    assert kinds == [
        *(("text", letter, True) for letter in "So "),
        *(("call", letter, True) for letter in "calculator 1+1"),
        ("output", "2", False),
        ("text", "!", True),
    ]


def test_a_call_that_fails_is_answered_with_an_error() -> None:
    for call, output in (("broken", "error: out of order"), ("oven 200", "error: no such tool"), ("", "error: no")):
        (answer,) = answers(saying(said(CALL, call, CALLED)))
        (_, shown, *_) = read_reply(TOKENIZER, said(CALL, call or "x", CALLED, *answer.ids[len(call) + 2 :])).parts
        assert isinstance(shown, Output)
        assert shown.text.startswith(output)
        assert answer.finish == "stop"


def test_an_output_takes_at_most_half_of_what_the_context_has_left() -> None:
    """100 tokens: 2 of prompt, 6 of call, so 92 are left; the output's 46 are two marks and 22 letters of two bytes."""
    (answer,) = answers(saying(said(CALL, "long", CALLED, "done"), context=100))
    assert answer.ids == said(CALL, "long", CALLED, SHOWN, "é" * 22, SHOWED, "done", END)
    (odd,) = answers(saying(said(CALL, "long ", CALLED, "done"), context=99))
    assert odd.ids == said(CALL, "long ", CALLED, SHOWN, "é" * 21, SHOWED, "done", END)


def test_a_call_too_late_to_be_answered_ends_the_answer() -> None:
    for context, outputs in ((2 + 6 + 6, 1), (2 + 6 + 5, 0)):
        (answer,) = answers(saying(said(CALL, "long", CALLED, "x" * 99), context=context))
        assert answer.ids.count(SHOWED) == outputs
        assert answer.finish == "length"


def test_an_answer_has_a_limit_of_calls() -> None:
    one = said(CALL, "calculator 1", CALLED)
    engine = Engine(saying(one * 50, context=2000), TOKENIZER, runtime(), {"calculator": Calculator()}, max_calls=3)
    (answer,) = engine.generate([[0, START]])
    assert (answer.ids.count(CALLED), answer.ids.count(SHOWED), answer.finish) == (4, 3, "length")
    pieces = list(engine.stream([0, START]))
    assert (pieces[-1].id, pieces[-1].finish) == (CALLED, "length")


def test_max_tokens_counts_what_the_model_draws() -> None:
    (answer,) = answers(saying(said(CALL, "long", CALLED, "abcdef")), max_tokens=9)
    assert (answer.text, answer.finish, sum(answer.sampled)) == ("abc", "length", 9)


@pytest.fixture(scope="module")
def trained() -> GPT:
    """A real GPT that has learned two conversations by heart, calls and all."""
    conversations = [
        [message("user", "6*7?"), message("assistant", [Call("calculator", "6*7"), Output("42"), Text("42!")])],
        [message("user", "hello"), message("assistant", "Hi, I am here.")],
    ]
    model = random_model(context=128)
    model.init_weights(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [render(TOKENIZER, conversation) for conversation in conversations]
    for _ in range(60):
        for ids, mask in rows:
            logits = model(torch.tensor([ids[:-1]]))[0]
            losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            optimizer.zero_grad()
            (losses * torch.tensor(mask[1:])).sum().backward()
            optimizer.step()
    return model


def test_a_real_model_calls_a_tool_and_uses_its_output(trained: GPT) -> None:
    """And its logprobs around the tool's output are those of one pass over the whole conversation."""
    engine = Engine(trained, TOKENIZER, runtime(), {"calculator": Calculator()})
    prompts = [prompt(TOKENIZER, [message("user", text)]) for text in ("6*7?", "hello", "6*7?")]
    found = engine.generate(prompts, Sampling(temperature=0, logprobs_of="model"))
    assert [read_reply(TOKENIZER, answer.ids).parts for answer in found] == [
        (Call("calculator", "6*7"), Output("42"), Text("42!")),
        (Text("Hi, I am here."),),
        (Call("calculator", "6*7"), Output("42"), Text("42!")),
    ]
    assert [answer.finish for answer in found] == ["stop"] * 3
    for start, answer in zip(prompts, found, strict=True):
        ids = torch.tensor([[*start, *answer.ids]])
        with torch.no_grad():
            expected = log_probabilities(trained.features(ids[:, :-1]), trained.head, ids[:, 1:])[0, len(start) - 1 :]
        expected = expected * torch.tensor(answer.sampled)
        assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# Manners
# ---------------------------------------------------------------------------------------------------------------------


def test_a_stream_can_be_closed_and_leaves_nothing_behind() -> None:
    model = quiet(random_model())
    steps = 0
    features = model.features

    def counted(ids: Tensor, cache: KVCache | None = None) -> Tensor:
        nonlocal steps
        steps += 1
        return features(ids, cache)

    model.features = counted  # type: ignore[method-assign]
    engine = Engine(model, TOKENIZER, runtime())
    stream: Iterator[Piece] = engine.stream(PROMPTS[1], Sampling(max_tokens=100))
    first = [next(stream) for _ in range(3)]
    assert steps == 3
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    stream.close()  # type: ignore[attr-defined]
    assert list(stream) == []
    assert steps == 3
    assert [piece.id for piece in first] == engine.generate([PROMPTS[1]], Sampling(max_tokens=3))[0].ids


def test_a_model_can_be_trained_after_it_has_answered() -> None:
    model = random_model()
    Engine(model, TOKENIZER, runtime()).generate(PROMPTS, Sampling(max_tokens=4))
    model(torch.tensor([PROMPTS[1]])).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_bfloat16_answers() -> None:
    (answer,) = Engine(quiet(random_model(dtype=torch.bfloat16)), TOKENIZER, runtime()).generate(
        [PROMPTS[1]], Sampling(max_tokens=10)
    )
    assert len(answer.ids) == 10
    assert all(value <= 0 for value in answer.logprobs)


CUTTING = Sampling(temperature=0, max_tokens=200, cut_circles=True)


def test_an_answer_that_goes_round_in_circles_is_cut() -> None:
    phrase = list(b"and then ")
    model = saying([*b"Mix. ", *phrase * 20, END])
    (found,) = Engine(model, TOKENIZER, runtime()).generate([[0, START]], CUTTING)
    assert found.finish == "length"
    assert len(found.ids) == 4 + 48  # the phrase, from the blank before it
    long = [*b"a phrase that has many letters. " * 2, END]  # twice is no circle
    (found,) = Engine(saying(long), TOKENIZER, runtime()).generate([[0, START]], CUTTING)
    assert (found.finish, found.ids) == ("stop", long)
    (found,) = Engine(model, TOKENIZER, runtime()).generate([[0, START]], Sampling(temperature=0))
    assert (found.finish, len(found.ids)) == ("stop", 6 + 9 * 20)
