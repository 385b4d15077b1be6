"""Imports go down only. Read off the syntax tree, so that nothing is imported and no branch is missed.

A unit is what stands directly under `nanochat/`: a module, or a package with all that is in it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the ground up. A unit may import what lies on a lower floor.
FLOORS = [
    {"nanochat", "config", "errors", "files", "keyed", "runtime"},
    {"native"},
    {"fused"},
    {"attention", "optim", "sampling"},
    {"cluster", "gpt", "loss", "plan", "tokenizer"},
    {
        *("answer", "checkpoint", "decoder", "distributed", "engine", "fast", "scheduler", "sharded"),
        *("sharded_checkpoint", "speculation", "tools", "train"),
    },
    {"data", "tasks"},
    {"bench", "evaluate", "interop", "report", "rollout"},
    {"serve", "stages"},
    {"__main__", "cli"},
]
FLOOR_OF = {unit: number for number, units in enumerate(FLOORS) for unit in units}

# (importer, imported) on one floor. Together they must have no cycle, and each must be in use.
SIDEWAYS = {
    ("__main__", "cli"),
    ("answer", "tools"),
    ("checkpoint", "sharded"),
    ("checkpoint", "sharded_checkpoint"),
    ("checkpoint", "train"),
    ("cluster", "gpt"),
    ("cluster", "plan"),
    ("config", "errors"),
    ("decoder", "answer"),
    ("decoder", "engine"),
    ("distributed", "sharded"),
    ("distributed", "train"),
    ("engine", "answer"),
    ("engine", "tools"),
    ("fast", "answer"),
    ("fast", "decoder"),
    ("fast", "engine"),
    ("plan", "gpt"),
    ("report", "evaluate"),
    ("runtime", "errors"),
    ("runtime", "nanochat"),
    ("scheduler", "answer"),
    ("scheduler", "decoder"),
    ("scheduler", "engine"),
    ("scheduler", "fast"),
    ("scheduler", "speculation"),
    ("tasks", "data"),
}

Sources = dict[str, str]


def sources() -> Sources:
    """Module name -> source, for every file of the package; a package is named as its `__init__.py`."""
    files = sorted((ROOT / "nanochat").rglob("*.py"))
    assert files, "no sources under nanochat/"
    return {module_name(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """`nanochat.tokenizer.bpe` -> `tokenizer`; the package's own `__init__` -> `nanochat`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imported(source: str) -> Iterator[tuple[str, str, int]]:
    """(module, name, line) for every import in `source`, wherever it stands: at the top, in a function, under
    TYPE_CHECKING. The name is empty for a plain `import`; a relative import keeps its dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield "." * node.level + (node.module or ""), alias.name, node.lineno
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"} and node.args:
            first = node.args[0]
            known = isinstance(first, ast.Constant) and isinstance(first.value, str)
            yield first.value if known else "?", "", node.lineno


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def edges(modules: Sources) -> Iterator[tuple[str, str, int]]:
    """(importer, imported module, line) inside the package. `from package import module` leads to the module."""
    for importer, source in modules.items():
        for module, name, line in imported(source):
            target = f"{module}.{name}" if f"{module}.{name}" in modules else module
            if target.split(".")[0] == "nanochat":
                yield importer, target, line


def faults(modules: Sources, sideways: set[tuple[str, str]] = SIDEWAYS) -> list[str]:
    """What is wrong with the imports of `modules`, one line each."""
    found = [f"{module}: on no floor" for module in modules if unit(module) not in FLOOR_OF]
    for importer, source in modules.items():
        for module, _, line in imported(source):
            if module.startswith("."):
                found.append(f"{importer}:{line}: relative import")
            elif module == "?" and FLOOR_OF.get(unit(importer)) != len(FLOORS) - 1:
                found.append(f"{importer}:{line}: imports a module whose name is not written there")
            elif module.split(".")[0] in {"tests", "school", "educational"}:
                found.append(f"{importer}:{line}: {module} builds on the core, never the other way")
    graph: dict[str, set[str]] = {module: set() for module in modules}
    used = set()
    for importer, target, line in edges(modules):
        if target not in modules:
            found.append(f"{importer}:{line}: {target} does not exist")
            continue
        graph[importer].add(target)
        above, below = unit(importer), unit(target)
        if above == below or above not in FLOOR_OF or below not in FLOOR_OF:
            continue
        used.add((above, below))
        if FLOOR_OF[below] > FLOOR_OF[above]:
            found.append(f"{importer}:{line}: imports {target}, which is on a higher floor")
        elif FLOOR_OF[below] == FLOOR_OF[above] and (above, below) not in sideways:
            found.append(f"{importer}:{line}: imports {target} sideways, which is not listed")
    found += [f"{a} -> {b}: listed as sideways, but not in use" for a, b in sorted(sideways - used)]
    found += [f"import cycle: {' -> '.join(cycle)}" for cycle in [find_cycle(graph)] if cycle]
    return list(dict.fromkeys(found))  # once per line of imports, not once per name on it


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """The first cycle met, from a module back to itself; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for target in sorted(graph.get(node, ())):
                if cycle := visit(target, [*path, node]):
                    return cycle
        done.add(node)
        return []

    return next((cycle for node in sorted(graph) if (cycle := visit(node, []))), [])


