"""What the original's chapter on training says wrongly, shown right (educational/06_training_process.md)."""

import importlib.util
import itertools
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist

from nanochat.checkpoint import load_model
from nanochat.distributed import Replicated
from nanochat.engine import Completion
from nanochat.evaluate.bits import encode_held, score_held
from nanochat.gpt import GPT, GPTConfig
from nanochat.loss import IGNORE, weighted_nll
from nanochat.optim import build_optimizer
from nanochat.plan import count_parameters
from nanochat.rollout import Rollout, to_batches
from nanochat.runtime import Runtime
from nanochat.tokenizer import Call, Output, Text, Tokenizer, message, render
from nanochat.train import Batch
from tests.ranked import Messages

ROOT = Path(__file__).parents[2]
RUNTIME = Runtime(torch.device("cpu"), torch.float64)
TEXTS = [
    "Flat Bread\n\nServes 4.\n\nIngredients:\n- 2 cups wheat flour\n- 1 teaspoon salt\n",
    "2 cups of flour serve 4",
]


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checks_ch06", ROOT / "educational" / "checks" / "ch06.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(ROOT / "runs" / "reference" / "tokenizer")


def knowing_nothing(vocab_size: int) -> GPT:
    model = GPT(GPTConfig(vocab_size, 1, 2, 1, 16, 64), torch.float64).double()
    torch.nn.init.zeros_(model.head.weight)
    return model


# "BPB = loss / ln 2 / mean bytes of the vocabulary's tokens"


def test_bits_per_byte_divides_by_the_bytes_of_the_text_and_not_of_the_vocabulary(tokenizer: Tokenizer) -> None:
    held = encode_held(tokenizer, TEXTS)
    right = score_held(knowing_nothing(tokenizer.vocab_size), held, RUNTIME).value
    tokens, num_bytes = sum(len(ids) - 1 for ids in held.ids), sum(len(text.encode()) for text in TEXTS)
    bits = tokens * math.log2(tokenizer.vocab_size)
    assert right == pytest.approx(bits / num_bytes, abs=1e-9)
    sizes = [len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size - len(tokenizer.specials))]
    by_vocabulary = math.log2(tokenizer.vocab_size) / (sum(sizes) / len(sizes))
    assert abs(by_vocabulary - right) > 0.5  # long tokens are rare


# "A random model scores 8 BPB"


def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary_and_not_eight(tokenizer: Tokenizer) -> None:
    assert math.log2(65_536) / 4.8 == pytest.approx(3.33, abs=0.005)
    assert score_held(knowing_nothing(tokenizer.vocab_size), encode_held(tokenizer, TEXTS), RUNTIME).value < 7


def test_over_single_bytes_it_would_be_eight() -> None:
    class Bytes:
        def encode(self, text: str) -> list[int]:
            return list(text.encode())

        def special(self, name: str) -> int:
            return 0

    value = score_held(knowing_nothing(256), encode_held(Bytes(), TEXTS), RUNTIME).value
    assert value == pytest.approx(8, abs=1e-9)


# "CORE = 0.3 x this + 0.25 x that"


def core(results: list[tuple[float, int]]) -> float:
    """The mean of centred accuracies of (accuracy, options)."""
    return sum((accuracy - 1 / options) / (1 - 1 / options) for accuracy, options in results) / len(results)


def test_core_is_the_plain_mean_of_centred_accuracies(checks: ModuleType) -> None:
    assert checks.chance_is_zero() < 1e-12
    assert core([(1 / k, k) for k in (2, 4, 10)]) == pytest.approx(0, abs=1e-12)
    assert core([(0.6, 2), (0.25, 4), (1.0, 10)]) == pytest.approx(0.4)
    # No task weighs more than another, and their order does not matter.
    tasks = [(0.7, 2), (0.3, 4), (0.9, 10)]
    assert len({round(core(list(order)), 12) for order in itertools.permutations(tasks)}) == 1


# "RL": the best of n answers, and fine-tuning on it


def advantages(rewards: list[float]) -> list[float]:
    return [reward - sum(rewards) / len(rewards) for reward in rewards]


def gradient(weights: list[float], tokenizer: Tokenizer, model: GPT) -> torch.Tensor:
    """Of four answers of one token to one question, weighted so."""
    prompt = tokenizer.encode("2 cups")
    answers = [Completion([token], [0.0], [True], "stop", "") for token in (50, 52, 54, 56)]
    rollouts = [Rollout(None, prompt, a, 0.0, w) for a, w in zip(answers, weights, strict=True)]  # type: ignore[arg-type]
    (batch,) = to_batches(rollouts, 4, RUNTIME, {})
    batch = Batch(batch.inputs, batch.targets, batch.weights.double(), {})
    model.zero_grad()
    weighted_nll(model.features(batch.inputs), model.head, batch).backward()
    return model.head.weight.grad.clone()


