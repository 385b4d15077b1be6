"""Importing a module has no effect: nothing printed, no file, no thread, no setting changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# Runs in a new interpreter, in an empty folder that is its home too. Libraries take seconds to import: once will do,
# and each module is then imported in a forked child where no other module of ours has been.
DRIVER = """
import importlib, json, os, random, signal, sys, tempfile, threading, traceback
from pathlib import Path
import jaxtyping, numpy, prompt_toolkit, regex, rich.console, safetensors.torch, torch, tyro

def state():
    return {
        "threads": [threading.active_count(), len(list(Path("/proc/self/task").glob("*")))],
        "working directory": os.getcwd(),
        "environment": dict(os.environ),
        "import path": list(sys.path),
        "random numbers": [
            repr(random.getstate()), repr(numpy.random.get_state()), torch.get_rng_state().tolist(),
        ],
        "torch settings": [
            str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
            str(torch.get_default_device()), torch.cuda.is_initialized(),
        ],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "hooks": [str(sys.excepthook), str(sys.displayhook), str(threading.excepthook)],
    }

def effects(module):
    home = Path(tempfile.mkdtemp(dir=os.environ["SCRATCH"]))
    os.environ |= {"HOME": str(home), "NANOCHAT_HOME": str(home / "nanochat"), "TMPDIR": str(home)}
    os.chdir(home)
    log = Path(os.environ["SCRATCH"]) / "log"
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    before = state()
    importlib.import_module(module)
    sys.stdout.flush()
    sys.stderr.flush()
    after = state()
    found = [f"changed: {name}" for name in before if before[name] != after[name]]
    found += [f"wrote {path.relative_to(home)}" for path in sorted(home.rglob("*"))]
    return found + ([f"printed {log.read_text()[:200]!r}"] if log.stat().st_size else [])

for module in sys.argv[1:]:
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            found = effects(module)
        except BaseException:
            found = [traceback.format_exc(limit=-2)]
        os.write(writer, json.dumps(found).encode()[:60000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        print(json.dumps([module, json.loads(stream.read() or '["ended the process"]')]), flush=True)
    os.wait()
"""


def effects(modules: list[str], path: Path, scratch: Path) -> dict[str, list[str]]:
    """Module -> what importing it did, where that is not nothing. `path` is where the modules are found."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {**kept, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", "SCRATCH": str(scratch)}
    command = [sys.executable, "-W", "error", "-c", DRIVER, *modules]
    ended = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stderr
    found = dict(json.loads(line) for line in ended.stdout.splitlines())
    assert sorted(found) == sorted(modules)
    return {module: what for module, what in found.items() if what}


def test_importing_any_module_has_no_effect(tmp_path: Path) -> None:
    files = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "nanochat").rglob("*.py"))]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in files]
    assert effects(modules, ROOT, tmp_path) == {}


# A small module per kind of effect, and what has to be said about it.
SAMPLES = {
    "prints": ("print('hello')", "printed 'hello"),
    "complains": ("import sys; sys.stderr.write('hello')", "printed 'hello"),
    "prints_from_a_child": ("import subprocess; subprocess.run(['echo', 'hello'])", "printed 'hello"),
    "writes": ("from pathlib import Path; Path('left').touch()", "wrote left"),
    "writes_at_home": ("from pathlib import Path; (Path.home() / '.left').touch()", "wrote .left"),
    "starts_a_thread": ("import threading; threading.Thread(target=threading.Event().wait).start()", "threads"),
    "sets_a_variable": ("import os; os.environ['OMP_NUM_THREADS'] = '1'", "changed: environment"),
    "seeds_torch": ("import torch; torch.manual_seed(0)", "changed: random numbers"),
    "seeds_python": ("import random; random.seed(0)", "changed: random numbers"),
    "sets_torch": ("import torch; torch.set_default_dtype(torch.float64)", "changed: torch settings"),
    "sets_a_signal": ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "changed: signals"),
    "leaves": ("raise SystemExit", "SystemExit"),
    "ends_the_process": ("import os; os._exit(0)", "ended the process"),
}


@pytest.fixture(scope="module")
def of_samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The effects of the samples, and of one module that has none."""
    folder, scratch = tmp_path_factory.mktemp("samples"), tmp_path_factory.mktemp("scratch")
    for name, (source, _) in SAMPLES.items():
        (folder / f"{name}.py").write_text(source + "\n")
    (folder / "pure.py").write_text('"""Nothing."""\n\nimport torch\n\nWIDTH = torch.float32.itemsize\n')
    return effects([*SAMPLES, "pure"], folder, scratch)


@pytest.mark.parametrize("name", SAMPLES)
def test_each_kind_of_effect_is_seen(name: str, of_samples: dict[str, list[str]]) -> None:
    found = of_samples[name]
    assert len(found) == 1
    assert SAMPLES[name][1] in found[0]


def test_a_module_without_effect_passes(of_samples: dict[str, list[str]]) -> None:
    assert "pure" not in of_samples
