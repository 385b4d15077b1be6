"""The report card: from whole runs, unfinished ones and damaged ones; no text of a model ever becomes markup."""

import doctest
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nanochat.checkpoint import run_folder
from nanochat.errors import CheckpointError
from nanochat.evaluate.figures import Figure, save_figures
from nanochat.report import ReportConfig, main, plots, summary, tally, words, write_report
from nanochat.report.card import sparse
from nanochat.report.read import read_run
from tests.fake_run import NASTY, fake_run

VOID = {"meta", "br", "hr", "img", "input", "link"}
STAGES = ("tokenizer", "pretrain", "midtrain", "sft", "rl")


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes, text; complains where tags do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not reported on yet."""
    return fake_run(tmp_path_factory.mktemp("runs") / "kitchen")


@pytest.fixture(scope="module")
def reported(whole: Path) -> Path:
    """The same run with its report."""
    assert write_report(whole) == whole / "report.html"
    return whole


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "kitchen"))


def report_json(folder: Path) -> dict[str, Any]:
    """report.json, read as strictly as JSON is."""
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    return found


def test_the_json_is_what_the_design_says(reported: Path) -> None:
    report = report_json(reported)
    assert {
        "figures",
        "minutes",
        "reference_minutes",
        "peak_memory_gb",
        "commit",
        "versions",
        "machine",
        "seed",
    } <= set(report)
    assert all(set(figure) == {"stage", "name", "value", "low", "high", "n", "unit"} for figure in report["figures"])
    names = {(figure["stage"], figure["name"]) for figure in report["figures"]}
    assert {
        ("pretrain", "bpb_recipes"),
        ("pretrain", "bpb_wiki"),
        ("rl", "calculator_accuracy"),
        ("sft", "stop_rate"),
    } <= names
    assert report["minutes"] == pytest.approx(0.42 + 6.1 + 4.3 + 2.6 + 1.4, abs=0.05)
    # Every stage's product peak was 344 GF/s.
    assert report["reference_minutes"] == pytest.approx(report["minutes"] * 344 / 430)
    assert report["core_minutes"] == pytest.approx(2 * report["minutes"])
    assert report["seed"] == 7
    assert report["machine"]["threads"] == 2
    assert set(report["versions"]) >= {"python", "torch", "nanochat"}
    assert report["problems"] == []


def test_the_plan_stands_beside_what_happened(reported: Path) -> None:
    stages = {stage["stage"]: stage for stage in report_json(reported)["stages"]}
    assert list(stages) == list(STAGES)
    pretrain = stages["pretrain"]
    assert (pretrain["steps_planned"], pretrain["steps"]) == (700, 700)
    assert (pretrain["tokens_planned"], pretrain["tokens"]) == (700 * 4096, 700 * 4096)
    assert (pretrain["minutes_planned"], pretrain["minutes"]) == (pytest.approx(5.6), pytest.approx(6.1, abs=0.02))
    assert pretrain["tokens_per_second"] == pytest.approx(8100, rel=0.01)
    assert 0.4 < pretrain["mfu"] < 0.46
    assert pretrain["first_loss"] > 8 > 4 > pretrain["last_loss"]
    assert stages["tokenizer"]["steps"] is None
    assert stages["rl"]["reward"] == pytest.approx(0.86, abs=0.03)
    for text in ((reported / "report.md").read_text(), Page((reported / "report.html").read_text()).text):
        assert "planned 5.6 min" in text
        assert "2.87 M" in text


def test_the_summary_says_it_in_plain_words(reported: Path) -> None:
    told = " ".join(report_json(reported)["summary"])
    assert told.startswith("In 14.8 minutes of training on 2 threads of ")
    assert "read 2.87 million tokens of text" in told
    assert re.search(
        r"it needs 1\.\d{3} bits for each byte of documents that it has never seen \(1\.\d+ to 1\.\d+\)", told
    )
    assert re.search(r"a trigram needs 1\.6\d+ and xz needs 1\.962", told)
    assert "After rl it answers correctly 94 % of sums (90 to 97 % of 200)" in told
    assert told.endswith("Every stage is finished.")


def test_the_page_is_one_file_that_asks_for_nothing(reported: Path) -> None:
    source = (reported / "report.html").read_text()
    page = Page(source)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "image", "foreignobject"} & set(names)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "xlink:href", "src", "action"):
                assert str(value).startswith("#"), (tag, value)
    assert not re.search(r"@import|url\((?!#)", source)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_ids_are_unique_and_links_lead_somewhere(reported: Path) -> None:
    page = Page((reported / "report.html").read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {str(a[key])[1:] for _, a in page.tags for key in ("href", "xlink:href") if key in a}
    wanted |= {
        match for _, a in page.tags for value in a.values() for match in re.findall(r"url\(#([^)]*)\)", value or "")
    }
    assert wanted
    assert wanted <= set(ids)


def test_plots_say_what_they_show_and_take_the_pages_colours(reported: Path) -> None:
    source = (reported / "report.html").read_text()
    drawings = re.findall(r"<svg.*?</svg>", source, flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        page = Page(drawing)
        attributes = page.tags[0][1]
        assert attributes["role"] == "img"
        assert [tag for tag, _ in page.tags[1:3]] == ["title", "desc"]
        assert "from" in page.text
        # Text is text, and no colour is fixed: each is the page's, by day and by night.
        assert "<text" in drawing
        assert not re.search(r"(fill|stroke): ?#", drawing)
        assert "var(--pretrain)" in drawing
    told = " ".join(Page(drawing).text for drawing in drawings)
    assert "rl reward: from" in told
    assert "xz: 1.962." in told
    assert "trigram: 1.6" in told


def test_what_models_write_is_shown_and_never_obeyed(reported: Path) -> None:
    assert "<script>" in NASTY
    source = (reported / "report.html").read_text()
    page = Page(source)
    assert "script" not in [tag for tag, _ in page.tags]
    assert "<script>" not in source
    assert "<script>alert('1')</script> | `code` ``` </svg> & *bold*" in page.text
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e]", source)
    # As a prompt's answer, in a question, an argument, an output, a reply, a note.
    assert page.text.count("alert('1')") >= 6


def test_markdown_keeps_models_in_fences_and_tables_whole(reported: Path) -> None:
    text = (reported / "report.md").read_text()
    fence, rows, columns = "", 0, 0
    for line in text.split("\n"):
        if fence:
            fence = "" if line == fence else fence
        elif match := re.match(r"(`{3,})text$", line):
            fence = match[1]
        else:
            assert "<script>" not in line
            assert not line.startswith("# heading")
            cells = len(re.findall(r"(?<!\\)\|", line))
            rows += cells > 0
            columns = cells if line.startswith("|") and not columns else columns if line else 0
            assert cells == columns, line
    assert fence == ""
    assert rows > 40
    assert "&lt;script&gt;alert('1')&lt;/script&gt; \\| \\`code\\`" in text


@pytest.mark.parametrize("stages", [(), ("tokenizer",), ("tokenizer", "pretrain"), ("pretrain", "sft"), ("rl",)])
def test_a_run_in_any_state_gets_its_report(tmp_path: Path, stages: tuple[str, ...]) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    fake_run(folder, stages)
    write_report(folder)
    report, page = report_json(folder), Page((folder / "report.html").read_text())
    missing = [stage for stage in STAGES if stage not in stages]
    assert [f"{stage} is missing: it was not run" in report["problems"] for stage in missing] == [True] * len(missing)
    assert [stage["status"] for stage in report["stages"]] == ["finished" if s in stages else "missing" for s in STAGES]
    assert all(f"{stage} is missing" in page.text for stage in missing)
    told = " ".join(report["summary"])
    assert (
        f"Not run: {words.joined(missing)}." in told if stages else told == "Nothing has been run in this folder yet."
    )


def test_an_unfinished_stage_is_said(run: Path) -> None:
    (run / "sft" / "stage.json").unlink()
    (run / "sft" / "started.json").write_text(json.dumps({"fingerprint": "x", "config": {"steps": 900}}))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["stage"] != "sft" or row["step"] < 120]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    write_report(run)
    report = report_json(run)
    stage = report["stages"][3]
    assert (stage["status"], stage["steps_planned"], stage["steps"]) == ("unfinished", 900, 120)
    assert "sft is not finished: the record ends after step 119" in report["problems"]
    assert "Not finished: sft." in " ".join(report["summary"])
    assert "not finished" in Page((run / "report.html").read_text()).text


def test_lines_that_a_kill_cut_are_counted_and_left_out(run: Path) -> None:
    before = read_run(run)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"time": 1, "stage": "rl", "st\n[1, 2]\nnull\n\xff\xfe{}\n\n{"stage": "rl", "step": 60, "loss')
    after = read_run(run)
    total = sum(len(stage.metrics) for stage in before.stages) + 60 + 7  # reward and val_bpb have lines of their own
    assert after.problems == (f"metrics.jsonl: 5 damaged lines are left out, of {total + 5:,}",)
    assert after.stages == before.stages


def test_a_step_written_twice_counts_once(run: Path) -> None:
    last = [
        line for line in (run / "metrics.jsonl").read_text().splitlines() if '"pretrain"' in line and '"loss"' in line
    ][-1]
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(json.loads(last) | {"loss": 2.5}) + "\n")
    stage = read_run(run).stage("pretrain")
    assert len(stage.series("loss")) == 700
    assert stage.series("loss")[-1] == (699, 2.5)


DAMAGE: list[tuple[str, bytes]] = [
    ("pretrain/stage.json", b'{"stage": "pretrain", "fin'),
    ("pretrain/stage.json", b"[]"),
    (
        "pretrain/stage.json",
        b'{"finished": true, "plan": 3, "machine": [], "versions": "x", "seconds": "long", "config": null}',
    ),
    (
        "pretrain/stage.json",
        b'{"finished": true, "seconds": 1e999, "time": -1e300, "plan": {"steps": NaN, "model": 1}}',
    ),
    ("pretrain/figures.json", b'[{"stage": "pretrain"}]'),
    (
        "pretrain/figures.json",
        b'[{"stage": "); x", "name": "<b>", "value": null, "low": 0, "high": 1, "n": 3, "unit": "|"}]',
    ),
    (
        "pretrain/figures.json",
        b'[{"stage": "rl", "name": "bpb_<$i\\ud800>_xz", "value": 0, "low": 0, "high": 0, "n": 0, "unit": ""}]',
    ),
    ("sft/conversations.json", b'[{"messages": [{"role": "user", "content": "hi"}]}, {"messages": [{"role": "x"}]}]'),
    ("sft/conversations.json", b'{"a": 1}'),
    ("sft/conversations.json", b"[" * 100_000),
    (
        "sft/timelapse.jsonl",
        b'{"stage": "sft", "step": "x"}\n{"stage": "sft"\n{"step": 1, "stage": 2, "prompt": 3, "text": 4}',
    ),
    ("tokenizer/stage.json", b'{"finished": true, "attribution": 5, "sources": 7, "corpus": [1, {"name": "<i>"}]}'),
    ("metrics.jsonl", b""),
    (
        "metrics.jsonl",
        b'{"stage": "pretrain", "step": 1, "loss": 1e300}\n{"stage": "pretrain", "step": 1e300, "loss": "x"}',
    ),
    ("metrics.jsonl", b'{"stage": "rl", "step": 1, "loss": NaN, "skipped": "not finite"}\n{"stage": [], "step": {}}'),
    (
        "metrics.jsonl",
        b'{"stage": "pretrain", "step": 0, "loss": 3, "val_bpb": 2}\n{"stage": "pretrain", "step": 1, "loss": 3}',
    ),
]


@pytest.mark.parametrize(("name", "content"), DAMAGE)
def test_no_damaged_file_stops_the_report(
    run: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / name).write_bytes(content)
    if name not in ("metrics.jsonl", "pretrain/figures.json"):
        monkeypatch.setattr(plots, "drawn", lambda *arguments, **options: "")  # these are all that is drawn
    write_report(run)
    report_json(run)
    page = Page((run / "report.html").read_text())
    assert "How it was made" in page.text


def test_a_file_that_is_no_file_is_said(run: Path) -> None:
    (run / "rl" / "timelapse.jsonl").unlink()
    (run / "rl" / "timelapse.jsonl").mkdir()
    shutil.rmtree(run / "midtrain")
    (run / "midtrain").write_text("not a folder")
    found = read_run(run)
    assert any(problem.startswith("rl/timelapse.jsonl cannot be read") for problem in found.problems)
    assert found.stage("midtrain").status == "unfinished", "its metrics are there"


def test_stages_made_by_different_programs_are_noticed(run: Path) -> None:
    record = json.loads((run / "rl" / "stage.json").read_text())
    (run / "rl" / "stage.json").write_text(json.dumps(record | {"commit": "0123456789ab", "seed": 8}))
    problems = read_run(run).problems
    assert "stages were made with 2 different seeds; what is shown is the last one's" in problems


def test_steps_that_were_skipped_are_said(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for stage, step, why in (("pretrain", 699, "not finite"), ("rl", 59, "nothing to learn")):
            file.write(json.dumps({"stage": stage, "step": step, "skipped": why}) + "\n")
    assert read_run(run).problems == ("pretrain: 1 of its steps had no finite loss and changed nothing",)


def test_a_diverged_model_has_no_number(run: Path) -> None:
    save_figures(
        run / "rl" / "figures.json", [Figure("rl", "bpb_recipes", math.nan, math.nan, math.inf, 3, "bits/byte")]
    )
    write_report(run)
    found = [f for f in report_json(run)["figures"] if (f["stage"], f["name"]) == ("rl", "bpb_recipes")]
    assert found[0]["value"] is None
    assert "no number" in Page((run / "report.html").read_text()).text


def test_the_same_run_gives_the_same_report(reported: Path, run: Path) -> None:
    write_report(run)
    for name in ("report.html", "report.md", "report.json"):
        assert (run / name).read_text() == (reported / name).read_text()


def test_no_run_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a run at .*nowhere; got nothing there; make one"):
        write_report(tmp_path / "nowhere")


def test_a_disk_without_room_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nanochat.report.write.write_atomically", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*nothing of the run is lost"):
        write_report(run)


def test_the_verb_writes_and_prints_the_path(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    shutil.copytree(whole, run_folder("kitchen"))
    assert main(["--run", "kitchen"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'kitchen' / 'report.html'}\n"
    with pytest.raises(CheckpointError, match="tiny"):
        main(["--preset", "tiny"])
    assert ReportConfig().preset == "laptop"


def test_a_time_lapse_is_dense_where_most_happens() -> None:
    run = read_run(Path(__file__).parent)  # a folder without stages
    assert all(stage.status == "missing" for stage in run.stages)
    places = sparse(list(range(100)))  # type: ignore[arg-type]
    assert places == [0, 1, 4, 9, 21, 45, 99]
    assert sparse([1, 2, 3]) == [1, 2, 3]  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize("module", [words, plots, tally, summary])
def test_examples_in_the_docstrings_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_names_read_well() -> None:
    articles = [
        "an AMD EPYC",
        "an Intel(R) Xeon(R)",
        "a Neoverse-N1",
        "an NVIDIA H100",
        "an n-gram",
        "a 3-gram",
        "an 8-gram",
        "a GPU",
    ]
    assert [words.article(text.split(" ", 1)[1]) for text in articles] == articles
    assert words.percent(0.9995, 5000) == "100.0"
    assert words.duration(59.99) == "60.0 min"
    assert words.duration(119.7) == "2 h 0 min"
