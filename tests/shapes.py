"""The checker behind the shapes in signatures: every array hint is checked at each call, other hints are mypy's."""

import typing
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which now raises where an argument or what it returns is not of the shape and kind it says."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if holds_array(hint)}
    return beartype(function)


def holds_array(hint: Any) -> bool:
    """Whether a hint is, or has inside, one such as Float[Tensor, "B T"]."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(holds_array(part) for part in typing.get_args(hint))
