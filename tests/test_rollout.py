"""Reinforcement: what is sampled is what the loss sees, stopping included, and rewards move probabilities."""

from dataclasses import replace

import pytest
import torch

from nanochat.engine import Completion, Engine, Sampling
from nanochat.gpt import GPT, GPTConfig
from nanochat.keyed import rng
from nanochat.loss import IGNORE, log_probabilities, weighted_nll
from nanochat.optim import build_optimizer
from nanochat.rollout import Question, Rollout, reward, roll_out, sampling_seed, to_batches
from nanochat.runtime import detect
from nanochat.stages.reinforce import micro_batches
from nanochat.tasks.task import Example, Grade, dialogue
from nanochat.tokenizer import read_reply, train_tokenizer
from nanochat.tools import Calculator
from nanochat.train import train

TOKENIZER = train_tokenizer(["how many cups of flour, how many eggs, say yes or no "] * 20, 256 + 11 + 20)
END = TOKENIZER.special("<|assistant_end|>")
RUNTIME = detect("cpu", "float64", threads=1)


class Letters:
    """Rewards an answer for the share of e's in it."""

    name = "letters"

    def example(self, split, index, seed=0):
        question = ["how many eggs?", "say yes or no, how many cups of flour?"][index % 2]
        return Example(dialogue(question, "eee"), {}, "only")

    def grade(self, example, reply):
        return Grade(reply.text.count("e") / max(1, len(reply.text)), "")


def question(index: int) -> Question:
    task = Letters()
    return Question(task, task.example("train", index))


def imitation():
    """Batches that teach to answer with one to six letters from a to e, and to stop."""
    index = 0
    while True:
        letters = rng(0, "letters", index)
        pairs = [(question(n), "".join(letters.choices("abcde", k=letters.randint(1, 6)))) for n in range(16)]
        answers = [[*TOKENIZER.encode(text), END] for _, text in pairs]
        done = [Completion(ids, [0.0] * len(ids), [True] * len(ids), "stop", "") for ids in answers]
        found = [Rollout(q, q.prompt(TOKENIZER), c, 1.0, 1.0) for (q, _), c in zip(pairs, done, strict=True)]
        yield from to_batches(found, 16, RUNTIME, {})
        index += 1


@pytest.fixture
def engine():
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 2, 2, 1, 32, 64), torch.float64).double()
    model.init_weights(0)
    optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.1, head_lr=0.02, dtype=torch.float64)
    list(train(model, optimizer, imitation(), lambda _: 1.0, steps=25))
    return Engine(model, TOKENIZER, RUNTIME, {"calculator": Calculator()})


def rollouts(engine, step=0, samples=8):
    return roll_out(engine, [question(0), question(1)], samples, Sampling(max_tokens=24, seed=sampling_seed(0, step)))


def test_the_loss_sees_the_distribution_that_was_sampled_from(engine):
    """Every token's log-probability under a plain forward pass is the one it was drawn with, stop token included."""
    found = rollouts(engine)
    checked = stops = 0
    for part, batch in zip([found[:6], found[6:12], found[12:]], to_batches(found, 6, RUNTIME, {}), strict=True):
        with torch.no_grad():
            seen = log_probabilities(engine.model.features(batch.inputs), engine.model.head, batch.targets)
        for row, rollout in enumerate(part):
            drawn = [
                p for p, sampled in zip(rollout.completion.logprobs, rollout.completion.sampled, strict=True) if sampled
            ]
            targets = batch.targets[row]
            assert seen[row][targets != IGNORE].tolist() == pytest.approx(drawn, abs=1e-9)
            ids = [t for t, sampled in zip(rollout.completion.ids, rollout.completion.sampled, strict=True) if sampled]
            assert targets[targets != IGNORE].tolist() == ids
            checked += len(drawn)
            stops += int((targets == END).sum())
    assert checked > 50
    assert stops == sum(r.completion.finish == "stop" for r in found) > 0


def test_prompts_and_padding_are_not_learned_and_weights_are_advantages(engine):
    found = rollouts(engine)
    for batch in to_batches(found, 16, RUNTIME, {"next": 1}):
        assert batch.cursor == {"next": 1}
        for row, rollout in enumerate(found):
            learned = batch.targets[row] != IGNORE
            assert not learned[: len(rollout.prompt) - 1].any()
            assert batch.weights[row][learned].tolist() == pytest.approx([rollout.advantage] * int(learned.sum()))
            assert torch.all(batch.weights[row][~learned] == 0)


