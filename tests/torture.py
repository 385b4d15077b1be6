"""Training under kills, power cuts and broken disks: `make torture`. What ends must end in the bits of a quiet run.

    python -m tests.torture --kills 60 --points 40 --faults 40

Every stage of a toy run is made once in peace. Then again and again, and each time something happens to it: a SIGKILL
or a SIGTERM after a random share of its processor time; a kill in the middle of a file operation; a power cut, after
which no file holds more than what was flushed, and a random part of the rest; a disk that is full, broken or read-only.
The same command is started until it ends. Then tokens, weights, optimizer, cursor and metrics are compared.

Each attempt is a process, forked from one that has imported everything and computed nothing.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanochat import rollout
from nanochat.checkpoint import newest
from nanochat.cli import main as nanochat
from nanochat.files import sha256
from nanochat.stages import finetune, pretrain, reinforce, tokenizer  # what is imported before the fork
from nanochat.stages.records import read_jsonl
from tests.faults import KINDS, Layer
from tests.oracles.kitchen import KITCHEN

COMMON = "--run toy --preset tiny --seed 3 --deterministic"
CHAT = "--steps 6 --rows 2 --accumulate 2 --mixture tiny --lapse-every 2 --save-every 2"
COMMANDS = {
    "tokenizer": "tokenizer --sources {home}/texts --vocab-size 300",
    "pretrain": "pretrain --depth 1 --context 192 --tokens-per-step 384 --steps 7 --eval-every 3 --eval-documents 3 "
    "--lapse-every 2 --save-every 2 --keep 1",
    "midtrain": f"midtrain {CHAT}",
    "sft": f"sft {CHAT}",
    "rl": "rl --steps 4 --prompts 2 --samples 3 --rows 4 --max-tokens 6 --mixture tiny --lapse-every 2 --save-every 1",
}
CLOCK = {"time", "tokens_per_second", "mfu"}
SLOWEST = 1800.0  # seconds after which an attempt hangs; others may want the machine too


class Torture:
    """A toy run, what it looks like when nothing happens to it, and what has happened so far."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.home, self.draw = folder, folder / "home", random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.synced: dict[int, int] = {}
        self.stop_seconds: list[float] = []
        self.home.mkdir()
        (self.home / "texts").mkdir()
        for number in range(40):
            words = f"Dish {number}. Take {number} cups of flour and {number + 1} eggs, mix them, and bake the dough. "
            (self.home / "texts" / f"dish {number}.txt").write_text(words * (1 + number % 7))
        self.wanted: dict[str, Any] = {}
        self.processor_seconds: dict[str, float] = {}
        self.operations: dict[str, Counter[str]] = {}
        for stage in COMMANDS:
            shutil.copytree(self.home, folder / f"before_{stage}")
            seen = folder / "seen"
            code, said, used = self.attempt(stage, layer=Layer(self.home), seen=seen)
            assert code == 0, said
            self.wanted[stage], self.processor_seconds[stage] = self.snapshot(stage), used
            self.operations[stage] = Counter(seen.read_text().split())

    def attempt(
        self,
        stage: str,
        *,
        stop: tuple[int, float] | None = None,
        layer: Layer | None = None,
        seen: Path | None = None,
    ) -> tuple[int, str, float]:
        """Start a stage: its exit code (negative: the signal that ended it), what it said, processor seconds.

        `stop` is a signal and the processor seconds after which it is sent.
        """
        errors, sync = self.folder / "stderr", self.folder / "synced"
        began, child = time.monotonic(), os.fork()
        if child == 0:
            self.run(stage, errors, sync, layer or Layer(self.home), seen)
        used, sent = 0.0, 0.0
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            used = processor_seconds(child) or used
            if stop and not sent and used >= stop[1]:
                sent = time.monotonic()
                os.kill(child, stop[0])
            if time.monotonic() - began > SLOWEST:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.002)
        if time.monotonic() - began > SLOWEST:
            self.failures.append(f"{stage}: hangs")
        if sent and stop and stop[0] == signal.SIGTERM:
            self.stop_seconds.append(time.monotonic() - sent)
        if sync.exists():
            self.synced |= {int(line.split()[0]): int(line.split()[1]) for line in sync.read_text().splitlines()}
            sync.unlink()
        return os.waitstatus_to_exitcode(status), errors.read_text(errors="replace"), used

    def run(self, stage: str, errors: Path, sync: Path, layer: Layer, seen: Path | None) -> None:
        """The forked process: a stage by its command, with a home of its own. Never returns."""
        code = 99
        try:
            handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            os.environ.update(NANOCHAT_HOME=str(self.home), COLUMNS="200")
            layer.synced = os.open(sync, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            layer.install(setattr)
            code = nanochat([*COMMANDS[stage].format(home=self.home).split(), *COMMON.split()])
            if seen:
                seen.write_text(" ".join(layer.seen))
        except SystemExit as left:
            code = int(left.code or 0)
        except BaseException as error:
            print(f"Traceback: {error!r}", file=sys.stderr)
        finally:
            os._exit(code)

    def back_to(self, stage: str) -> None:
        """The home as it was before the stage first ran."""
        shutil.rmtree(self.home)
        shutil.copytree(self.folder / f"before_{stage}", self.home)
        self.synced = {path.stat().st_ino: path.stat().st_size for path in self.home.rglob("*")}

    def snapshot(self, stage: str) -> dict[str, Any]:
        """What a finished stage left, but for clocks."""
        run = self.home / "toy"
        left = [str(path) for path in run.rglob(".*") if path.suffix in (".partial", ".removed", ".damaged")]
        if stage == "tokenizer":
            files = [run / "tokenizer/tokenizer.json", *sorted((run / "tokens").iterdir())]
            return {"left": left} | {path.name: sha256(path) for path in files}
        found = newest(run / stage)
        assert found is not None
        rows = [row for row in read_jsonl(run / "metrics.jsonl") if row["stage"] == stage]
        return {
            "left": left, "step": found.step, "files": found.state["files"], "cursor": found.state["cursor"],
            "metrics": [{name: value for name, value in row.items() if name not in CLOCK} for row in rows],
            "timelapse": read_jsonl(run / stage / "timelapse.jsonl"),
        }  # fmt: skip

    def finish(self, stage: str, what: str) -> None:
        """Start the stage until it ends, in peace; and compare."""
        code, said, _ = self.attempt(stage)
        if code:
            self.failures.append(f"{stage} after {what}: exit code {code}: {said[-300:]}")
            return
        got = self.snapshot(stage)
        odd = [name for name in self.wanted[stage] if got.get(name) != self.wanted[stage][name]]
        if odd:
            self.failures.append(f"{stage} after {what}: other {', '.join(odd)}")

    def kills(self, stage: str, number: int, kind: str) -> None:
        """`number` times SIGKILL, SIGTERM or a power cut, at random moments, in as many runs as that takes."""
        self.back_to(stage)
        while number > 0:
            after = self.draw.uniform(0, 1.1 * self.processor_seconds[stage])
            sent = signal.SIGTERM if kind == "terminate" else signal.SIGKILL
            code, said, _ = self.attempt(stage, stop=(sent, after))
            if code == 0:
                self.finish(stage, kind)  # compares: there is nothing left to do
                self.back_to(stage)
            elif code == (130 if kind == "terminate" else -signal.SIGKILL):
                number -= 1
                self.counts[kind] += 1
                if kind == "power cut":
                    self.lose_power()
            else:
                number -= 1
                self.failures.append(f"{stage}: exit code {code} after {kind}: {said[-300:]}")
        self.finish(stage, kind)

    def lose_power(self) -> None:
        """Cut every file to what was flushed of it, and a random part of the rest."""
        for path in self.home.rglob("*"):
            if path.is_file():
                about = path.stat()
                least = min(about.st_size, self.synced.get(about.st_ino, 0))
                os.truncate(path, self.draw.randint(least, about.st_size))

    def points(self, stage: str, number: int) -> None:
        """Kills before, or in the middle of, file operations drawn at random."""
        total = self.operations[stage].total()
        for at in sorted(self.draw.sample(range(total), min(number, total))):
            self.back_to(stage)
            code, said, _ = self.attempt(stage, layer=Layer(self.home, "any", at, 0))
            self.counts["kill in a file operation"] += 1
            if code != -signal.SIGKILL:
                self.failures.append(f"{stage}: exit code {code} at operation {at}: {said[-300:]}")
            if self.draw.random() < 0.5:
                self.lose_power()
            self.finish(stage, f"a kill in operation {at}")

    def faults(self, stage: str, number: int) -> None:
        """Operations that fail: one line of error, and the checkpoint before it as it was."""
        for turn in range(number):
            kind = KINDS[turn % len(KINDS)]
            at = self.draw.randrange(self.operations[stage]["write" if kind == "short" else kind])
            error = errno.ENOSPC if kind == "short" else self.draw.choice((errno.ENOSPC, errno.EIO, errno.EROFS))
            what = f"{errno.errorcode[error]} in {kind} {at}"
            self.back_to(stage)
            code, said, _ = self.attempt(stage, layer=Layer(self.home, kind, at, error))
            self.counts[f"failing {kind}"] += 1
            last = (said.strip().splitlines() or [""])[-1]
            if code != 1 or "Traceback" in said or not last.startswith(f"nanochat {stage}: expected"):
                self.failures.append(f"{stage} after {what}: exit code {code}: {said[-300:]}")
            self.finish(stage, what)


def processor_seconds(process: int) -> float:
    """What a process has used so far; 0 where that can't be asked, or any more."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def small_kitchen() -> None:
    """A dozen recipes in place of the Cookbook, and rewards that a model of a few steps earns."""
    assert pretrain and tokenizer
    for module in (finetune, reinforce):
        module.recipes = lambda root: KITCHEN  # type: ignore[attr-defined]
    rollout.reward = lambda codec, question, completion: completion.ids[0] % 7 / 7


def main() -> int:
    """Run it; 0 where nothing was lost."""
    flags = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.partition("\n")[0])
    for name, default, about in (
        ("kills", 60, "SIGKILLs at random moments"),
        ("terminations", 10, "SIGTERMs at random moments"),
        ("cuts", 10, "power cuts at random moments"),
        ("points", 40, "kills in file operations"),
        ("faults", 40, "file operations that fail"),
        ("seed", 0, "of all that is drawn"),
    ):
        flags.add_argument(f"--{name}", type=int, default=default, help=f"{about} (default {default})")
    given, began = flags.parse_args(), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    small_kitchen()
    try:
        torture = Torture(folder, given.seed)
        shares: list[tuple[int, Callable[[str, int], None]]] = [
            (given.kills, lambda stage, number: torture.kills(stage, number, "kill")),
            (given.terminations, lambda stage, number: torture.kills(stage, number, "terminate")),
            (given.cuts, lambda stage, number: torture.kills(stage, number, "power cut")),
            (given.points, torture.points),
            (given.faults, torture.faults),
        ]
        for number, work in shares:
            for place, stage in enumerate(COMMANDS):
                if mine := len(range(place, number, len(COMMANDS))):
                    work(stage, mine)
                    print(f"{stage}: {dict(torture.counts)}, {len(torture.failures)} failures", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = {
        "happened": dict(torture.counts), "failures": torture.failures, "seconds": round(time.monotonic() - began),
        "slowest_stop_seconds": round(max(torture.stop_seconds, default=0.0), 2), "seed": given.seed,
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    return 1 if torture.failures else 0


if __name__ == "__main__":
    sys.exit(main())