def test_policy_gradient_pushes_bad_answers_down_and_best_of_n_does_not(tokenizer: Tokenizer) -> None:
    model = GPT(GPTConfig(tokenizer.vocab_size, 1, 2, 1, 16, 64), torch.float64).double()
    model.init_weights(0)
    direction = model.features(torch.tensor([tokenizer.encode("2 cups")]))[0, -1].detach()
    rewards = [1.0, 0.0, 0.0, 0.0]
    ours = -gradient(advantages(rewards), tokenizer, model) @ direction  # how each token's score would move
    best = -gradient([1.0, 0.0, 0.0, 0.0], tokenizer, model) @ direction
    never_drawn = 100
    assert ours[50] > 0 > ours[52]
    assert ours[52] < 10 * ours[never_drawn]  # pushed down for being wrong
    assert best[52] == pytest.approx(float(best[never_drawn]), rel=0.05)  # only crowded out, like any other token


def test_equal_rewards_teach_nothing_where_best_of_n_imitates_a_wrong_answer(tokenizer: Tokenizer) -> None:
    model = GPT(GPTConfig(tokenizer.vocab_size, 1, 2, 1, 16, 64), torch.float64).double()
    model.init_weights(0)
    assert gradient(advantages([0.0] * 4), tokenizer, model).abs().max() == 0
    assert gradient([1.0, 0.0, 0.0, 0.0], tokenizer, model).abs().max() > 0


def test_the_policy_gradient_is_the_gradient_of_the_expected_reward(checks: ModuleType) -> None:
    assert checks.policy_gradient() < 1e-6
    assert checks.baseline_is_free() < 1e-12
    assert checks.group_mean_shrinks() < 1e-12


# "DDP" for an optimizer whose state is cut up among processes


def test_data_parallel_keeps_whole_moments_and_a_sharded_optimizer_would_not(tmp_path: Path) -> None:
    """What DDP sums is every gradient, and each process then holds all moments: 16 bytes a parameter.

    That `zero` shares the moments out is tested in tests/test_distributed.py, with several processes.
    """
    config = GPTConfig(64, 1, 2, 1, 16, 8)
    model = GPT(config)
    model.init_weights(0)
    optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.2, head_lr=0.01)
    ids = torch.arange(9)[None]
    batch = Batch(ids[:, :-1], ids[:, 1:], torch.ones(1, 8), {})
    parameters = sum(count_parameters(config).values())
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        ranks = Replicated(Runtime(torch.device("cpu"), torch.float32))
        assert ranks.wrap(model, optimizer, torch.device("cpu")) is optimizer
        loss = ranks.nll(model, batch, last=True)
        with Messages(world=2) as messages:
            loss.backward()
        assert messages.counts["allreduce"] >= 1
        assert messages.bytes == 2 * 4 * parameters // 2
    finally:
        dist.destroy_process_group()
    optimizer.step()
    states = [state for part in optimizer.optimizers for state in part.state.values()]
    moments = sum(t.numel() for state in states for t in state.values() if t.numel() > 1)
    tables = 2 * 64 * 16
    assert moments == 2 * tables + (parameters - tables)  # two for AdamW's tables, one for Muon's matrices


def test_a_ring_sends_less_than_twice_the_gradients(checks: ModuleType) -> None:
    assert checks.ring_sums_and_counts() < 1e-9


# What the chapter says of the shipped run


def test_the_first_loss_is_ln_v_and_the_end_of_turn_is_learned(tokenizer: Tokenizer) -> None:
    first = json.loads((ROOT / "runs/reference/metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(tokenizer.vocab_size), abs=0.05)
    chat, _, _ = load_model(ROOT / "runs/reference/rl", Runtime(torch.device("cpu"), torch.float32))
    said = [Call("calculator", "2*10/4"), Output("5"), Text("You need 5 cups of flour.")]
    asked = message("user", "2 cups of flour serve 4. How much for 10 people?")
    ids, mask = render(tokenizer, [asked, message("assistant", said)])
    assert ids[-1] == tokenizer.special("<|assistant_end|>")
    assert mask[-1] == 1
    row = torch.tensor([ids])
    targets = torch.where(row == ids[-1], row, IGNORE)[:, 1:]
    with torch.no_grad():
        nats = weighted_nll(
            chat.features(row[:, :-1]), chat.head, Batch(row[:, :-1], targets, torch.ones(targets.shape), {})
        )
    assert nats < 1
