"""Reinforcement: prompts -> samples -> rewards -> a batch for the same loop that everything else goes through.

On policy: each batch is drawn from the model as it stands, used for one step, and thrown away; then the importance
ratio is 1, and there is nothing to clip and no old policy to stay near. What is left of PPO (arXiv:1707.06347) and GRPO
(arXiv:2402.03300) is REINFORCE (Williams 1992) with the mean reward of the group as its baseline. Every sampled token
of an answer is weighted by the answer's advantage, its end of turn included, or a model would never learn to stop;
divided by all tokens of the step, not answer by answer (arXiv:2503.14476, section 3.3), or long wrong answers would
be punished less per token than short ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from nanochat.attention import rounded
from nanochat.engine import Completion, Engine, Sampling
from nanochat.keyed import key
from nanochat.loss import IGNORE
from nanochat.runtime import Runtime
from nanochat.tasks import Example, Task
from nanochat.tokenizer import Tokenizer, prompt, read_reply, well_formed
from nanochat.train import Batch

AT_ONCE = 512  # answers that are drawn side by side: a token for each of 512 takes little longer than for each of 64


@dataclass(frozen=True)
class Question:
    """Something to answer, and who grades the answer."""

    task: Task
    example: Example

    def prompt(self, tokenizer: Tokenizer) -> list[int]:
        """The conversation without its last, reference answer, as ids to continue."""
        return prompt(tokenizer, self.example.question)


@dataclass(frozen=True)
class Rollout:
    """One sampled answer to one question, and what it earned."""

    question: Question
    prompt: list[int]
    completion: Completion
    reward: float
    advantage: float


def roll_out(
    engine: Engine, questions: Sequence[Question], samples: int, sampling: Sampling, rows: Sequence[int] | None = None
) -> list[Rollout]:
    """`samples` answers to each question, graded; the advantage is the reward minus the mean of the question's own.

    Draws come from the model's whole distribution at temperature 1, the one that the loss takes the gradient of;
    `rows` names them, where the questions are a part of a larger step.
    """
    assert sampling.is_plain, "sampling from another distribution than the loss sees biases the gradient"
    prompts = [question.prompt(engine.tokenizer) for question in questions for _ in range(samples)]
    completions = engine.generate(prompts, sampling, rows, AT_ONCE)
    rollouts = []
    for at, question in enumerate(questions):
        group = completions[at * samples : (at + 1) * samples]
        rewards = [reward(engine.tokenizer, question, completion) for completion in group]
        mean = sum(rewards) / samples
        for number, (completion, earned) in enumerate(zip(group, rewards, strict=True)):
            rollouts.append(Rollout(question, prompts[at * samples + number], completion, earned, earned - mean))
    return rollouts


def reward(tokenizer: Tokenizer, question: Question, completion: Completion) -> float:
    """What the task's grader gives; nothing for an answer that is malformed or did not stop."""
    if not well_formed(tokenizer, completion.ids):
        return 0.0
    return question.task.grade(question.example, read_reply(tokenizer, completion.ids)).reward


def to_batches(rollouts: Sequence[Rollout], rows: int, runtime: Runtime, cursor: dict[str, object]) -> Iterator[Batch]:
    """The rollouts as micro-batches of `rows`, padded to the longest; weights are advantages.

    Only tokens that the model drew are targets: prompts and what tools put in are context.
    """
    for at in range(0, len(rollouts), rows):
        part = rollouts[at : at + rows]
        longest = rounded(max(len(r.prompt) + len(r.completion.ids) for r in part) - 1)
        inputs = torch.zeros(len(part), longest, dtype=torch.long)
        targets = torch.full((len(part), longest), IGNORE, dtype=torch.long)
        weights = torch.zeros(len(part), longest)
        for row, r in enumerate(part):
            ids = torch.tensor([*r.prompt, *r.completion.ids])
            inputs[row, : len(ids) - 1] = ids[:-1]
            # The target at position t is token t + 1: the first answer token is predicted by the prompt's last.
            first = len(r.prompt) - 1
            drawn = torch.tensor(r.completion.sampled, dtype=torch.bool)
            answer = torch.where(drawn, torch.tensor(r.completion.ids), IGNORE)
            targets[row, first : first + len(answer)] = answer
            weights[row, first : first + len(answer)] = r.advantage * drawn
        where = runtime.device
        yield Batch(inputs.to(where), targets.to(where), weights.to(where), cursor)


def sampling_seed(seed: int, step: int) -> int:
    """The seed of a step's draws."""
    return key(seed, "rl", "sampling", step)
