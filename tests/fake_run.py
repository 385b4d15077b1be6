"""A run folder as the stages leave it, written by their own functions, with numbers and texts made up."""

import math
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nanochat.config import dumps, to_json
from nanochat.evaluate.figures import Figure, mean, proportion, ratio, save_figures
from nanochat.files import write_atomically
from nanochat.plan import plan
from nanochat.runtime import Runtime
from nanochat.stages.stage import Stage
from nanochat.tokenizer import Call, Message, Output, Text, conversation_to_json, message
from nanochat.train import Alone, Step

NASTY = "<script>alert('1')</script> | `code` ``` </svg> & *bold* [x](http://y)\n```\n| a | b |\n\x00\u202e# heading"
RECIPE = """Plain Pancakes

Serves 4. Takes 20 minutes. Difficulty 1 of 5.

Ingredients:
- 1 cup flour
- 1 cup milk
- 2 eggs

Steps:
1. Mix everything.
2. Fry spoonfuls in butter until golden."""


@dataclass(frozen=True)
class Config:
    """As much of a stage's configuration as is recorded."""

    steps: int = 0
    seed: int = 7


def fake_run(folder: Path, stages: tuple[str, ...] = ("tokenizer", "pretrain", "midtrain", "sft", "rl")) -> Path:
    """Write a run with these stages, all finished."""
    makers = {"tokenizer": tokenizer, "pretrain": pretrain, "midtrain": chat_stage, "sft": chat_stage, "rl": rl}
    for name in stages:
        makers[name](open_stage(folder, name))
    return folder


def open_stage(run: Path, name: str) -> Stage:
    """A stage that has been at work for some minutes."""
    runtime = Runtime(torch.device("cpu"), torch.bfloat16, threads=2)
    minutes = {"tokenizer": 0.42, "pretrain": 6.1, "midtrain": 4.3, "sft": 2.6, "rl": 1.4}[name]
    steps = {"tokenizer": 0, "pretrain": 700, "midtrain": 500, "sft": 400, "rl": 60}[name]
    console = Console(quiet=True)
    stage = Stage(name, Config(steps), run, runtime, Alone(), console, f"fingerprint of {name}", 344e9, 60 * minutes)
    stage.claim()
    return stage


def tokenizer(stage: Stage) -> None:
    sizes = {"cookbook.train": (2795, 2_551_210, 741_300), "cookbook.held": (147, 134_480, 39_020),
             "wikipedia.train": (9530, 4_660_100, 1_322_000), "wikipedia.held": (503, 246_000, 69_900)}  # fmt: skip
    stage.finish(
        tokenizer="0" * 64,
        sources=["cookbook", "wikipedia"],
        attribution="Wikibooks Cookbook, its contributors, CC BY-SA 4.0.\n\nWikipedia, its contributors, CC BY-SA 4.0.",
        corpus={name: dict(zip(("documents", "bytes", "tokens"), row, strict=True)) for name, row in sizes.items()},
    )


