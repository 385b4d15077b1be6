"""The set-up does what it says: make's verbs with a stand-in for Python, and the files that have to agree."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nanochat

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
HAS_NVIDIA = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None

# Stands in for python3 and for what `-m venv` makes: writes its arguments down and does nothing else.
STAND_IN = """#!/bin/sh
echo "$@" | tr '\\n' ' ' >> "$LOG"; echo >> "$LOG"
case "$*" in
    *version_info*) exit "${TOO_OLD:-0}" ;;
    *ensurepip*) exit "${NO_VENV:-0}" ;;
    "-m venv"*) for folder; do :; done; mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" ;;
    *--dry-run*) printf '%s' "$REQUIRES" > .venv/torch.json ;;
    *"-e ."*) exit "${NO_NETWORK:-0}" ;;
esac
"""


class Checkout:
    """A folder with the Makefile and what it reads, and a stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        for name in ("Makefile", "constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        self.python = folder / "python3"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def make(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        outer = {name: value for name, value in outer.items() if name not in {"PRESET", "PYTHON", "TORCH_INDEX"}}
        environment = {**outer, "PYTHON": str(self.python), "LOG": str(self.log), **variables}
        return subprocess.run(["make", *words], cwd=self.folder, env=environment, capture_output=True, text=True)

    def calls(self, word: str = "") -> list[str]:
        """What Python was called with in the last `make`, where it holds `word`."""
        return [line.strip() for line in self.log.read_text().splitlines() if word in line]

    def touch(self, name: str) -> None:
        stamps = [path.stat().st_mtime for path in self.folder.glob(".venv/.*")]
        os.utime(self.folder / name, times=(max(stamps) + 1, max(stamps) + 1))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_env_installs_once(checkout: Checkout) -> None:
    assert checkout.make("env").returncode == 0
    assert checkout.calls("-m venv --clear .venv")
    assert all("-c constraints.txt" in call for call in checkout.calls("-m pip"))
    assert checkout.calls("-m pip")[-2].endswith("install -c constraints.txt torch")
    assert checkout.calls("-m pip")[-1].endswith("-e .[serve]")
    again = checkout.make("env")
    assert (again.returncode, checkout.calls()) == (0, [])


def test_a_changed_requirement_installs_again_into_the_same_environment(checkout: Checkout) -> None:
    checkout.make("env")
    for name, torch_too in [("pyproject.toml", False), ("constraints.txt", True)]:
        checkout.touch(name)
        checkout.make("env")
        assert checkout.calls("-e .")
        assert bool(checkout.calls("constraints.txt torch")) is torch_too
        assert not checkout.calls("-m venv")
        for stamp in checkout.folder.glob(".venv/.*"):
            checkout.touch(str(stamp.relative_to(checkout.folder)))


def test_an_installation_that_failed_is_tried_again(checkout: Checkout) -> None:
    assert checkout.make("env", NO_NETWORK="1").returncode == 2
    assert checkout.make("chat", NO_NETWORK="1").returncode == 2
    assert not checkout.calls("-m nanochat")
    assert checkout.make("env").returncode == 0
    assert checkout.calls("-e .")


def test_chat_runs_the_preset(checkout: Checkout) -> None:
    assert checkout.make("chat", "PRESET=tiny").returncode == 0
    assert checkout.calls()[-1] == "-m nanochat run --preset tiny --chat"
    checkout.make("chat")
    assert checkout.calls() == ["-m nanochat run --preset laptop --chat"]


def test_tests_install_the_extras_and_chat_then_needs_nothing_more(checkout: Checkout) -> None:
    assert checkout.make("test").returncode == 0
    assert "-e .[data,dev,bench,harness]" in checkout.calls("-m pip")[-1]
    assert checkout.calls()[-1] == "-m pytest -m not slow"
    checkout.make("chat")
    assert not checkout.calls("-m pip")


@pytest.mark.parametrize("verb", ["check", "test", "test-slow"])
def test_a_verb_ends_in_pytest(checkout: Checkout, verb: str) -> None:
    assert checkout.make(verb).returncode == 0
    assert checkout.calls()[-1].startswith("-m pytest")


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"PYTHON": "python3-that-is-not-here"}, "sudo apt install python3 python3-venv"),
        ({"TOO_OLD": "1"}, "older than 3.11"),
        ({"NO_VENV": "1"}, "sudo apt install python3-venv"),
    ],
)
def test_an_unfit_python_is_one_line_with_a_remedy(checkout: Checkout, variables: dict[str, str], remedy: str) -> None:
    ended = checkout.make("env", **variables)
    said = [line for line in ended.stderr.splitlines() if not line.startswith("make: ")]
    assert ended.returncode == 2
    assert len(said) == 1
    assert remedy in said[0]
    assert not (checkout.folder / ".venv").exists()


def test_an_index_for_torch_is_for_torch_alone(checkout: Checkout) -> None:
    checkout.make("env", "TORCH_INDEX=ADDRESS")
    (call,) = checkout.calls("ADDRESS")
    assert call.endswith("install -c constraints.txt --index-url ADDRESS --no-deps torch")
    assert checkout.calls("-e .")


