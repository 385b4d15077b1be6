"""What no file may do, read off the syntax tree: run text as code, unpickle, use a shell; and what each must have."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("nanochat", "tests") for path in (ROOT / folder).rglob("*.py"))
CORE = [path for path in FILES if path.is_relative_to(ROOT / "nanochat")]
TESTS = [path for path in FILES if path.name.startswith("test_")]

# Builtins that turn text into code, and modules whose files can hold code.
RUNNERS = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
PICKLERS = {"torch.save", "torch.load", "torch.hub.load", "torch.serialization.save", "torch.serialization.load"}
FORBIDDEN = SHELLS | PICKLERS | {f"builtins.{name}" for name in RUNNERS}


def dotted(node: ast.expr) -> str:
    """`torch.save` for the expression torch.save; empty for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (front := dotted(node.value)):
        return f"{front}.{node.attr}"
    return ""


def other_names(tree: ast.Module) -> dict[str, str]:
    """Name in this file -> what it stands for: `import torch as t` gives t -> torch."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dangers(source: str) -> Iterator[str]:
    """What in `source` runs text as code, reads or writes pickles, or hands text to a shell."""
    tree = ast.parse(source)
    names = other_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        else:
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"{node.lineno}: imports {name}" for name in imported if name.split(".")[0] in UNSAFE_MODULES)
        if isinstance(node, ast.Name | ast.Attribute) and (name := dotted(node)):
            first, dot, rest = name.partition(".")
            full = names.get(first, first) + dot + rest
            if full in FORBIDDEN:  # not only calls: `save = torch.save` is a call in the making
                yield f"{node.lineno}: {full}"
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in RUNNERS and name not in names:
                yield f"{node.lineno}: {name}()"
            yield from (f"{node.lineno}: {name}({word}=)" for word in ("shell", "allow_pickle") if on(node, word))


def on(call: ast.Call, word: str) -> bool:
    """Whether `call` gives the argument `word` anything but a plain False."""
    given = [k.value for k in call.keywords if k.arg == word]
    return any(not (isinstance(value, ast.Constant) and not value.value) for value in given)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_becomes_code(path: Path) -> None:
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1 + 1')",
        "def late():\n    exec(text)",
        "compile(text, 'x', 'exec')",
        "__import__(name)",
        "import builtins\nbuiltins.eval(text)",
        "from builtins import eval as innocent\ninnocent(text)",
        "import pickle",
        "from pickle import loads",
        "import marshal",
        "import torch\ntorch.save(x, 'x.pt')",
        "import torch as t\nt.load('x.pt')",
        "from torch import load as read\nread('x.pt')",
        "import torch\nsave = torch.save",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=maybe)",
        "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
    ],
)
def test_each_danger_is_found(source: str) -> None:
    assert len(list(dangers(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('x')",
        "import torch\ntorch.compile(model)",
        "from re import compile\ncompile('x')",
        "import numpy as np\nnp.load('x.npy', allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "from safetensors.torch import load_file\nload_file('x')",
        "text = 'never eval(this) or torch.load(that)'",
    ],
)
def test_what_only_looks_dangerous_passes(source: str) -> None:
    assert list(dangers(source)) == []


# Modules that reach other programs or other machines, and the files that may. Only pip and the Hugging Face hub are
# asked for anything, only when a source is fetched; runtime.py asks git for the commit.
REACHING = {"asyncio", "ftplib", "http", "httpx", "huggingface_hub", "requests", "smtplib", "socket", "socketserver"}
REACHING |= {"ssl", "subprocess", "urllib", "urllib3", "webbrowser", "xmlrpc"}
MAY_REACH = {
    "nanochat/data/sources.py": {"huggingface_hub", "subprocess"},
    "nanochat/native.py": {"subprocess"},  # compilers of C and C++
    "nanochat/runtime.py": {"subprocess"},
    # The server: it waits for others, and asks nobody.
    **{f"nanochat/serve/{name}.py": {"asyncio"} for name in ("api", "flight", "guard", "models", "stream")},
    "nanochat/serve/server.py": {"asyncio", "socket", "webbrowser"},
    "nanochat/cli.py": {"subprocess"},  # `run --serve` starts `serve`
}


def reached(source: str) -> set[str]:
    """The modules of `REACHING` that `source` imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names & REACHING


def test_nothing_leaves_this_machine_but_what_fetches_a_source() -> None:
    found = {path.relative_to(ROOT).as_posix(): reached(path.read_text(encoding="utf-8")) for path in CORE}
    assert {name: modules for name, modules in found.items() if modules} == MAY_REACH
    assert reached("def late():\n    from urllib.request import urlopen\nimport http.client") == {"urllib", "http"}


def undocumented(source: str) -> Iterator[str]:
    """Public functions and classes at the top level without a docstring, and the module if it has none.

    An empty file needs none. An error class may be described where the tree of errors is drawn: in the docstring of
    its module.
    """
    tree = ast.parse(source)
    about = ast.get_docstring(tree) or ""
    if tree.body and not about:
        yield "the module"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        in_tree = isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name in about
        if not ast.get_docstring(node) and not in_tree:
            yield node.name


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_public_has_a_docstring(path: Path) -> None:
    assert list(undocumented(path.read_text(encoding="utf-8"))) == []


def test_a_missing_docstring_is_found() -> None:
    assert list(undocumented("")) == []
    assert list(undocumented("x = 1")) == ["the module"]
    assert list(undocumented("'About this.'\ndef _private(): ...")) == []
    assert list(undocumented("'About this.'\ndef public(): ...\nclass Thing: ...")) == ["public", "Thing"]
    assert list(undocumented("'DataError: bad data'\nclass DataError(Exception): ...")) == []
    assert list(undocumented("'About this.'\nclass DataError(Exception): ...")) == ["DataError"]


def test_every_folder_of_the_package_is_a_package() -> None:
    assert [str(path.parent) for path in CORE if not (path.parent / "__init__.py").exists()] == []


def empty_tests(source: str) -> Iterator[str]:
    """Tests in `source` that check nothing: neither they nor a function of the file that they call can fail."""
    tree = ast.parse(source)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    def checks(function: ast.AST, seen: frozenset[str] = frozenset()) -> bool:
        for node in ast.walk(function):
            if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
                return True
            if isinstance(node, ast.Call) and can_fail(node, checks, functions, seen):
                return True
        return False

    yield from (name for name, node in functions.items() if name.startswith("test") and not checks(node))


def can_fail(node: ast.Call, checks: Callable[..., bool], functions: dict[str, ast.AST], seen: frozenset[str]) -> bool:
    name = dotted(node.func).rpartition(".")[2]
    if name in {"raises", "warns", "fail"} or name.startswith("assert"):
        return True
    return name in functions and name not in seen and checks(functions[name], seen | {name})


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_checks_something(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert "def test_" in source
    assert list(empty_tests(source)) == []


def test_a_test_that_checks_nothing_is_found() -> None:
    assert list(empty_tests("def test_a(): run()")) == ["test_a"]
    assert list(empty_tests("def test_a(): assert True")) == ["test_a"]
    assert list(empty_tests("def test_a(): helper()\ndef helper(): helper()")) == ["test_a"]
    assert list(empty_tests("def test_a(): assert run()")) == []
    assert list(empty_tests("def test_a(): helper()\ndef helper():\n    assert run()")) == []
    assert list(empty_tests("def test_a():\n    with pytest.raises(ValueError):\n        run()")) == []
    assert list(empty_tests("def test_a(): torch.testing.assert_close(a, b)")) == []
