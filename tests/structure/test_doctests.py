"""Every example in a docstring gives what it says."""

import doctest
import importlib
import pkgutil

import nanochat


def modules() -> list[str]:
    return [
        module.name for module in pkgutil.walk_packages(nanochat.__path__, "nanochat.") if "__main__" not in module.name
    ]


def test_examples_in_docstrings_are_true() -> None:
    attempted = 0
    for name in modules():
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, name
        attempted += result.attempted
    assert attempted > 20
