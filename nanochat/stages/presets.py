"""Presets: what `--preset NAME` fills in, stage by stage. A preset fixes steps, never minutes.

Sizes were chosen by measurement; LOG.md has the runs.
"""

from collections.abc import Sequence
from typing import Any

import torch

from nanochat.runtime import pick_device, pick_dtype

Fields = dict[str, Any]

PRESETS: dict[str, dict[str, Fields]] = {
    # Everything, end to end, in about a minute: to see the parts work, not to be useful.
    "tiny": {
        "run": {"minutes": 1},
        "tokenizer": {"sources": ("cookbook",), "vocab_size": 1536},
        "pretrain": {
            "depth": 2,
            "context": 256,
            "tokens_per_step": 2048,
            "steps": 300,
            "lapse_every": 100,
            "eval_every": 100,
            "eval_documents": 40,
        },
        "midtrain": {"mixture": "tiny", "steps": 200, "rows": 8, "lapse_every": 100},
        "sft": {"mixture": "tiny", "steps": 200, "rows": 8, "lapse_every": 100},
        "rl": {
            "mixture": "tiny",
            "steps": 10,
            "prompts": 8,
            "samples": 8,
            "max_tokens": 32,
            "lapse_every": 5,
        },
        "eval": {"questions": 24, "documents": 60, "conversations": 6},
    },
    # A quarter of an hour on two laptop cores: the kitchen assistant.
    "laptop": {
        "run": {"minutes": 15},
        "tokenizer": {"sources": ("cookbook", "wikipedia"), "vocab_size": 3968},
        "pretrain": {
            "depth": 4,
            "context": 256,
            "smear": True,
            "value_embeddings": True,
            "sharpness": 1.5,
            "tokens_per_step": 2048,
            "rows": 8,
            "rate": 0.7,
            "steps": 1300,
            "eval_every": 325,
            "lapse_every": 150,
        },
        "midtrain": {"context": 512, "rows": 4, "rate": 0.5, "steps": 500, "warmdown": 0.0},
        "sft": {"rows": 4, "rate": 0.35, "steps": 940, "warmdown": 0.7, "lapse_every": 100},
        "rl": {"steps": 25, "prompts": 64, "samples": 8, "rehearse": 16},
        "eval": {"questions": 50},
    },
}

# Where bfloat16 is slow, products take twice the time or more: fewer steps, so that the run ends in about the same.
FLOAT32: dict[str, dict[str, Fields]] = {
    "laptop": {
        "pretrain": {"steps": 500},
        "midtrain": {"steps": 200},
        "sft": {"steps": 400},
        "rl": {"steps": 15},
    },
}


def presets_of(stage: str, argv: Sequence[str] = ()) -> dict[str, Fields]:
    """What each preset fills in for one stage.

    Nothing, where `argv` turns the dial (`--depth N`) and names no preset: then the dial sets the rest.
    """
    names = {word.partition("=")[0] for word in argv}
    dialled = "--depth" in names and "--preset" not in names
    slow = is_slow(given(argv, "--device"), given(argv, "--dtype"))
    return {name: {} if dialled else fields_of(name, stage, slow) for name in PRESETS}


def fields_of(preset: str, stage: str, slow: bool) -> Fields:
    """What a preset fills in for a stage; its smaller plan on a `slow` processor."""
    return PRESETS[preset].get(stage, {}) | (FLOAT32.get(preset, {}).get(stage, {}) if slow else {})


def is_slow(device: str, dtype: str) -> bool:
    """Whether products would be float32 on a CPU, asked for or for want of bfloat16."""
    where = pick_device(device)
    return where.type == "cpu" and pick_dtype(dtype, where) == torch.float32


def given(argv: Sequence[str], flag: str) -> str:
    """The value of a flag among unread arguments; "auto" without it. A wrong one is for the parser to refuse."""
    for place, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag and place + 1 < len(argv):
            return argv[place + 1]
    return "auto"
