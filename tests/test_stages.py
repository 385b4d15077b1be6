"""The stages on a few made-up documents: what is finished is skipped, what is killed ends with the same bits."""

import json
import signal
from dataclasses import replace

import pytest
import torch

from nanochat import rollout
from nanochat.checkpoint import newest
from nanochat.errors import CheckpointError, DataError, SchemaError, TokenizerError, UsageError
from nanochat.stages import evaluate as evaluate_stage
from nanochat.stages import finetune as finetune_stage
from nanochat.stages import reinforce as reinforce_stage
from nanochat.stages.evaluate import EvaluateConfig, evaluate
from nanochat.stages.finetune import FinetuneConfig, finetune
from nanochat.stages.pretrain import PretrainConfig, pretrain
from nanochat.stages.records import read_stage
from nanochat.stages.reinforce import ReinforceConfig, reinforce
from nanochat.stages.stage import Interrupted, Stage
from nanochat.stages.tokenizer import TokenizerConfig, prepare
from nanochat.tasks import catalogue, mixture
from nanochat.tokenizer import Tokenizer
from tests.oracles.kitchen import KITCHEN

FAST = {"dtype": "float32", "deterministic": True, "run": "toy", "seed": 3}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """A home of this test's own, with a corpus of forty short documents, and a kitchen of a dozen recipes."""
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path / "home"))
    for module in (finetune_stage, reinforce_stage, evaluate_stage):
        monkeypatch.setattr(module, "recipes", lambda root: KITCHEN)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(40):
        words = f"Dish {number}. Take {number} cups of flour and {number + 1} eggs, mix them well, and bake the dough. "
        (texts / f"dish {number}.txt").write_text(words * (1 + number % 7))
    yield tmp_path
    torch.use_deterministic_algorithms(False)


def tokenizer_config(root, **more):
    return TokenizerConfig(**{**FAST, "sources": (str(root / "texts"),), "vocab_size": 300, **more})


PRETRAIN = PretrainConfig(
    **FAST,
    depth=1,
    context=192,
    tokens_per_step=384,
    steps=6,
    eval_every=3,
    eval_documents=3,
    lapse_every=2,
    save_every=2,
)
FINETUNE = FinetuneConfig(**FAST, steps=6, rows=2, accumulate=2, lapse_every=2, save_every=2)
RL = ReinforceConfig(**FAST, steps=4, prompts=2, samples=3, rows=4, max_tokens=6, lapse_every=0, save_every=1)
STAGES = {
    "pretrain": lambda: pretrain(PRETRAIN),
    "midtrain": lambda: finetune("midtrain", FINETUNE),
    "sft": lambda: finetune("sft", FINETUNE),
    "rl": lambda: reinforce(RL),
}


@pytest.fixture
def easy(monkeypatch):
    """Rewards that a model of six steps earns: without any, no weight would move."""
    monkeypatch.setattr(rollout, "reward", lambda tokenizer, question, completion: completion.ids[0] % 7 / 7)


def run_up_to(root, last: str) -> None:
    prepare(tokenizer_config(root))
    for name, work in STAGES.items():
        if name == last:
            return
        work()


def records(root, stage):
    """This stage's metrics, without what depends on the clock."""
    rows = [json.loads(line) for line in (root / "home/toy/metrics.jsonl").read_text().splitlines()]
    clock = {"time", "tokens_per_second", "mfu"}
    return [{k: v for k, v in row.items() if k not in clock} for row in rows if row["stage"] == stage]


def tensors(root, stage):
    found = newest(root / "home/toy" / stage)
    return {"step": torch.tensor(found.step)} | found.weights()


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_with_the_same_bits(root, stage, monkeypatch, easy):
    run_up_to(root, stage)
    STAGES[stage]()
    whole, history = tensors(root, stage), records(root, stage)
    assert not any("skipped" in row for row in history)
    lapses = (root / "home/toy" / stage / "timelapse.jsonl").read_text() if stage != "rl" else ""
    # Once more from nothing, killed in the fourth step, after its metrics and before its checkpoint.
    (root / "home/toy" / stage / "stage.json").unlink()
    for folder in (root / "home/toy" / stage).glob("step_*"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    write = Stage.write_metrics

    def die(self, step, *more):
        write(self, step, *more)
        if step.index == 3:
            raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "write_metrics", die)
        with pytest.raises(SystemExit, match="killed"):
            STAGES[stage]()
    assert newest(root / "home/toy" / stage).step in (2, 3)
    assert not read_stage(root / "home/toy", stage)
    STAGES[stage]()
    again = tensors(root, stage)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert records(root, stage) == history
    if lapses:
        assert (root / "home/toy" / stage / "timelapse.jsonl").read_text() == lapses


def test_a_finished_stage_is_not_run_again_unless_its_inputs_changed(root, capsys):
    run_up_to(root, "pretrain")
    pretrain(PRETRAIN)
    first = (root / "home/toy/pretrain/stage.json").stat().st_mtime_ns
    pretrain(replace(PRETRAIN, save_every=0))
    assert (root / "home/toy/pretrain/stage.json").stat().st_mtime_ns == first
    assert "nothing has changed" in capsys.readouterr().err
    pretrain(replace(PRETRAIN, steps=4))
    assert newest(root / "home/toy/pretrain").step == 4
    assert newest(root / "home/toy/.pretrain.previous").step == 6
    # A document more: the tokenizer stage notices, and so does what is built on it.
    (root / "texts" / "new.txt").write_text("A new dish of flour and eggs, mixed and baked. " * 20)
    before = read_stage(root / "home/toy", "tokenizer")["fingerprint"]
    prepare(tokenizer_config(root))
    assert read_stage(root / "home/toy", "tokenizer")["fingerprint"] != before
    pretrain(replace(PRETRAIN, steps=4))
    assert (root / "home/toy/pretrain/stage.json").stat().st_mtime_ns > first


