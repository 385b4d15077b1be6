"""`nanochat bench train`: that it measures what it says. How fast things are is for its records, not for tests."""

import json
from dataclasses import replace

import pytest

from nanochat.bench import main, train
from nanochat.errors import UsageError
from nanochat.gpt import GPTConfig
from nanochat.plan import plan
from nanochat.stages.presets import PRESETS


def test_shape_b_is_the_laptop_presets():
    fields = PRESETS["laptop"]["pretrain"]
    named = ("context", "smear", "value_embeddings", "sharpness", "tokens_per_step", "rows")
    vocabulary = PRESETS["laptop"]["tokenizer"]["vocab_size"]
    chosen = plan(
        fields["depth"], vocab_size=vocabulary, kv_heads=1, **{name: fields[name] for name in named if name in fields}
    )
    shape = train.SHAPES["b"]
    assert (shape.model, shape.rows, shape.accumulate) == (chosen.model, chosen.rows, chosen.accumulate)


def test_a_record_has_both_sides_and_the_peak(monkeypatch, capsys, tmp_path):
    small = train.Shape(GPTConfig(64, 2, 2, 2, 32, 32, sharpness=1.5), rows=2, accumulate=2)
    monkeypatch.setitem(train.SHAPES, "b", small)
    monkeypatch.setattr(train, "Theirs", train.Ours)  # compiling transformers' model takes half a minute
    monkeypatch.setattr(train.Ours, "__init__", lenient(train.Ours.__init__))
    saved = tmp_path / "b.json"
    assert main(["train", "--shape", "b", "--rounds", "2", "--json", "--save", str(saved)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(saved.read_text())
    sides = {row["side"]: row for row in printed["measurements"]}
    assert len(sides) == 5 and all(len(row["seconds"]) == len(row["shares"]) == 2 for row in sides.values())
    assert 0 < printed["share_of_peak"] == sides["nanochat"]["share_of_peak"] < 1
    assert 0 < printed["muon_share"] < 1 and printed["peak_memory_gb"] > 0 and printed["ratio_vs_transformers"] > 0


def lenient(init):
    return lambda self, shape, runtime, plain=False, compiled=False: init(self, shape, runtime, plain)


def test_their_model_is_of_our_shape():
    pytest.importorskip("transformers")
    shape = train.Shape(GPTConfig(64, 2, 2, 1, 32, 32), rows=2, accumulate=1)
    runtime = train.detect("cpu", "float32")
    theirs, ours = train.Theirs(shape, runtime, compiled=False), train.GPT(shape.model)
    assert sum(p.numel() for p in theirs.model.parameters()) == sum(p.numel() for p in ours.parameters())
    assert theirs.step() > 0
    assert replace(shape, rows=4).tokens == 128


def test_an_unknown_shape_is_refused():
    with pytest.raises(UsageError, match="use --shape with one of: a, b"):
        main(["train", "--shape", "c"])
