"""The sink `exp6_json`: `tokens.json`, in the format of the token study with the zeros left out.

    {"scenarios": [{"scenario": ..., "tokens": [...], "layers": {"L8": {
        "features": [{"2059": 1.25, ...}, ...],     one map per token: feature -> activation
        "attention": [[[...], ...], ...]            (heads, queries, keys up to the query)
    }}}]}

The study wrote every zero: 119 million numbers, 2.4 GB. A token whose features were not tracked
(BOS) has null. The file is written in pieces, with one layer of one sample in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.features.addresses import layer_of
from toolkit.parts import SinkParams

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import SinkWork

DIGITS = 4
"""Significant digits of an activation, and decimals of a weight, which float16 does not exceed."""


class Exp6Json(SinkParams):
    """Where the file goes."""


def write(work: SinkWork) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
    """`tokens.json`."""
    yield "tokens.json", _pieces(work)


def _pieces(work: SinkWork) -> Iterator[bytes]:
    available = work.inputs.tables()
    samples = work.inputs.read("samples").to_pylist()
    spaces = work.inputs.read("spaces").to_pylist() if "spaces" in available else []
    layers = {row["space"]: layer_of(row) for row in spaces}
    names = {space: f"L{layer}" for space, layer in layers.items()}
    if len(set(names.values())) < len(names):
        names = {row["space"]: f"L{layer_of(row)}:{row['sae']}" for row in spaces}
    tables = {
        name: work.inputs.read(name) for name in ("activations", "attention") if name in available
    }
    yield (
        b'{"format": "sparse", "n_scenarios": '
        + str(len(samples)).encode()
        + b', "spaces": '
        + _json_bytes({names[row["space"]]: row for row in spaces})
        + b', "scenarios": ['
    )
    for number, sample in enumerate(samples):
        yield b",\n" if number else b"\n"
        head = {
            "scenario": sample["sample"],
            "tokens": sample["pieces"],
            "token_ids": sample["token_ids"],
            "spans": sample["spans"],
        }
        yield _json_bytes(head)[:-1] + b', "layers": {'
        yield from _layers(sample, names, layers, tables)
        yield b"}}"
    yield b"\n]}\n"


def _layers(
    sample: Mapping[str, Any],
    names: Mapping[str, str],
    layers: Mapping[str, int | None],
    tables: Mapping[str, pa.Table],
) -> Iterator[bytes]:
    import pyarrow.compute as pc

    sample_tables = {
        name: table.filter(pc.equal(table["sample"], sample["sample"]))
        for name, table in tables.items()
    }
    by_name: dict[str, dict[str, bytes]] = {}
    if "activations" in sample_tables:
        for space, name in names.items():
            rows = sample_tables["activations"].filter(
                pc.equal(sample_tables["activations"]["space"], space)
            )
            if len(rows):
                features = _features(rows, len(sample["token_ids"]))
                by_name.setdefault(name, {})["features"] = _json_bytes(features)
    if "attention" in sample_tables:
        for layer in sorted(pc.unique(sample_tables["attention"]["layer"]).to_pylist()):
            rows = sample_tables["attention"].filter(
                pc.equal(sample_tables["attention"]["layer"], layer)
            )
            dumped = _json_bytes(_attention(rows))
            at_layer = [name for space, name in names.items() if layers[space] == layer]
            for name in at_layer or [f"L{layer}"]:
                by_name.setdefault(name, {})["attention"] = dumped
    for number, (name, parts) in enumerate(by_name.items()):
        inner = b", ".join(_json_bytes(key) + b": " + value for key, value in parts.items())
        yield (b", " if number else b"") + _json_bytes(name) + b": {" + inner + b"}"


def _features(rows: pa.Table, tokens: int) -> list[dict[str, float] | None]:
    by_position: list[dict[str, float] | None] = [None] * tokens
    for row in rows.to_pylist():
        by_position[row["position"]] = {
            str(feature): float(f"{value:.{DIGITS}g}")
            for feature, value in zip(row["features"], row["values"], strict=True)
        }
    return by_position


def _attention(rows: pa.Table) -> list[Any]:
    """By head and query, the weights up to the query; pairs of key and weight where only the
    largest were kept.
    """
    heads: dict[int, list[Any]] = {}
    ordered = rows.sort_by([("head", "ascending"), ("query", "ascending")])
    for row in ordered.select(["head", "keys", "weights"]).to_pylist():
        weights = [round(float(weight), DIGITS) for weight in row["weights"]]
        entries = (
            weights
            if row["keys"] is None
            else [list(pair) for pair in zip(row["keys"], weights, strict=True)]
        )
        heads.setdefault(row["head"], []).append(entries)
    return [heads[head] for head in sorted(heads)]


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
