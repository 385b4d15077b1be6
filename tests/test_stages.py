"""The stages on a few made-up documents: what is finished is skipped, what is killed ends with the same bits."""

import itertools
import json
import os
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from nanochat import rollout
from nanochat.checkpoint import find_run, load_model, newest
from nanochat.data import open_store
from nanochat.errors import CheckpointError, DataError, SchemaError, TokenizerError, TrainingError, UsageError
from nanochat.loss import IGNORE
from nanochat.runtime import Runtime, detect
from nanochat.stages import evaluate as evaluate_stage
from nanochat.stages import finetune as finetune_stage
from nanochat.stages import pretrain as pretrain_stage
from nanochat.stages import reinforce as reinforce_stage
from nanochat.stages import stage as stage_module
from nanochat.stages import tokenizer as tokenizer_stage
from nanochat.stages.evaluate import EvaluateConfig, evaluate
from nanochat.stages.finetune import FinetuneConfig, finetune
from nanochat.stages.pretrain import PretrainConfig, pretrain
from nanochat.stages.records import read_jsonl, read_stage
from nanochat.stages.reinforce import ReinforceConfig, reinforce
from nanochat.stages.ship import ship
from nanochat.stages.stage import Stage
from nanochat.stages.stopping import Interrupted
from nanochat.stages.tokenizer import TokenizerConfig, prepare
from nanochat.tasks import catalogue, example_for, mixture
from nanochat.tokenizer import Tokenizer, render
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
    smear=True,
    value_embeddings=True,
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


def test_a_signal_before_the_first_step_makes_none(root, monkeypatch):
    """What a stage reads first takes seconds, too: in them it is asked to stop as well."""
    run_up_to(root, "pretrain")
    for said in ("stopped before its first step", "saved after step 2 of 6"):
        with monkeypatch.context() as patch:
            patch.setattr(pretrain_stage, "announce", lambda *more: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(Interrupted, match=said):
                pretrain(PRETRAIN)
        if said.startswith("stopped"):
            with pytest.raises(Interrupted):
                pretrain(replace(PRETRAIN, stop_after=2))
    assert [row["step"] for row in records(root, "pretrain") if "loss" in row] == [0, 1]


def test_lines_about_steps_are_on_the_disk_before_their_checkpoint(root, monkeypatch):
    """Else a power cut could keep the checkpoint and lose the lines, which nothing would write again."""
    run_up_to(root, "pretrain")
    flushed, checked, fsync, save = {}, [], os.fsync, stage_module.save

    def note(handle):
        fsync(handle)
        flushed[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    def check(folder, *more):
        logs = [(root / "home/toy" / name).stat() for name in ("metrics.jsonl", "pretrain/timelapse.jsonl")]
        checked.append([flushed.get(log.st_ino) == log.st_size for log in logs])
        return save(folder, *more)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(stage_module, "save", check)
    pretrain(PRETRAIN)
    assert checked == [[True, True]] * 3


def test_a_step_may_be_broken_off_where_it_has_changed_nothing(root, easy, monkeypatch):
    """Answers to a step's questions take longest: a signal does not wait for them, and the step is made again."""
    run_up_to(root, "none")
    whole, history = tensors(root, "rl"), records(root, "rl")
    (root / "home/toy/rl").rename(root / "whole")
    calls, answer = [], reinforce_stage.roll_out

    def interrupt(*more):
        calls.append(more)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return answer(*more)

    with monkeypatch.context() as patch:
        patch.setattr(reinforce_stage, "roll_out", interrupt)
        with pytest.raises(Interrupted, match="saved after step 2 of 4"):
            reinforce(replace(RL, save_every=0))
    assert newest(root / "home/toy/rl").step == 2
    reinforce(replace(RL, save_every=0))
    assert len(calls) == 3
    assert records(root, "rl") == history
    again = tensors(root, "rl")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_session_may_be_given_a_number_of_steps(root):
    run_up_to(root, "pretrain")
    for done in (4, 6):
        if done < 6:
            with pytest.raises(Interrupted, match="saved after step 4 of 6"):
                pretrain(replace(PRETRAIN, stop_after=4))
        else:
            pretrain(replace(PRETRAIN, stop_after=4))
        assert newest(root / "home/toy/pretrain").step == done
    assert [row["step"] for row in records(root, "pretrain") if "loss" in row] == list(range(6))


def test_a_damaged_checkpoint_is_set_aside_and_the_end_is_the_same(root, capsys):
    """It must not count among those that are kept: with one of them, the good one would be dropped for it."""
    run_up_to(root, "pretrain")
    once = replace(PRETRAIN, keep=2)
    pretrain(once)
    whole, history, stage = tensors(root, "pretrain"), records(root, "pretrain"), root / "home/toy/pretrain"
    (stage / "stage.json").unlink()
    weights = stage / "step_000006/model.safetensors"
    data = weights.read_bytes()
    weights.unlink()  # `whole` is mapped from it
    weights.write_bytes(data[:-7])
    with pytest.warns(UserWarning, match="damaged checkpoint: .*step_000006"), pytest.raises(Interrupted):
        pretrain(replace(once, keep=1, stop_after=1))
    assert "step_000006 is damaged: moved to" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in sorted(stage.glob("*step*"))] == [".step_000006.damaged", "step_000005"]
    pretrain(once)
    again = tensors(root, "pretrain")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert records(root, "pretrain") == history


def test_a_finished_stage_whose_weights_are_damaged_is_mended(root, capsys):
    run_up_to(root, "pretrain")
    pretrain(PRETRAIN)
    whole, record = tensors(root, "pretrain"), read_stage(root / "home/toy", "pretrain")
    (root / "home/toy/pretrain/step_000006/optimizer.safetensors").unlink()
    with pytest.warns(UserWarning, match="step_000006"):
        pretrain(PRETRAIN)
    assert "what it made is damaged" in capsys.readouterr().err
    again = tensors(root, "pretrain")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert read_stage(root / "home/toy", "pretrain")["fingerprint"] == record["fingerprint"]


@pytest.mark.parametrize(
    "file", ["tokens/texts.train.npy", "tokens/texts.held.offsets.npy", "tokenizer/tokenizer.json"]
)
def test_damaged_tokens_are_named_and_made_again(root, file, capsys):
    prepare(tokenizer_config(root))
    path = root / "home/toy" / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises((DataError, TokenizerError), match=r"nanochat tokenizer|another|byte-level BPE"):
        open_everything(root)
    prepare(tokenizer_config(root))
    assert "what it made is damaged" in capsys.readouterr().err
    assert path.read_bytes() == whole
    open_everything(root)


def open_everything(root):
    tokenizer = Tokenizer.load(root / "home/toy/tokenizer")
    for name in ("texts.train", "texts.held"):
        open_store(root / f"home/toy/tokens/{name}.npy", tokenizer=tokenizer.fingerprint)


def test_a_tokenizer_that_was_learned_is_not_learned_again(root, monkeypatch):
    """Stopped between learning and encoding, the stage goes on with what it has."""

    def die(*more):
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_stage, "write_store", die)
        with pytest.raises(SystemExit):
            prepare(tokenizer_config(root))
    monkeypatch.setattr(tokenizer_stage, "train_tokenizer", None)
    prepare(tokenizer_config(root))
    open_everything(root)


