"""Command lines from dataclasses: the field is the flag, the text under it its help. And JSON in and out."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tyro

from nanochat.errors import UsageError

Config = TypeVar("Config")


def parse(
    cls: type[Config], argv: Sequence[str], *, prog: str, presets: Mapping[str, Mapping[str, Any]] | None = None
) -> Config:
    """Build a frozen `cls` from `--field value` flags.

    A field `preset` fills the others from `presets[preset]`, and a flag given beside it wins. Help and usage errors
    are printed by tyro, which leaves with exit code 0 and 2.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}  # type: ignore[arg-type]
    if presets is not None:
        name = flag_value(argv, "preset") or str(defaults.get("preset", ""))
        if name not in presets:
            raise UsageError("a preset", repr(name), f"use --preset with one of: {', '.join(presets)}")
        defaults |= {"preset": name, **presets[name]}
    default = cls(**defaults)
    description = (cls.__doc__ or "").strip()
    config = tyro.cli(
        cls, args=list(argv), prog=prog, description=description, default=default, config=(tyro.conf.AvoidSubcommands,)
    )
    check_numbers(config)
    return config


def check_numbers(config: Any) -> None:
    """Raises UsageError for a number below 0, or below 1 where the class lists the field in `AT_LEAST_ONE`."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        least = 1 if field.name in getattr(config, "AT_LEAST_ONE", ()) else 0
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not value >= least:
            raise UsageError(f"{least} or more for --{field.name.replace('_', '-')}", str(value))


def flag_value(argv: Sequence[str], name: str) -> str | None:
    """The value given to `--name` in `argv`, in either spelling (`--name v`, `--name=v`); None where it is absent."""
    for position, word in enumerate(argv):
        if word == f"--{name}" and position + 1 < len(argv):
            return argv[position + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and paths as what `json` can write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def from_json(cls: type[Config], data: Mapping[str, Any]) -> Config:
    """The `cls` that `to_json` wrote. Raises UsageError for a key that `cls` does not have."""
    fields = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(data) - fields):
        raise UsageError(f"fields of {cls.__name__}", ", ".join(unknown), "the file was written by another version")
    hints = typing.get_type_hints(cls)
    return cls(**{name: coerce(hints[name], value) for name, value in data.items()})


def coerce(hint: Any, value: Any) -> Any:
    """JSON has no tuples and no nested dataclasses: put them back where `hint` says so."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        present = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else coerce(present[0], value)
    if origin is tuple and isinstance(value, list):
        inner = typing.get_args(hint)[0]
        return tuple(coerce(inner, item) for item in value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_json(hint, value)
    return value


def dumps(value: Any) -> str:
    """`value` as indented JSON with a closing newline."""
    return json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n"
