"""Presets: what `--preset NAME` fills in, stage by stage. A preset fixes steps, never minutes.

Sizes were chosen by measurement; LOG.md has the runs.
"""

from collections.abc import Sequence
from typing import Any

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
            "rows": 64,
            "max_tokens": 32,
            "lapse_every": 5,
        },
        "eval": {"questions": 24, "documents": 60, "conversations": 6},
    },
    # A quarter of an hour on two laptop cores: the kitchen assistant.
    "laptop": {
        "run": {"minutes": 15},
        "tokenizer": {"sources": ("cookbook", "wikipedia"), "vocab_size": 4096},
        "pretrain": {"depth": 4, "context": 512, "tokens_per_step": 4096, "steps": 700},
        "midtrain": {"steps": 500},
        "sft": {"steps": 400},
        "rl": {"steps": 60},
        "eval": {"questions": 200},
    },
}


def presets_of(stage: str, argv: Sequence[str] = ()) -> dict[str, Fields]:
    """What each preset fills in for one stage.

    Nothing, where `argv` turns the dial (`--depth N`) and names no preset: then the dial sets the rest.
    """
    names = {word.partition("=")[0] for word in argv}
    dialled = "--depth" in names and "--preset" not in names
    return {name: {} if dialled else stages.get(stage, {}) for name, stages in PRESETS.items()}