@pytest.mark.parametrize("gone", ["toy", "toy/pretrain"])
def test_a_folder_that_vanishes_is_one_line_and_is_not_begun_anew(root, monkeypatch, gone):
    run_up_to(root, "pretrain")
    write = Stage.write_metrics

    def vanish(self, step, *more):
        if step.index == 3:
            (root / "home" / gone).rename(root / "elsewhere")
        write(self, step, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "write_metrics", vanish)
        with pytest.raises(CheckpointError, match="put it back, or let all machines see"):
            pretrain(PRETRAIN)
    assert not (root / "home" / gone).exists()
    (root / "elsewhere").rename(root / "home" / gone)
    assert newest(root / "home/toy/pretrain").step == 2
    pretrain(PRETRAIN)
    assert [row["step"] for row in records(root, "pretrain") if "loss" in row] == list(range(6))


def spoiled(monkeypatch, steps):
    """Let the weights of some steps' tokens be infinite, as a broken loss would be."""
    make, index = pretrain_stage.row_batches, itertools.count()

    def stream(*more):
        for batch in make(*more):
            if next(index) // 2 in steps:  # two micro-batches a step
                batch.weights.fill_(float("inf"))
            yield batch

    monkeypatch.setattr(pretrain_stage, "row_batches", stream)


def test_steps_that_are_not_finite_are_skipped_and_counted(root, monkeypatch):
    run_up_to(root, "pretrain")
    spoiled(monkeypatch, {1, 2, 4})
    pretrain(replace(PRETRAIN, rows=1))
    assert [row["step"] for row in records(root, "pretrain") if row.get("skipped") == "not finite"] == [1, 2, 4]
    assert read_stage(root / "home/toy", "pretrain")["not_finite"] == [1, 2, 4]
    assert all(torch.isfinite(weight).all() for weight in tensors(root, "pretrain").values())