def test_what_a_tool_wrote_is_context_and_no_target():
    """A completion with a call: the tool's output was not drawn, so no gradient flows to its tokens."""
    inside = TOKENIZER.encode("calculator 1+1")
    output = TOKENIZER.encode("2")
    special = TOKENIZER.special
    ids = [special("<|call_start|>"), *inside, special("<|call_end|>"), special("<|output_start|>"), *output]
    ids += [special("<|output_end|>"), *TOKENIZER.encode("2"), END]
    put_in = range(len(inside) + 2, len(inside) + 4 + len(output))
    sampled = [place not in put_in for place in range(len(ids))]
    asked = question(0)
    completion = Completion(ids, [0.0] * len(ids), sampled, "stop", "2")
    rollout = Rollout(asked, asked.prompt(TOKENIZER), completion, 1.0, 0.5)
    batch = next(to_batches([rollout], 1, RUNTIME, {}))
    learned = batch.targets[0][batch.targets[0] != IGNORE].tolist()
    assert learned == [t for t, s in zip(ids, sampled, strict=True) if s]
    assert special("<|output_start|>") not in learned
    assert learned[-1] == END


def test_advantages_are_rewards_minus_the_mean_of_the_group(engine):
    found = rollouts(engine)
    for group in (found[:8], found[8:]):
        assert len({tuple(r.prompt) for r in group}) == 1
        mean = sum(r.reward for r in group) / 8
        assert [r.advantage for r in group] == pytest.approx([r.reward - mean for r in group])


def test_an_answer_that_does_not_stop_earns_nothing():
    unfinished = Completion(TOKENIZER.encode("eee"), [0.0] * 3, [True] * 3, "length", "eee")
    finished = Completion([*TOKENIZER.encode("eee"), END], [0.0] * 4, [True] * 4, "stop", "eee")
    assert reward(TOKENIZER, question(0), unfinished) == 0
    assert reward(TOKENIZER, question(0), finished) == 1


def test_another_distribution_is_refused(engine):
    with pytest.raises(AssertionError, match="biases"):
        roll_out(engine, [question(0)], 2, Sampling(top_k=5))


def test_steps_draw_anew_and_repeat_themselves(engine):
    one, again, other = (rollouts(engine, step)[0].completion.ids for step in (0, 0, 1))
    assert one == again != other


def test_learning_raises_the_reward(engine):
    """Forty steps: a model that says any of five letters learns to say the one that earns."""
    optimizer = build_optimizer(engine.model, matrix_lr=0.005, embedding_lr=0.02, head_lr=0.005, dtype=torch.float64)

    def stream():
        step = 0
        while True:
            found = rollouts(engine, step)
            yield from to_batches(found, 16, RUNTIME, {"reward": sum(r.reward for r in found) / len(found)})
            step += 1

    earned = [s.cursor["reward"] for s in train(engine.model, optimizer, stream(), lambda _: 1.0, steps=40)]
    assert sum(earned[-10:]) / 10 > sum(earned[:10]) / 10 + 0.3
    assert read_reply(TOKENIZER, rollouts(engine, 99)[0].completion.ids).role == "assistant"


def test_micro_batches_hold_each_answer_that_teaches_once_and_are_as_many_whatever_teaches(engine):
    found = rollouts(engine, samples=40)
    for kept in (len(found), 37, 1, 0):
        some = [replace(r, advantage=(r.advantage or 0.5) if n < kept else 0.0) for n, r in enumerate(found)]
        made = list(micro_batches(some, 32, RUNTIME, {"next": 1}))
        assert len(made) == 3
        assert all(len(batch.inputs) <= 32 and batch.cursor == {"next": 1} for batch in made)
        learned = [row for batch in made for row in batch.weights[(batch.weights != 0).any(dim=1)]]
        assert len(learned) == kept
        assert sum(float(row.sum()) for row in learned) == pytest.approx(
            sum(r.advantage * sum(r.completion.sampled) for r in some), abs=1e-4
        )


def test_leaving_out_what_teaches_nothing_leaves_the_gradient_as_it_is(engine):
    found = rollouts(engine)
    found = [replace(r, advantage=0.0) if n % 3 else r for n, r in enumerate(found)]
    directions = []
    for batches in (to_batches(found, 16, RUNTIME, {}), micro_batches(found, 16, RUNTIME, {})):
        engine.model.zero_grad()
        for batch in batches:
            weighted_nll(engine.model.features(batch.inputs), engine.model.head, batch).backward()
        directions.append(engine.model.head.weight.grad.clone())
    assert torch.allclose(*directions, atol=1e-12)
    assert directions[0].abs().max() > 0
