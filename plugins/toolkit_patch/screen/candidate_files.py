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
"""The key of the JSON that holds the features of each layer."""


def read_addresses(path: str, folder: Any = None) -> tuple[str, ...]:
    """The addresses of all features in a file, each once, in file order. A relative path is
    relative to `folder`.
    """
    file = Path(folder or ".") / Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"file: there is no file {file}. Paths are relative to the spec")
    parse = _json_addresses if file.suffix.lower() == ".json" else _csv_addresses
    try:
        addresses = tuple(dict.fromkeys(parse(file)))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"file: {file} cannot be read: {error}") from None
    if not addresses:
        raise ValueError(f"file: {file} names no feature")
    return addresses


def _csv_addresses(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or []
        if "address" not in columns and not {"layer", "feature"} <= set(columns):
            raise ValueError(
                f"file: {file} has the columns {', '.join(columns) or '(none)'}; it needs "
                "`address`, or `layer` and `feature`"
            )
        for row in reader:
            address = row.get("address") or f"{row.get('layer')}/{row.get('feature')}"
            if "None" in address or address.startswith("/") or address.endswith("/"):
                raise ValueError(f"file: {file}:{reader.line_num} names no feature")
            yield address


def _json_addresses(file: Path) -> Iterator[str]:
    content = json.loads(file.read_text(encoding="utf-8"))
    layers = content.get(RESULTS) if isinstance(content, dict) else None
    if not isinstance(layers, dict):
        raise ValueError(
            f"file: {file} has no map `{RESULTS}` of layers, as the sink `exp1_json` writes it"
        )
    for layer, layer_facts in layers.items():
        yield from _layer_addresses(file, layer, layer_facts)


def _layer_addresses(file: Path, layer: str, layer_facts: Mapping[str, Any]) -> Iterator[str]:
    """Full addresses if the file names the space, else layer and index."""
    prefix = f"{layer_facts['address']}:" if layer_facts.get("address") else f"{layer}/"
    for number, row in enumerate(layer_facts.get("significant_features", [])):
        index = row.get("feature_idx") if isinstance(row, dict) else None
        if not isinstance(index, int) or index < 0:
            raise ValueError(
                f"file: {file}: {RESULTS}.{layer}.significant_features[{number}] has no feature_idx"
            )
        yield f"{prefix}{index}"
