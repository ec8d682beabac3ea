"""Layer by layer: where features fire in a text, which features fire at the decision, and how much
the decision attends to a span and features fire in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.features.addresses import layer_of
from toolkit.work import Figure, Inputs

from .drawings import bands, lines

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 5
"""Layers whose strongest feature is followed through the others."""
_SPANS = {
    "attention_share": ("Share of the decision's attention by layer", "share"),
    "activation": ("Activation of spans by layer", "activation"),
}


def layers_of_sample(inputs: Inputs, sample: Mapping[str, Any]) -> Iterator[Figure]:
    """The layers of one text, if features of several were kept: by token, and at the decision."""
    rows = _rows_by_layer(inputs, str(sample["sample"]))
    if len(rows) > 1:
        yield from _by_token(sample, rows)
        yield from _at_decision(sample, rows)


def _rows_by_layer(inputs: Inputs, sample: str) -> dict[int, pa.Table]:
    """By layer, the rows of the text. Of several SAEs of a layer, those of the first."""
    import pyarrow.compute as pc

    table = inputs.read("activations")
    table = table.filter(pc.equal(table["sample"], sample))
    kept = set(pc.unique(table["space"]).to_pylist())
    layers: dict[int, str] = {}
    for row in sorted(inputs.read("spaces").to_pylist(), key=lambda row: str(row["space"])):
        layer = layer_of(row)
        if layer is not None and row["space"] in kept:
            layers.setdefault(layer, row["space"])
    return {
        layer: table.filter(pc.equal(table["space"], layers[layer])) for layer in sorted(layers)
    }


def _by_token(sample: Mapping[str, Any], rows: Mapping[int, pa.Table]) -> Iterator[Figure]:
    shares: dict[int, dict[int, float]] = {}
    for layer, table in rows.items():
        sums = {
            row["position"]: float(sum(row["values"]))
            for row in table.select(["position", "values"]).to_pylist()
        }
        total = sum(sums.values())
        shares[layer] = {position: value / total for position, value in sums.items() if value}
    if max(len(cells) for cells in shares.values()) < 2:
        return
    yield Figure(
        f"Features by layer and token: {sample['sample']}",
        bands(shares, sample["pieces"], sample["spans"]),
        "One band per layer: the share of the layer's activations at each token; darker is more.",
        [
            {"layer": layer, "position": position, "share": share}
            for layer, cells in shares.items()
            for position, share in sorted(cells.items())
        ],
    )


def _at_decision(sample: Mapping[str, Any], rows: Mapping[int, pa.Table]) -> Iterator[Figure]:
    """The strongest feature of some layers, and the activation of its index at every layer."""
    import pyarrow.compute as pc

    last = len(sample["token_ids"]) - 1
    values: dict[int, dict[int, float]] = {}
    for layer, table in rows.items():
        at_last = table.filter(pc.equal(table["position"], last)).to_pylist()
        values[layer] = {
            feature: float(value)
            for row in at_last
            for feature, value in zip(row["features"], row["values"], strict=True)
        }
    firing = [layer for layer in values if values[layer]]
    largest = {
        layer: max(values[layer], key=values[layer].__getitem__) for layer in _spread(firing)
    }
    series = {
        f"{layer}/{feature}": [(float(other), values[other].get(feature, 0.0)) for other in values]
        for layer, feature in largest.items()
    }
    if not series:
        return
    yield Figure(
        f"Features across layers at the decision: {sample['sample']}",
        lines(series, "layer (the same number elsewhere is another feature)", "activation"),
        f"The strongest feature of each of {len(series)} layers, by its address, and what the "
        "feature of the same number does at the other layers, where it is another feature.",
        _data(series, "feature", "activation"),
    )


def _spread(layers: Sequence[int]) -> list[int]:
    """At most `SHOWN` of the layers, evenly spread, the first and the last among them."""
    if len(layers) <= SHOWN:
        return list(layers)
    return [layers[round(number * (len(layers) - 1) / (SHOWN - 1))] for number in range(SHOWN)]


def layers_of_spans(rows: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Of each group: the decision's attention to spans, and their activation, by layer."""
    groups = sorted({row["group"] for row in rows if " - " not in row["group"]})
    for statistic, (title, name) in _SPANS.items():
        for group in groups:
            series: dict[str, list[tuple[float, float]]] = {}
            for row in sorted(rows, key=lambda row: row["layer"]):
                if (row["group"], row["statistic"]) == (group, statistic) and (
                    row["value"] is not None
                ):
                    series.setdefault(row["span"], []).append((row["layer"], row["value"]))
            if series:
                yield Figure(
                    f"{title}, group {group}",
                    lines(series, "layer", name),
                    "One line per span.",
                    _data(series, "span", name),
                )


def _data(
    series: Mapping[str, Sequence[tuple[float, float]]], line: str, value: str
) -> list[dict[str, Any]]:
    return [
        {line: name, "layer": x, value: y} for name, points in series.items() for x, y in points
    ]