@pytest.mark.skipif(sys.platform != "linux" or HAS_NVIDIA, reason="only Linux without an NVIDIA card is told")
@pytest.mark.parametrize(
    ("requires", "told"), [("nvidia-cudnn-cu13==9", True), ("cuda-toolkit[cudart]", True), ("sympy", False)]
)
def test_cuda_libraries_do_not_come_unannounced(checkout: Checkout, requires: str, told: bool) -> None:
    ended = checkout.make("env", REQUIRES=json.dumps({"requires_dist": ["jinja2", requires]}, indent=2))
    assert ended.returncode == 0
    assert ("make env TORCH_INDEX=" in ended.stdout) is told


def test_clean_keeps_what_is_not_made_here(checkout: Checkout) -> None:
    for folder in ("nanochat", "tests/__pycache__"):
        (checkout.folder / folder).mkdir(parents=True)
    checkout.make("env")
    assert checkout.make("clean").returncode == 0
    left = {path.name for path in checkout.folder.iterdir()}
    assert left == {"Makefile", "constraints.txt", "pyproject.toml", "python3", "log", "nanochat", "tests"}
    assert not (checkout.folder / "tests/__pycache__").exists()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    assert all(found), "a line of constraints.txt is no NAME==VERSION"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def test_what_is_required_is_pinned_within_its_range() -> None:
    pinned = pins()
    extras = [line for name in ("data", "serve", "dev", "harness") for line in EXTRAS[name] if "nanochat[" not in line]
    for line in PROJECT["dependencies"] + extras + ["pip", "setuptools>=77", "wheel"]:
        requirement = Requirement(line)
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert f"## {nanochat.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def distributions(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def outside_imports(source: str) -> Iterator[tuple[str, bool, int]]:
    """(package, whether the import runs when the module is imported, line) for what is not of the standard library."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_once, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield child.module or "", at_once, child.lineno
            else:
                typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only
                yield from walk(child, at_once and not later)

    for name, at_once, line in walk(ast.parse(source), True):
        package = name.split(".")[0]
        if package not in sys.stdlib_module_names | {"nanochat"}:
            yield package, at_once, line


# The server's files, which only `nanochat serve` imports: they need the extra of that name from their first line on.
WEB = {"api", "app", "flight", "guard", "jobs", "meters", "models", "server", "stream", "xray"}


def test_what_is_imported_is_required() -> None:
    """At once only what every installation has; what comes with an extra, when it is needed."""
    always = distributions(PROJECT["dependencies"])
    serving = always | distributions(EXTRAS["serve"])
    sometimes = always | distributions([line for extra in EXTRAS.values() for line in extra])
    provided_by = importlib.metadata.packages_distributions()
    wrong = []
    for path in sorted((ROOT / "nanochat").rglob("*.py")):
        first = serving if path.parent.name == "serve" and path.stem in WEB else always
        for package, at_once, line in outside_imports(path.read_text(encoding="utf-8")):
            names = {canonicalize_name(name) for name in provided_by.get(package, [package])}
            if not names & (first if at_once else sometimes):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {package}")
    assert wrong == []


def test_imports_are_told_apart() -> None:
    source = "import os\nimport torch.nn\nfrom rich.table import Table\ndef late():\n    import pyarrow\n"
    typing_only = "if TYPE_CHECKING:\n    import tokenizers\ntry:\n    import regex\nexcept ImportError:\n    pass\n"
    assert [(package, at_once) for package, at_once, _ in outside_imports(source + typing_only)] == [
        ("torch", True),
        ("rich", True),
        ("pyarrow", False),
        ("tokenizers", False),
        ("regex", True),
    ]


# Where packages come from is up to whoever installs; and a path of one machine is wrong on every other.
ADDRESSES = re.compile(r"(index-url|find-links|TORCH_INDEX|PIP_\w+)[ =]+[\"']?(https?|file)://[\w/]")
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/(work|farm|opt|root|tmp)/[a-z.]")


def test_no_file_names_a_package_index_or_a_path_of_one_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "pyproject.toml" in names
    wrong = []
    for name in names:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".sh", ""} and path.is_file() and name != "LOG.md":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if ADDRESSES.search(line) or (MACHINE_PATHS.search(line) and "tmp_path" not in line):
                    wrong.append(f"{name}:{number}: {line.strip()[:80]}")
    assert wrong == []


def test_an_address_and_a_machine_path_are_found() -> None:
    slash = "/"
    assert ADDRESSES.search(f"pip install --index-url https:{slash}/index.example/simple x")
    assert ADDRESSES.search(f"export PIP_FIND_LINKS=file:{slash}//wheels")
    assert not ADDRESSES.search("make env TORCH_INDEX=ADDRESS")
    assert MACHINE_PATHS.search(f"see {slash}tmp/notes.txt")
    assert not MACHINE_PATHS.search("folder/tmp/notes.txt")