def test_three_in_a_row_are_the_end_and_are_kept_for_study(root, monkeypatch):
    run_up_to(root, "pretrain")
    config = replace(PRETRAIN, rows=1)
    with monkeypatch.context() as patch:
        spoiled(patch, {3, 4, 5})
        with pytest.raises(TrainingError, match=r"3 steps in a row of pretrain .* step 5; a smaller --rate"):
            pretrain(config)
    rows = read_jsonl(root / "home/toy/pretrain/not_finite.jsonl")
    assert [row["step"] for row in rows] == [3, 4, 5]
    assert [row["cursor"]["rows"] for row in rows] == [6, 8, 10], "where the stream stood before each"
    weight, gradient = rows[0]["norms"]["head.weight"]
    assert weight > 0
    assert gradient in ("nan", "inf")
    assert newest(root / "home/toy/pretrain").step == 4
    # Started again it goes on after step 4, and still counts step 3: it ends where a run never stopped does.
    with monkeypatch.context() as patch:
        spoiled(patch, {0, 1})
        with pytest.raises(TrainingError, match="step 5"):
            pretrain(config)
    assert [row["step"] for row in read_jsonl(root / "home/toy/pretrain/not_finite.jsonl")] == [3, 4, 5]


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
    for order in ("trigram", "5gram"):
        assert base[f"bpb_texts_{order}"].value > base["bpb_texts"].value / 20
    assert base["bpb_texts_5gram"].value != base["bpb_texts_trigram"].value


def test_an_empty_corpus_is_refused(root):
    for path in (root / "texts").iterdir():
        path.write_text("")
    with pytest.raises(DataError, match="expected"):
        prepare(tokenizer_config(root))


