"""Layer by layer: where features fire in a text, which features fire at the decision, and how much
the decision attends to a span and features fire in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.features.addresses import layer_of, prefixes
from toolkit.work import Figure, Inputs

from .drawings import bands, lines

if TYPE_CHECKING:
    import pyarrow as pa

_SPANS = {
    "attention_share": ("Share of the decision's attention by layer", "share"),
    "activation": ("Activation of spans by layer", "activation"),
}


def layers_of_sample(inputs: Inputs, sample: Mapping[str, Any]) -> Iterator[Figure]:
    """The layers of one text, if features of several were kept: by token, and at the decision."""
    rows = _rows_by_layer(inputs, str(sample["sample"]))
    if len(rows) > 1:
        yield from _by_token(sample, rows)
        names = prefixes(inputs.read("spaces").to_pylist())
        yield from _at_decision(sample, rows, names)


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


def _at_decision(
    sample: Mapping[str, Any], rows: Mapping[int, pa.Table], names: Mapping[str, str]
) -> Iterator[Figure]:
    """The strongest feature of each layer: a feature belongs to its layer's SAE, so none is
    followed to another layer.
    """
    strongest = list(_strongest(rows, len(sample["token_ids"]) - 1, names))
    if not strongest:
        return
    title = f"Strongest feature of each layer at the decision: {sample['sample']}"
    points = [(float(row["layer"]), row["activation"]) for row in strongest]
    heads = ("layer", "feature", "activation")
    cells = [
        (str(row["layer"]), draw.escaped(row["feature"]), f"{row['activation']:.3g}")
        for row in strongest
    ]
    yield Figure(
        title,
        lines({"strongest feature of the layer": points}, "layer", "activation")
        + draw.table(title, heads, cells),
        "At each layer, the feature of its SAE that fires most strongly at the decision, with its "
        "address and its activation.",
        strongest,
    )


def _strongest(
    rows: Mapping[int, pa.Table], last: int, names: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Of each layer where a feature fires at the last token: the strongest one."""
    import pyarrow.compute as pc

    for layer, table in rows.items():
        fired = [
            (float(value), feature, row["space"])
            for row in table.filter(pc.equal(table["position"], last)).to_pylist()
            for feature, value in zip(row["features"], row["values"], strict=True)
        ]
        if fired:
            value, feature, space = max(fired)
            yield {"layer": layer, "feature": f"{names[space]}{feature}", "activation": value}


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
