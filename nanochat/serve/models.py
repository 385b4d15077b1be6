"""Which models a server has: the stages of a run, loaded when they are first asked for, at their newest checkpoint."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.checkpoint import stages_of, step_folders
from nanochat.data import Recipe
from nanochat.errors import CheckpointError
from nanochat.runtime import Runtime
from nanochat.scheduler import Scheduler
from nanochat.serve.conversation import Speaker, load_speaker
from nanochat.serve.schema import ApiError


@dataclass(frozen=True)
class Source:
    """A model that can be loaded. A training run leaves newer ones, of another `version`, under the same `id`."""

    id: str
    stage: str
    version: str
    created: int  # seconds since 1970
    load: Callable[[], Speaker]

    @property
    def fingerprint(self) -> str:
        """Tells one version of one model from all others: OpenAI's `system_fingerprint`."""
        return f"fp_{hashlib.sha256(f'{self.id}/{self.version}/{self.created}'.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Served:
    """A loaded model and the scheduler that answers from it."""

    source: Source
    speaker: Speaker
    scheduler: Scheduler

    @property
    def id(self) -> str:
        """The model's name, as clients write it."""
        return self.source.id

    def answers(self, wanted: Source) -> bool:
        """Whether this is the version that is wanted, and it has not failed: then it is loaded again."""
        return self.source.version == wanted.version and self.scheduler.failure is None


Look = Callable[[], Sequence[Source]]
Open = Callable[[Speaker], Scheduler]


class Models:
    """Models by their names. `look` lists what there is, the default first; `open_scheduler` makes one ready.

    `run` is the folder that the page shows, where the models are the stages of a run.
    """

    def __init__(self, look: Look, open_scheduler: Open, alias: str = "", run: Path | None = None) -> None:
        self.look, self.open_scheduler, self.alias, self.run = look, open_scheduler, alias, run
        self.loaded: dict[str, Served] = {}
        self.lock = threading.Lock()  # one model is loaded at a time
        self.is_closed = False

    def list(self) -> list[Source]:
        """What can be asked, the default first."""
        return list(self.look())

    async def find(self, name: str) -> Served:
        """The model of that name, loaded; the alias is the default's. Raises ApiError where there is none."""
        return await asyncio.to_thread(self.load, name)

    def load(self, name: str = "") -> Served:
        """As `find`, for callers that may wait; without a name the default."""
        there = self.list()
        wanted = next((source for source in there if source.id == name), None)
        if wanted is None and name in ("", self.alias):
            wanted = there[0] if there else None
        if wanted is None:
            known = ", ".join(source.id for source in there) or "none yet: the run has not saved a checkpoint"
            raise ApiError(404, f"expected a model of this server; got {name!r}; there: {known}", "model",
                           "model_not_found", {} if there else {"Retry-After": "10"})  # fmt: skip
        found = self.loaded.get(wanted.id)
        if found is not None and found.answers(wanted):
            return found
        with self.lock:
            return self.newest(wanted)

    def newest(self, wanted: Source) -> Served:
        """Load a version; the one before it goes on until what it was asked is answered."""
        before = self.loaded.get(wanted.id)
        if before is not None and before.answers(wanted):
            return before
        if self.is_closed:
            raise ApiError(503, "the server is closing", code="closing", headers={"Retry-After": "10"})
        try:
            speaker = wanted.load()
        except (CheckpointError, OSError):  # a run that is learning may have removed it meanwhile
            if before is None:
                raise
            return before
        served = self.loaded[wanted.id] = Served(wanted, speaker, self.open_scheduler(speaker))
        if before is not None:
            threading.Thread(target=before.scheduler.close, daemon=True).start()
        return served

    def ready(self) -> Sequence[Served]:
        """The models that are loaded."""
        return list(self.loaded.values())

    def close(self, drain: bool = True) -> None:
        """End all schedulers; with `drain` when they have answered what they were asked."""
        with self.lock:
            self.is_closed = True
            for served in self.loaded.values():
                served.scheduler.close(drain)


def stages_to_serve(
    run: Path, chosen: str, runtime: Runtime, kitchen: Sequence[Recipe], is_alone: bool = False
) -> Look:
    """Lists the stages of a run: the chosen one first, or else the last; with `is_alone` only that."""

    def load(folder: Path) -> Callable[[], Speaker]:
        return lambda: load_speaker(folder, runtime, kitchen)

    def look() -> list[Source]:
        sources = []
        for stage in stages_of(run):
            newest = step_folders(run / stage)[-1]
            try:
                created = int(newest.stat().st_mtime)
            except OSError:  # removed between the two calls
                created = int(time.time())
            sources.append(Source(f"{run.name}:{stage}", stage, newest.name, created, load(run / stage)))
        # In the order of training; the default goes first.
        default = next((source for source in sources if source.stage == chosen), sources[-1] if sources else None)
        first = [default] if default else []
        return first if is_alone else first + [source for source in sources if source is not default]

    return look


def about(source: Source, served: Served | None) -> dict[str, Any]:
    """A model as `/v1/models` tells of it; what is in `nanochat` is known of loaded ones."""
    more: dict[str, Any] = {"stage": source.stage, "version": source.version, "loaded": served is not None}
    if served is not None:
        config, speaker = served.speaker.engine.model.config, served.speaker
        more |= {
            "context": config.context,
            "vocab_size": config.vocab_size,
            "layers": config.n_layer,
            "heads": config.n_head,
            "tools": list(speaker.engine.rules.tools),
            "takes_turns": speaker.takes_turns,
        }
    return {"id": source.id, "object": "model", "created": source.created, "owned_by": "nanochat", "nanochat": more}
