"""A study's list of Gemma Scope SAEs: a JSON list of `{"layer": 0, "average_l0": 105, "path":
"layer_0/width_16k/..."}`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import BadInput

_PATH = re.compile(r"(?:layer_(\d+)/)?width_(\w+)/average_l0_(\d+)(?:/params\.npz)?")
WIDTH = "16k"


class ListedSae(NamedTuple):
    """One SAE of the list."""

    layer: int
    width: str
    l0: int


def read_configurations(file: Path) -> list[ListedSae]:
    """The SAEs of a list in its order; a layer or L0 that contradicts its path, or one listed
    twice, is an error.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"saes.with.configurations: {file} cannot be read as JSON: {error}."
        ) from None
    if isinstance(content, dict):
        content = next((value for value in content.values() if isinstance(value, list)), None)
    if not isinstance(content, list) or not content:
        raise BadInput(
            f"saes.with.configurations: {file} holds no list of SAEs; expected "
            '[{"layer": 0, "average_l0": 105}, ...].'
        )
    entries = [_entry(file, number, listed) for number, listed in enumerate(content, 1)]
    twice = next((entry for index, entry in enumerate(entries) if entry in entries[:index]), None)
    if twice is not None:
        raise BadInput(
            f"saes.with.configurations: {file} lists layer {twice.layer}, width {twice.width}, L0 "
            f"{twice.l0} twice."
        )
    return entries


def _entry(file: Path, number: int, listed: Any) -> ListedSae:
    entry = listed if isinstance(listed, dict) else {"path": listed}
    path = _PATH.fullmatch(str(entry.get("path", "")))
    layer = _number(entry.get("layer", path and path[1]))
    l0 = _number(entry.get("average_l0", entry.get("l0", path and path[3])))
    if layer is None or l0 is None:
        raise BadInput(
            f"saes.with.configurations: entry {number} of {file} names no layer and average_l0: "
            f"{str(listed)[:80]}."
        )
    if path and (path[1] not in (None, str(layer)) or path[3] != str(l0)):
        raise BadInput(
            f"saes.with.configurations: entry {number} of {file} says layer {layer}, L0 {l0}, and "
            f"the path {path[0]}."
        )
    return ListedSae(
        layer, path[2] if path else str(entry.get("width", WIDTH)).removeprefix("width_"), l0
    )


def _number(value: Any) -> int | None:
    """A whole number, also when written 82.0 or "82"."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number >= 0 and number.is_integer() else None
