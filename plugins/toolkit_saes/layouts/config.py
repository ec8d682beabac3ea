"""Reads values of an SAE's config with the type that the layout prescribes. A value of another type
is refused with file, key and allowed values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput, choices
from toolkit.hookpoints import hookpoint

MAX_SIZE = 1 << 32
"""An upper bound of inputs, features and active features."""


def shown(value: Any) -> str:
    """A value for a message, cut to 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def positive_integer(known: Mapping[str, Any], name: str, file: Path) -> int:
    """A positive whole number."""
    value = known.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < MAX_SIZE:
        raise BadInput(f"{file}: {name} is {shown(value)}; expected a whole number of at least 1.")
    return value


def positive(value: Any, name: str, file: Path) -> float:
    """A finite number above zero, also in float32."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-30 <= value <= 1e30:
        raise BadInput(f"{file}: {name} is {shown(value)}; expected a number above 0.")
    return float(value)


def number(value: Any, name: str, file: Path, *, least: float = -math.inf) -> float:
    """A finite number of at least `least`, also in float32."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not max(least, -1e30) <= value <= 1e30
    ):
        allowed = "one number" + ("" if least == -math.inf else f", {least:g} or more")
        raise BadInput(f"{file}: {name} is {shown(value)}; expected {allowed}.")
    return float(value)


def flag(known: Mapping[str, Any], name: str, file: Path, default: bool = False) -> bool:
    """True or false."""
    value = known.get(name, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadInput(f"{file}: {name} is {shown(value)}; expected true or false.")
    return value


def one_of(value: Any, name: str, allowed: Iterable[str], file: Path, adapter: str) -> str:
    """One of some words."""
    allowed = list(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise BadInput(f"{file}: {name} is {shown(value)}; `{adapter}` reads {choices(allowed)}.")
    return value


def mapping(known: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    """An object; an empty one where the key is missing or null."""
    value = known.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{file}: {name} is {shown(value)}; expected an object.")
    return value


def hookpoint_of(known: Mapping[str, Any], name: str, file: Path) -> str:
    """The hookpoint that a config names."""
    value = known.get(name)
    if not isinstance(value, str) or len(value) > 200:
        raise BadInput(f"{file}: {name} is {shown(value)}; expected the name of a hookpoint.")
    try:
        return str(hookpoint(value))
    except BadInput as error:
        raise BadInput(f"{file}: {name}: {error}") from None