def test_imports_of_the_package_go_down() -> None:
    assert faults(sources()) == []


def test_the_list_of_sideways_imports_is_acyclic() -> None:
    graph: dict[str, set[str]] = {}
    for importer, target in SIDEWAYS:
        assert FLOOR_OF[importer] == FLOOR_OF[target]
        graph.setdefault(importer, set()).add(target)
    assert find_cycle(graph) == []


def test_stages_and_serve_never_meet() -> None:
    assert not {("stages", "serve"), ("serve", "stages")} & SIDEWAYS
    assert not {("stages", "serve"), ("serve", "stages")} & {(unit(a), unit(b)) for a, b, _ in edges(sources())}


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("nanochat.gpt", "from nanochat.train import train", "higher floor"),
        ("nanochat.gpt", "import nanochat.train", "higher floor"),
        ("nanochat.gpt", "from nanochat import train", "higher floor"),
        ("nanochat.gpt", "def late():\n    from nanochat.train import train", "higher floor"),
        ("nanochat.gpt", "if TYPE_CHECKING:\n    from nanochat.train import Batch", "higher floor"),
        ("nanochat.gpt", "import importlib\nimportlib.import_module('nanochat.train')", "higher floor"),
        ("nanochat.gpt", "import importlib\nimportlib.import_module('nanochat.' + name)", "not written there"),
        ("nanochat.gpt", "from .errors import DataError", "relative import"),
        ("nanochat.gpt", "from nanochat.nowhere import x", "does not exist"),
        ("nanochat.gpt", "import school.clinic", "never the other way"),
        ("nanochat.gpt", "from nanochat.loss import weighted_nll", "not listed"),
        ("nanochat.stages.run", "from nanochat.serve.terminal import chat", "not listed"),
        ("nanochat.drawer", "", "on no floor"),
        ("nanochat.tokenizer.bpe", "from nanochat.tokenizer import chat", "import cycle"),
    ],
)
def test_each_kind_of_fault_is_found(module: str, source: str, complaint: str) -> None:
    names = ["errors", "train", "loss", "gpt", "serve.terminal", "tokenizer.chat", "stages", "stages.run"]
    clean = {f"nanochat.{name}": "" for name in names} | {
        "nanochat": "",
        "nanochat.tokenizer.chat": "from nanochat.tokenizer.bpe import Tokenizer",
        "nanochat.tokenizer.bpe": "from nanochat.errors import TokenizerError",
        "nanochat.tokenizer": "from nanochat.tokenizer.chat import render",
    }
    assert faults(clean, sideways=set()) == []
    found = faults(clean | {module: source}, sideways=set())
    assert len(found) == 1
    assert complaint in found[0]


def test_a_listed_sideways_import_must_be_in_use() -> None:
    modules = {"nanochat.gpt": "from nanochat.loss import weighted_nll", "nanochat.loss": ""}
    assert faults(modules, sideways={("gpt", "loss")}) == []
    assert "not in use" in faults(modules, sideways={("gpt", "loss"), ("loss", "plan")})[0]