def test_a_text_that_is_not_utf8_is_named(root):
    (root / "texts" / "odd.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DataError, match=r"odd\.txt"):
        prepare(tokenizer_config(root))


def test_a_stage_may_change_the_context_for_those_after_it(root):
    run_up_to(root, "midtrain")
    finetune("midtrain", replace(FINETUNE, context=96, lapse_every=0))
    finetune("sft", replace(FINETUNE, lapse_every=0))
    for stage, context in (("pretrain", 192), ("midtrain", 96), ("sft", 96)):
        state = newest(root / "home/toy" / stage).state
        assert (state["config"]["context"], state["config"]["smear"]) == (context, True)
        if stage != "pretrain":
            plan = read_stage(root / "home/toy", stage)["plan"]
            assert plan["tokens"] == FINETUNE.steps * FINETUNE.accumulate * FINETUNE.rows * context


@pytest.fixture
def tokenizer(root):
    prepare(tokenizer_config(root))
    return Tokenizer.load(root / "home/toy/tokenizer")


TASKS, SFT = catalogue(KITCHEN), mixture("sft")


def stream(tokenizer, length, cursor):
    return finetune_stage.conversation_stream(tokenizer, TASKS, SFT, 0, length, cursor)


def whole(tokenizer, index, length):
    """Conversation `index` as a row should hold it: ids and mask, cut at the row's length."""
    rendered = render(tokenizer, example_for(TASKS, SFT, index, 0)[1].conversation, length)
    return tuple(rendered.ids), tuple(rendered.mask)


def conversations(row, bos):
    """What lies in a row between one beginning and the next, without the padding after the last."""
    ids, mask = row.ids.tolist(), row.mask.tolist()
    end = max((at + 1 for at, token in enumerate(ids) if token or mask[at]), default=0)
    assert not any(mask[end:])
    starts = [at for at, token in enumerate(ids) if token == bos]
    return [(tuple(ids[a:b]), tuple(mask[a:b])) for a, b in itertools.pairwise([*starts, end])]


@pytest.mark.parametrize("length", [97, 513])  # most conversations are cut; some are
def test_rows_hold_every_conversation_once(tokenizer, length):
    rows = list(itertools.islice(stream(tokenizer, length, {}), 40))
    bos = tokenizer.special("<|bos|>")
    assert all(len(row.ids) == len(row.mask) == length and row.ids[0] == bos for row in rows)
    found = Counter(some for row in rows for some in conversations(row, bos))
    last = rows[-1].cursor
    waiting = Counter(whole(tokenizer, index, length) for index in last["waiting"])
    assert found + waiting == Counter(whole(tokenizer, index, length) for index in range(last["next"]))
    assert any(len(ids) == length for ids, _ in found)
    assert 0 < sum(int(row.mask.sum()) for row in rows) < 40 * length


def test_rows_are_full_and_nothing_waits_for_ever(tokenizer):
    """Some thirty conversations to choose from leave hardly a token empty; and the oldest of them always goes first."""
    rows = list(itertools.islice(stream(tokenizer, 513, {}), 60))
    bos = tokenizer.special("<|bos|>")
    used = sum(len(ids) for row in rows for ids, _ in conversations(row, bos))
    assert used > 0.9 * 60 * 513
    for before, after in itertools.pairwise(rows):
        pool = [*before.cursor["waiting"], *range(before.cursor["next"], after.cursor["next"])]
        assert len(pool) == finetune_stage.POOL
        assert pool == sorted(pool)
        first = conversations(after, bos)[0]
        assert first == whole(tokenizer, pool[0], 513)
        assert pool[0] not in after.cursor["waiting"]


def test_a_stream_goes_on_from_any_of_its_cursors(tokenizer):
    """A cursor comes back from a file, and gives the same rows and cursors, whatever was read before it."""
    rows = list(itertools.islice(stream(tokenizer, 257, {}), 12))
    for at, row in enumerate(rows[:-1]):
        cursor = json.loads(json.dumps(row.cursor))
        for wanted, got in zip(rows[at + 1 :], stream(tokenizer, 257, cursor), strict=False):
            assert (got.ids == wanted.ids).all()
            assert (got.mask == wanted.mask).all()
            assert got.cursor == wanted.cursor
    assert (next(stream(tokenizer, 257, {"next": 0})).ids == rows[0].ids).all()
    assert (next(stream(tokenizer, 257, {"next": 50})).ids != rows[0].ids).any()


def test_processes_share_the_rows_of_a_batch(tokenizer):
    rows = list(itertools.islice(stream(tokenizer, 97, {}), 4))
    for rank in range(2):
        runtime = Runtime(torch.device("cpu"), torch.float32, rank=rank, world=2)
        batch = next(finetune_stage.row_batches(iter(rows), 4, runtime))
        mine = rows[rank::2]
        assert batch.inputs.tolist() == [row.ids[:-1].tolist() for row in mine]
        learned = [np.where(row.mask, row.ids, IGNORE)[1:].tolist() for row in mine]
        assert batch.targets.tolist() == learned
        assert batch.weights.bool().tolist() == [row.mask[1:].astype(bool).tolist() for row in mine]
        assert batch.cursor == rows[-1].cursor


def test_a_shipped_run_is_small_and_talks(root, easy, monkeypatch):
    """Weights rounded to bfloat16, without optimizer or tokens, and still a run that can be opened and reported."""
    run_up_to(root, "none")
    run, target = root / "home/toy", root / "shipped"
    size = ship(run, target)
    assert size == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert {path.parent.parent.name for path in target.rglob("model.safetensors")} == {"pretrain", "rl"}
    assert not [*target.rglob("optimizer.safetensors"), *target.rglob("*.npy"), *target.rglob("*.partial")]
    assert (target / "report.html").exists()
    assert (target / "ATTRIBUTION.md").read_text().startswith("# What this model has read")
    rows, kept = read_jsonl(run / "metrics.jsonl"), read_jsonl(target / "metrics.jsonl")
    assert len(kept) < len(rows)
    for stage in ("pretrain", "midtrain", "sft", "rl"):
        of_stage = [[row for row in some if row["stage"] == stage and "tokens" in row] for some in (rows, kept)]
        assert len({sum(row["tokens"] for row in some) for some in of_stage}) == 1
        assert len({some[-1]["step"] for some in of_stage}) == 1
    runtime = detect("cpu", "float32")
    (whole, _, _), (rounded, _, _) = load_model(run / "rl", runtime), load_model(target / "rl", runtime)
    for one, other in zip(whole.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(one.bfloat16().float(), other)
    monkeypatch.setattr("nanochat.checkpoint.__file__", str(root / "code/nanochat/checkpoint.py"))
    (root / "code/runs").mkdir(parents=True)
    target.rename(root / "code/runs/reference")
    assert find_run("reference") == root / "code/runs/reference/rl"


def test_a_run_is_not_shipped_over_other_files(root, easy):
    run_up_to(root, "midtrain")
    target = root / "precious"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="an empty folder"):
        ship(root / "home/toy", target)
    assert (target / "thesis.txt").read_text() == "years of work"
