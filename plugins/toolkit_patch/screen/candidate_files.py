"""Features named in a file: a CSV, such as `toolkit query features --csv` writes, or the JSON of
the published study of layers 1 to 31, which the sink `exp1_json` writes too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = "layer_results"
"""The key of the JSON under which each layer has its features."""


def read_addresses(path: str, folder: Any = None) -> tuple[str, ...]:
    """Addresses of all features of a file, each once, in its order. A relative path is relative to
    `folder`.
    """
    file = Path(folder or ".") / Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"file: there is no file {file}. Paths are relative to the spec")
    read = _of_json if file.suffix.lower() == ".json" else _of_csv
    try:
        found = tuple(dict.fromkeys(read(file)))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"file: {file} cannot be read: {error}") from None
    if not found:
        raise ValueError(f"file: {file} names no feature")
    return found


def _of_csv(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        heads = reader.fieldnames or []
        if "address" not in heads and not {"layer", "feature"} <= set(heads):
            raise ValueError(
                f"file: {file} has the columns {', '.join(heads) or '(none)'}; it needs `address`, "
                "or `layer` and `feature`"
            )
        for row in reader:
            address = row.get("address") or f"{row.get('layer')}/{row.get('feature')}"
            if "None" in address or address.startswith("/") or address.endswith("/"):
                raise ValueError(f"file: {file}:{reader.line_num} names no feature")
            yield address


def _of_json(file: Path) -> Iterator[str]:
    content = json.loads(file.read_text(encoding="utf-8"))
    layers = content.get(RESULTS) if isinstance(content, dict) else None
    if not isinstance(layers, dict):
        raise ValueError(
            f"file: {file} has no map `{RESULTS}` of layers, as the sink `exp1_json` writes it"
        )
    for layer, facts in layers.items():
        yield from _of_layer(file, layer, facts)


def _of_layer(file: Path, layer: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """The full address where the file says which space it means, else layer and index."""
    prefix = f"{facts['address']}:" if facts.get("address") else f"{layer}/"
    for number, row in enumerate(facts.get("significant_features", [])):
        index = row.get("feature_idx") if isinstance(row, dict) else None
        if not isinstance(index, int) or index < 0:
            raise ValueError(
                f"file: {file}: {RESULTS}.{layer}.significant_features[{number}] has no feature_idx"
            )
        yield f"{prefix}{index}"
