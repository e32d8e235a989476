"""Parameters of a node, and which changes of them it takes while it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

__all__ = ["Parameter", "Value", "why_refused"]

Value = bool | int | float | str


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter.

    Attributes:
        name, about: What it is called, and what it does.
        default: Also says the type.
        unit: Of a number; `1` for a pure one.
        low, high: Least and greatest of a number.
        live: May it change while the node runs: `fixed`, `free`, or, for a limit of safety, only `down` or only `up`.
    """

    name: str
    default: Value
    about: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    live: Literal["fixed", "free", "down", "up"] = "fixed"


def why_refused(parameters: Iterable[Parameter], old: Mapping[str, Value], new: Mapping[str, Value]) -> str:
    """Return why a change of parameters is refused, or an empty string.

    A limit of safety can be made tighter, and not wider again before the node is started anew.

    Args:
        parameters: The node's.
        old: What holds; empty at the start.
        new: What shall change.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name, value in new.items():
        if name not in known:
            return f"there is no parameter {name}"
        problem = _wrong(known[name], value) or (_moved(known[name], old[name], value) if name in old else "")
        if problem:
            return f"{name}: {problem}"
    return ""


def _wrong(parameter: Parameter, value: Value) -> str:
    """Return what is wrong with a value by itself."""
    kind = type(parameter.default)
    if type(value) is not kind and not (kind is float and type(value) is int):
        return f"{value!r} is no {kind.__name__}"
    if isinstance(value, str | bool):
        return ""
    if not math.isfinite(value):
        return f"{value} is not finite"
    if not parameter.low <= value <= parameter.high:
        return f"{value} is not within {parameter.low:g} to {parameter.high:g} {parameter.unit}"
    return ""


def _moved(parameter: Parameter, old: Value, value: Value) -> str:
    """Return why a value may not take another's place."""
    if value == old or parameter.live == "free":
        return ""
    if parameter.live == "fixed":
        return "it cannot change while the node runs: start it anew"
    assert not isinstance(old, str) and not isinstance(value, str)
    if (parameter.live == "down") == (value < old):
        return ""
    tighter = "lowered" if parameter.live == "down" else "raised"
    return f"a limit of safety can only be {tighter} while the node runs, it is {old}: start it anew"