def pretrain(stage: Stage) -> None:
    chosen = plan(4, steps=stage.config.steps, tokens_per_step=4096)
    write_steps(stage, 4096, lambda t: 3.05 + 5.3 * math.exp(-t / 0.045) + 0.9 * math.exp(-t / 0.4), 8100.0)
    for step in range(99, stage.config.steps, 100):
        stage.measure(step, val_bpb=1.42 + 1.05 * math.exp(-step / 180))
    texts = [
        "the the of, and and,",
        "Chocolate and the a of sugar, is the",
        "Chocolate cake, 1 cup of sugar, 2 cup flour.",
        "Chocolate Cake\n\nIngredients:\n- 1 cup of sugar\n- 2 cups of flour\n- 1 cup of the cake",
        "Chocolate Cake\n\nServes 8.\n\nIngredients:\n- 2 cups flour\n- 1 cup cocoa\n- 3 eggs",
    ]
    for place in range(1, 15):
        text = texts[min(4, place // 2)] if place != 6 else NASTY
        stage.lapse(50 * place, "Chocolate Cake\n", partial(str, text))
    draws = random.Random(0)
    sizes = [draws.randint(300, 3000) for _ in range(200)]

    rates = {"bpb": 1.47, "bpb_recipes": 1.34, "bpb_wiki": 1.61, "bpb_trigram": 1.62, "bpb_recipes_trigram": 1.5}
    figures = [
        ratio(stage.name, name, [size * draws.gauss(rate, 0.15) for size in sizes], sizes, "bits/byte")
        for name, rate in rates.items()
    ]
    for name, rate in (("bpb_xz", 1.962), ("bpb_recipes_xz", 1.81)):
        figures.append(Figure(stage.name, name, rate, rate, rate, 200, "bits/byte"))
    save_figures(stage.folder / "figures.json", [*figures, *skills(stage.name)])
    stage.finish(plan={**to_json(chosen), "tokens": chosen.tokens, "seconds": 5.6 * 60})


def chat_stage(stage: Stage) -> None:
    turn = 0.35 if stage.name == "midtrain" else 0.0
    write_steps(
        stage, 4096, lambda t: 0.25 + 2.9 / (1 + math.exp((t - turn) / 0.06)) + 0.3 * math.exp(-t / 0.3), 7400.0
    )
    question = "How do I make pancakes?"
    for place, text in enumerate(["Pancakes is a the", "[find pancakes = (a recipe)] Plain Pancakes", NASTY], start=1):
        stage.lapse(130 * place, question, partial(str, text))
    save_figures(stage.folder / "figures.json", skills(stage.name))
    write_samples(stage)
    stage.finish(plan={"steps": stage.config.steps, "tokens": stage.config.steps * 4096, "seconds": 60 * 4})


def rl(stage: Stage) -> None:
    write_steps(stage, 9000, lambda t: 0.02 * math.cos(20 * t), 5200.0)
    draws = random.Random(1)
    for step in range(stage.config.steps):
        stage.measure(step, reward=0.62 + 0.25 * step / 60 + draws.gauss(0, 0.04), answer_tokens=24.0, stopped=0.98)
    answer = "[calculator 2/4*10 = 5] You need 5 cups of flour."
    stage.lapse(60, "2 cups of flour serve 4. How much for 10 people?", partial(str, answer))
    save_figures(stage.folder / "figures.json", skills(stage.name))
    write_samples(stage)
    stage.finish(plan={"steps": stage.config.steps, "answers": 60 * 128})


def write_steps(stage: Stage, tokens: int, loss: Any, speed: float) -> None:
    """The lines of metrics.jsonl; `loss` is a function of the share of the stage that is done."""
    draws, steps = random.Random(stage.name), stage.config.steps
    for index in range(steps):
        value, seconds = loss(index / steps) + draws.gauss(0, 0.06), tokens / speed / draws.uniform(0.9, 1.1)
        stage.write_metrics(
            Step(index, value, tokens, tokens, 0.4, 1.0, seconds, {}), tokens / seconds, 0.46 * draws.uniform(0.9, 1)
        )


def skills(stage: str) -> list[Figure]:
    """Figures that rise from stage to stage."""
    rise = ["pretrain", "midtrain", "sft", "rl"].index(stage)
    draws = random.Random(rise)
    lists = [min(1.0, max(0.0, draws.gauss((0.0, 0.66, 0.9, 0.91)[rise], 0.15))) for _ in range(200)]
    return [
        proportion(stage, "calculator_accuracy", (0, 141, 163, 188)[rise], 200),
        proportion(stage, "calculator_accuracy_new_wording", (0, 98, 131, 159)[rise], 200),
        proportion(stage, "find_accuracy", (0, 150, 188, 187)[rise], 200),
        proportion(stage, "recipe_accuracy", (0, 96, 151, 154)[rise], 200),
        mean(stage, "ingredient_f1", lists, "share", bounds=(0, 1)),
        proportion(stage, "choice_accuracy", (51, 122, 120, 119)[rise], 200),
        proportion(stage, "stop_rate", (0, 197, 200, 200)[rise], 200),
        proportion(stage, "wellformed_rate", (0, 195, 199, 200)[rise], 200),
    ]


def write_samples(stage: Stage) -> None:
    """conversations.json, as the evaluation stage writes it."""
    scaled = message("assistant", [Call("calculator", "2/4*10"), Output("5"), Text("You need 5 cups of flour.")])
    found = message(
        "assistant", [Call("find", "pancakes"), Output(RECIPE), Text("- 1 cup flour\n- 1 cup milk\n- 2 eggs")]
    )
    nasty = message("assistant", [Call("find", NASTY), Output(NASTY), Text(NASTY)])
    thanks = [message("user", "thanks!"), message("assistant", "You are welcome. Enjoy your pancakes!")]
    talks: list[tuple[list[Message], str]] = [
        ([message("user", "2 cups of flour serve 4. How much for 10 people?"), scaled], "scaling, test.1; right"),
        ([message("user", "What do I need for pancakes?"), found, *thanks], "recipes, ingredients.test.0; right"),
        ([message("user", NASTY), nasty], f"note {NASTY}"),
        ([message("user", "Who are you?"), message("assistant", [Call("calculator", "1/0")])], "0.00 of 1: empty"),
    ]
    records = [{"messages": conversation_to_json(messages), "note": note} for messages, note in talks]
    write_atomically(stage.folder / "conversations.json", dumps(records))
