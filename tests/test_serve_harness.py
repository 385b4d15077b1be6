"""EleutherAI's harness, asking the server by `local-completions`, comes to the scores of our own evaluators."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nanochat.checkpoint import find_run
from nanochat.evaluate.bits import bits_per_byte
from nanochat.evaluate.graded import LETTERS, choice_accuracy, first_examples
from nanochat.runtime import detect
from nanochat.serve.conversation import load_speaker
from nanochat.tasks.choice import Choice
from nanochat.tokenizer import Tokenizer, prompt
from tests.serving import models_of, serving

N = 48
TEXTS = (
    "Pancakes\n\nServes 4.\n\nIngredients:\n- 2 cups flour\n- 3 eggs\n- 1 cup milk\n\nSteps:\n1. Mix all.\n2. Fry it.",
    "The crème brûlée of 1691 had no vanilla.",
    "Basel is a city in north-western Switzerland on the river Rhine. " * 6,
    "x",
)
RECIPE = {
    "choice": {
        "output_type": "multiple_choice", "doc_to_text": "{{asked}}", "doc_to_target": "{{right}}",
        "doc_to_choice": "{{options}}", "target_delimiter": "", "metric_list": [{"metric": "acc"}],
    },
    "bits": {
        "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}  # fmt: skip


def export(tokenizer: Tokenizer, folder: Path) -> None:
    """The tokenizer as `transformers` loads it."""
    tokenizer.save(folder)
    specials = sorted(tokenizer.specials)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|assistant_end|>",
             "additional_special_tokens": specials, "clean_up_tokenization_spaces": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def task(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A task of the harness, with its data."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = {"task": f"nanochat_{name}", "dataset_path": "json", "test_split": "test",
             "dataset_kwargs": {"data_files": {"test": str(data)}}, **RECIPE[name]}  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps(about))  # JSON is YAML


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_harness_and_we_agree(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="comes with the extra `harness`")
    speaker = load_speaker(find_run("reference"), detect("cpu", "float32"), ())
    engine, tokenizer = speaker.engine, speaker.engine.tokenizer
    choice = Choice()
    rows = []
    for example in first_examples(choice, "test", N, 0):
        options = example.truth["options"]
        assert isinstance(options, Sequence)
        letters = list(LETTERS[: len(options)])
        asked = tokenizer.decode(prompt(tokenizer, example.question))
        rows.append({"asked": asked, "options": letters, "right": letters.index(str(example.truth["letter"]))})
    export(tokenizer, tmp_path / "tokenizer")
    task(tmp_path, "choice", rows)
    task(tmp_path, "bits", [{"text": text} for text in TEXTS])
    with serving(models_of(reference=speaker)) as url:
        arguments = {
            "model": "reference", "base_url": f"{url}/v1/completions", "tokenizer": tmp_path / "tokenizer",
            "tokenizer_backend": "huggingface", "max_length": 513, "num_concurrent": 4,
            "custom_prefix_token_id": tokenizer.special("<|bos|>"),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "lm_eval", "run", "--model", "local-completions",
            "--tasks", "nanochat_choice,nanochat_bits",
            "--model_args", ",".join(f"{name}={value}" for name, value in arguments.items()),
            "--include_path", str(tmp_path), "--output_path", str(tmp_path / "out.json"), "--batch_size", "4",
        ]  # fmt: skip
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
        ended = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-3000:]
    (written,) = tmp_path.glob("out*.json")
    scores = json.loads(written.read_text())["results"]
    ours = choice_accuracy(engine, choice, "test", N)
    assert scores["nanochat_choice"]["acc,none"] == ours.value
    bits = bits_per_byte(engine.model, tokenizer, TEXTS, engine.runtime)  # type: ignore[arg-type]
    assert scores["nanochat_bits"]["bits_per_byte,none"] == pytest.approx(bits.value, abs=1e-4)