@pytest.mark.parametrize("mistake", [{"tokens_per_step": 385}, {"context": 100_000}])
def test_a_refused_command_destroys_nothing(root, mistake):
    run_up_to(root, "pretrain")
    pretrain(PRETRAIN)
    for _ in range(2):
        with pytest.raises(UsageError):
            pretrain(replace(PRETRAIN, **mistake))
    assert newest(root / "home/toy/pretrain").step == 6
    assert not (root / "home/toy/.pretrain.previous").exists()
    with pytest.raises(TokenizerError):
        prepare(tokenizer_config(root, vocab_size=100))
    assert read_stage(root / "home/toy", "tokenizer")["finished"]


def test_what_is_set_aside_keeps_its_metrics_and_is_not_displaced_by_nothing(root, monkeypatch):
    run_up_to(root, "pretrain")
    pretrain(PRETRAIN)
    history = records(root, "pretrain")

    def die(self, *more):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "write_metrics", die)
        for steps in (4, 5):
            with pytest.raises(SystemExit):
                pretrain(replace(PRETRAIN, steps=steps))
    kept = root / "home/toy/.pretrain.previous"
    assert newest(kept).step == 6
    assert len((kept / "metrics.jsonl").read_text().splitlines()) == len(history)


def test_a_stage_of_another_version_is_refused_in_one_line(root):
    run_up_to(root, "pretrain")
    record = root / "home/toy/tokenizer/stage.json"
    record.write_text(json.dumps({"stage": "tokenizer", "finished": True}))
    for work in (lambda: pretrain(PRETRAIN), lambda: prepare(tokenizer_config(root))):
        with pytest.raises(SchemaError, match="schema version 1; got version None"):
            work()


def test_a_corpus_of_one_file_trains_and_holds_nothing_out(root):
    for path in (root / "texts").iterdir():
        path.unlink()
    for name in ("corpus.txt", "emma.txt"):  # one of them a name that the draw would hold out
        alone = root / name
        alone.write_text("A long text of flour and eggs that is read again and again. " * 60)
        run = {"run": name.removesuffix(".txt")}
        prepare(tokenizer_config(root, sources=(str(alone),), **run))
        pretrain(replace(PRETRAIN, **run))
        assert evaluate(EvaluateConfig(run=run["run"], dtype="float32")) == []


def test_a_stage_whose_parent_is_missing_says_what_to_run(root):
    with pytest.raises(CheckpointError, match="python -m nanochat tokenizer"):
        pretrain(PRETRAIN)
    with pytest.raises(CheckpointError, match="python -m nanochat midtrain"):
        finetune("sft", FINETUNE)


def test_a_signal_saves_and_says_so(root, monkeypatch):
    run_up_to(root, "pretrain")
    write = Stage.write_metrics

    def interrupt(self, step, *more):
        write(self, step, *more)
        if step.index == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "write_metrics", interrupt)
        with pytest.raises(Interrupted, match="saved after step 3 of 6"):
            pretrain(PRETRAIN)
    assert newest(root / "home/toy/pretrain").step == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    pretrain(PRETRAIN)
    assert newest(root / "home/toy/pretrain").step == 6


def test_figures_are_measured_once_for_the_same_weights(root, monkeypatch):
    run_up_to(root, "sft")
    finetune("sft", FINETUNE)
    config = EvaluateConfig(run="toy", dtype="float32", questions=4, conversations=2)
    figures = evaluate(config)
    names = {figure.name for figure in figures}
    assert {
        "bpb_texts",
        "calculator_accuracy",
        "find_accuracy",
        "ingredient_f1",
        "stop_rate",
        "wellformed_rate",
    } <= names
    assert all(figure.stage == "sft" and figure.n > 0 for figure in figures)
    shown = json.loads((root / "home/toy/sft/conversations.json").read_text())
    assert len(shown) == 2
    assert shown[0]["messages"][-1]["role"] == "assistant"
    monkeypatch.setattr(evaluate_stage, "kitchen_figures", None)
    assert evaluate(config) == figures
    base = {figure.name: figure for figure in evaluate(replace(config, stage="pretrain"))}
    assert base["bpb_texts_xz"].value > 0
    assert base["bpb_texts_trigram"].value > base["bpb_texts"].value / 20


def test_an_empty_corpus_is_refused(root):
    for path in (root / "texts").iterdir():
        path.write_text("")
    with pytest.raises(DataError, match="expected"):
        prepare(tokenizer_config(root))


def test_a_text_that_is_not_utf8_is_named(root):
    (root / "texts" / "odd.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DataError, match=r"odd\.txt"):
        prepare(tokenizer_config(root))


def test_conversations_fill_rows_and_their_index_is_the_cursor(root):
    prepare(tokenizer_config(root))
    tokenizer = Tokenizer.load(root / "home/toy/tokenizer")
    bos, tasks = tokenizer.special("<|bos|>"), catalogue(KITCHEN)
    stream = finetune_stage.conversation_stream(tokenizer, tasks, mixture("sft"), 0, 97, 0)
    rows = [next(stream) for _ in range(12)]
    assert all(len(row.ids) == len(row.mask) == 97 and row.ids[0] == bos for row in rows)
    resumed = finetune_stage.conversation_stream(tokenizer, tasks, mixture("sft"), 0, 97, rows[5].following)
    assert all((next(resumed).ids == row.ids).all() for row in rows[6:])
    learned = sum(int(row.mask.sum()) for row in rows)
    assert 0 < learned < 12 * 97
