"""What reinforcement needs: one toy policy learned with its stop token and without, with a baseline and without.

    python educational/experiments/policy_gradient.py

A tiny model has learned by imitation to answer with one to six letters from a to e and then to stop, except that three
answers in ten run on and never do. Now it is rewarded for the share of e's in its answer, and gets nothing for an
answer that does not stop. Four ways to make the batch: as the package does; with the end of turn not among the targets;
with the reward in place of the advantage; the same with ten more for everybody. Three seeds each; writes
runs/book/policy_gradient.json.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from nanochat.engine import Completion, Engine, Sampling
from nanochat.gpt import GPT, GPTConfig
from nanochat.keyed import rng
from nanochat.loss import IGNORE
from nanochat.optim import build_optimizer
from nanochat.rollout import Question, Rollout, roll_out, sampling_seed, to_batches
from nanochat.runtime import commit, detect, machine, versions
from nanochat.tasks.task import Example, Grade, dialogue
from nanochat.tokenizer import train_tokenizer
from nanochat.train import Batch, train

STEPS, QUESTIONS, SAMPLES, LONGEST, SEEDS = 40, 4, 8, 16, (0, 1, 2)
TOKENIZER = train_tokenizer(["how many cups of flour, how many eggs, say yes or no "] * 20, 256 + 11 + 20)
END = TOKENIZER.special("<|assistant_end|>")


class Letters:
    """Rewards an answer for the share of e's in it."""

    name = "letters"

    def example(self, split: str, index: int, seed: int = 0) -> Example:
        asked = ("how many eggs?", "say yes or no", "how many cups?", "how many cups of flour?")[index % QUESTIONS]
        return Example(dialogue(asked, "e"), {}, "only")

    def grade(self, example: Example, reply) -> Grade:
        return Grade(reply.text.count("e") / max(1, len(reply.text)), "")


QUESTIONS_ASKED = [Question(Letters(), Letters().example("train", n)) for n in range(QUESTIONS)]


def imitation(seed: int, runtime) -> Iterator[Batch]:
    """Batches that teach to answer with one to six letters from a to e, and then, seven times in ten, to stop."""
    step = 0
    while True:
        letters, found = rng(seed, "letters", step), []
        for question in QUESTIONS_ASKED * 4:
            runs_on = letters.random() < 0.3
            ids = TOKENIZER.encode("".join(letters.choices("abcde", k=LONGEST if runs_on else letters.randint(1, 6))))
            ids += [] if runs_on else [END]
            done = Completion(ids, [0.0] * len(ids), [True] * len(ids), "stop", "")
            found.append(Rollout(question, question.prompt(TOKENIZER), done, 1.0, 1.0))
        yield from to_batches(found, len(found), runtime, {})
        step += 1


def as_it_is(batch: Batch, rollouts: list[Rollout]) -> Batch:
    return batch


def without_the_stop(batch: Batch, rollouts: list[Rollout]) -> Batch:
    """The end of turn is no target, as where a rollout is stored without it."""
    return replace(batch, targets=torch.where(batch.targets == END, IGNORE, batch.targets))


def without_a_baseline(batch: Batch, rollouts: list[Rollout], more: float = 0.0) -> Batch:
    """Every token weighs the reward itself."""
    rewards = torch.tensor([r.reward + more for r in rollouts])[:, None]
    return replace(batch, weights=rewards * (batch.targets != IGNORE))


KINDS: dict[str, Callable[[Batch, list[Rollout]], Batch]] = {
    "as it is": as_it_is,
    "stop token dropped": without_the_stop,
    "no baseline": without_a_baseline,
    "no baseline, + 10": partial(without_a_baseline, more=10.0),
}


def curve(kind: Callable[[Batch, list[Rollout]], Batch], seed: int, runtime) -> list[dict[str, float]]:
    """Reward, share of answers that stop and tokens an answer, step by step."""
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 2, 2, 1, 32, 64))
    model.init_weights(seed)
    optimizer = build_optimizer(model, matrix_lr=0.02, embedding_lr=0.1, head_lr=0.02)
    list(train(model, optimizer, imitation(seed, runtime), lambda _: 1.0, steps=40))
    engine = Engine(model, TOKENIZER, runtime)
    optimizer = build_optimizer(model, matrix_lr=0.004, embedding_lr=0.02, head_lr=0.004)

    def answers() -> Iterator[Batch]:
        step = 0
        while True:
            sampling = Sampling(max_tokens=LONGEST, seed=sampling_seed(seed, step))
            found = roll_out(engine, QUESTIONS_ASKED, SAMPLES, sampling)
            n = len(found)
            about = {
                "reward": sum(r.reward for r in found) / n,
                "stopped": sum(r.completion.finish == "stop" for r in found) / n,
                "tokens": sum(len(r.completion.ids) for r in found) / n,
            }
            for batch in to_batches(found, n, runtime, about):
                yield kind(batch, found)
            step += 1

    return [dict(step.cursor) for step in train(model, optimizer, answers(), lambda _: 1.0, steps=STEPS)]


def main() -> None:
    """Learn twelve times, print as they come, write the record."""
    runtime = detect("cpu", "float32", threads=1)
    began, figures, curves = time.process_time(), [], []
    for name, kind in KINDS.items():
        ends: dict[str, list[float]] = {"reward": [], "stopped": [], "tokens": []}
        for seed in SEEDS:
            steps = curve(kind, seed, runtime)
            last = {key: sum(step[key] for step in steps[-10:]) / 10 for key in ends}
            print(f"{name:20} seed {seed}: reward {steps[0]['reward']:.2f} -> {last['reward']:.2f}, "
                  f"stop {last['stopped']:.2f}, {last['tokens']:.1f} tokens", flush=True)  # fmt: skip
            for key in ends:
                ends[key].append(last[key])
            kept = {key: [round(step[key], 4) for step in steps] for key in ends}
            curves.append({"name": name, "seed": seed, **kept})
        for key, values in ends.items():
            value = sum(values) / len(values)
            about = {"value": value, "low": min(values), "high": max(values), "n": len(values)}
            figures.append({"name": name, "what": key, **about})
    seconds = time.process_time() - began
    print(f"{seconds:.0f} s of processor time")
    record = {
        "command": "python educational/experiments/policy_gradient.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": SEEDS,
        "seconds": round(seconds),
        "figures": figures,
        "curves": curves,
    }
    target = Path(__file__).parents[2] / "runs" / "book" / "policy_gradient.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
