"""What holds for every test: shapes are checked, a home of its own, no network."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

# As the command line sets it, before anything imports torch: threads that spin while they wait starve one another.
os.environ.setdefault("GOMP_SPINCOUNT", "4000")

# Signatures such as `Int[Tensor, "B T"]` are comments to the package itself; here they are checked at every call. Only
# in modules that have such, since checks would slow the pure Python loops of the tokenizer down.
ROOT = Path(__file__).parents[1]
SHAPED = [
    path for path in sorted((ROOT / "nanochat").rglob("*.py")) if "from jaxtyping import" in path.read_text("utf-8")
]
jaxtyping.install_import_hook([".".join(p.relative_to(ROOT).with_suffix("").parts) for p in SHAPED], "shapes.check")

# Shared machines stall, so that no example has a deadline; and a failure must come back when it is looked into.
hypothesis.settings.register_profile("nanochat", deadline=None, derandomize=True)
hypothesis.settings.load_profile("nanochat")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The session's own NANOCHAT_HOME: no test sees, or harms, the runs of whoever starts it."""
    folder = tmp_path_factory.mktemp("nanochat_home")
    # What a compiler made is good for every session: seconds each time otherwise.
    made = ROOT / ".pytest_cache" / "compiled"
    made.mkdir(parents=True, exist_ok=True)
    (folder / "compiled").symlink_to(made, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOCHAT_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections from this process reach this machine only."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_here)
