"""The report's figures of tokens: features by position, the text itself, attention back from the
decision, spans by layer, attributions as waterfalls, and traced paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit import figures as draw
from toolkit.features.addresses import layer_of, short
from toolkit.work import Figure, Finding, Inputs

from .attributions import attribution_figures, completeness_findings
from .drawings import bands, heatmap, highlighted, shown_number
from .layers import layers_of_sample, layers_of_spans
from .strongest import game_finding, part_findings, token_finding
from .timelines import last_space, timelines

SHOWN_FEATURES, SHOWN_DIFFERENCES = 16, 12
_STATISTICS = {"attention_share": "share of attention", "activation": "activation"}
ALL = "*"


def figures(inputs: Inputs) -> Iterator[Figure]:
    """The figures that the tables of this run allow."""
    available = set(inputs.tables())
    sample = _first_sample(inputs, available)
    if sample is not None and {"activations", "spaces", "span_contrasts"} <= available:
        yield from _features(inputs, sample)
        yield from layers_of_sample(inputs, sample)
        yield from timelines(inputs)
    if sample is not None and "attention" in available:
        yield from _attention(inputs, sample)
    if "span_contrasts" in available:
        yield from _spans(inputs)
    if {"attributions", "attribution_checks"} <= available:
        yield from attribution_figures(inputs)
    if "paths" in available:
        yield from _paths(inputs)


def _first_sample(inputs: Inputs, available: set[str]) -> Mapping[str, Any] | None:
    """The sample that is drawn: the first with attention, or else with activations."""
    if "samples" not in available:
        return None
    rows = {row["sample"]: row for row in inputs.read("samples").to_pylist()}
    for table in ("attention", "activations"):
        if table in available:
            named = next(iter(inputs.read(table).slice(0, 1)["sample"].to_pylist()), None)
            if named in rows:
                return dict(rows[named])
    return None


# --- tracking -------------------------------------------------------------------------------------


def _features(inputs: Inputs, sample: Mapping[str, Any]) -> Iterator[Figure]:
    """For the last layer: the strongest features by position, and the text shaded by them."""
    import pyarrow.compute as pc

    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    chosen = last_space(spaces)
    table = inputs.read("activations")
    mask = pc.and_(pc.equal(table["sample"], sample["sample"]), pc.equal(table["space"], chosen))
    rows = table.filter(mask).to_pylist()
    cells: dict[tuple[int, int], float] = {}
    for row in rows:
        for feature, value in zip(row["features"], row["values"], strict=True):
            cells[feature, row["position"]] = float(value)
    peaks: dict[int, float] = {}
    for (feature, _), value in cells.items():
        peaks[feature] = max(peaks.get(feature, 0.0), value)
    top = sorted(peaks, key=lambda feature: -peaks[feature])[:SHOWN_FEATURES]
    if not top:
        return
    names = [short(spaces[chosen], feature) for feature in top]
    grid = [
        {
            position: value
            for (feature, position), value in cells.items()
            if feature == shown_feature
        }
        for shown_feature in top
    ]
    title = f"Features by position: {sample['sample']}, layer {layer_of(spaces[chosen])}"
    alt = f"The {len(top)} strongest features of the layer at each of its tokens."
    data = [
        {"feature": name, "position": position, "value": value}
        for name, values in zip(names, grid, strict=True)
        for position, value in values.items()
    ]
    yield Figure(title, heatmap(names, grid, sample["pieces"]), alt, data)
    sums: dict[int, float] = {}
    for (_, position), value in cells.items():
        sums[position] = sums.get(position, 0.0) + value
    yield Figure(
        f"Sum of activations on the text: {sample['sample']}",
        highlighted(sample["text"], sample["pieces"], sums),
        "The text, each token shaded by the sum of its activations.",
    )


def _attention(inputs: Inputs, sample: Mapping[str, Any]) -> Iterator[Figure]:
    """From the last token back to all others, one band per layer, averaged over heads."""
    last_position = len(sample["token_ids"]) - 1
    layers: dict[int, list[dict[int, float]]] = {}
    table = inputs.read("attention")
    import pyarrow.compute as pc

    mask = pc.and_(
        pc.equal(table["sample"], sample["sample"]), pc.equal(table["query"], last_position)
    )
    for row in table.filter(mask).to_pylist():
        keys = range(len(row["weights"])) if row["keys"] is None else row["keys"]
        weights = {key: float(value) for key, value in zip(keys, row["weights"], strict=True)}
        layers.setdefault(row["layer"], []).append(weights)
    if not layers:
        return
    means = {
        layer: {
            key: sum(weights.get(key, 0.0) for weights in heads) / len(heads)
            for key in {key for weights in heads for key in weights}
        }
        for layer, heads in sorted(layers.items())
    }
    yield Figure(
        f"Attention from the decision back to the tokens: {sample['sample']}",
        bands(means, sample["pieces"], sample["spans"]),
        "One band per layer, averaged over heads; darker is more attention.",
        [
            {"layer": layer, "position": position, "weight": weight}
            for layer, weights in means.items()
            for position, weight in sorted(weights.items())
        ],
    )


def _spans(inputs: Inputs) -> Iterator[Figure]:
    """Spans from layer to layer, and the largest differences between groups."""
    rows = inputs.read("span_contrasts").to_pylist()
    yield from layers_of_spans(rows)
    differences = [row for row in rows if " - " in row["group"]]
    for statistic in sorted({row["statistic"] for row in differences}):
        yield _differences(statistic, [row for row in differences if row["statistic"] == statistic])


def _differences(statistic: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The largest differences between two groups, of one statistic."""
    shown = sorted(rows, key=lambda row: -abs(row["value"] or 0.0))[:SHOWN_DIFFERENCES]
    cells = [
        [
            draw.escaped(row["span"]),
            str(row["layer"]),
            shown_number(row["value"]),
            f"{shown_number(row['low'])} to {shown_number(row['high'])}",
            "withheld" if row["q"] is None else draw.small(row["q"]),
            str(row["units"]),
        ]
        for row in shown
    ]
    title = f"Differences of spans, {_STATISTICS.get(statistic, statistic)}: {rows[0]['group']}"
    note = (
        f"The {len(shown)} largest of {len(rows)}, with 95 % intervals by unit; q over all of "
        "them. A p is withheld where a group is small."
    )
    heads = ("span", "layer", "difference", "interval", "q", "units")
    return Figure(title, draw.table(note, heads, cells), note)


# --- paths ----------------------------------------------------------------------------------------


def _paths(inputs: Inputs) -> Iterator[Figure]:
    rows = [row for row in inputs.read("paths").to_pylist() if row["sample"] == ALL]
    for path in dict.fromkeys(row["path"] for row in rows):
        cells = [
            [
                draw.escaped(f"{row['upper']} from {row['lower']}"),
                shown_number(row["strength"]),
                shown_number(row["effect"]),
                f"{shown_number(row['low'])} to {shown_number(row['high'])}",
                "withheld" if row["q"] is None else draw.small(row["q"]),
                draw.escaped(row["verdict"]),
            ]
            for row in sorted(rows, key=lambda row: row["hop"])
            if row["path"] == path
        ]
        heads = ("hop", "strength by gradient", "effect by intervention", "95 % interval", "q")
        title = f"Path: {path}"
        yield Figure(title, draw.table(title, (*heads, "verdict"), cells, words=True), title)


def findings(inputs: Inputs) -> Iterator[Finding]:
    """Paths first, then the parts with the largest effects and how well attributions add up, then
    the strongest features and the largest difference of a span.
    """
    available = set(inputs.tables())
    if "paths" in available:
        for row in inputs.read("paths").to_pylist():
            if row["sample"] == ALL:
                yield _hop_finding(row)
    if "attributions" in available:
        yield from part_findings(inputs)
    if "attribution_checks" in available:
        yield from completeness_findings(inputs.read("attribution_checks").to_pylist())
    if {"samples", "activations", "spaces", "span_contrasts"} <= available:
        yield from game_finding(inputs)
        yield from token_finding(inputs)
    if "span_contrasts" in available:
        yield from _span_findings(inputs.read("span_contrasts").to_pylist())


def _hop_finding(row: Mapping[str, Any]) -> Finding:
    sentence = f"Hop {row['hop'] + 1} of {row['path']}: {row['verdict']}"
    if row["effect"] is not None and row["strength"] is not None:
        sentence += f" (strength {row['strength']:+.3g}, intervention {row['effect']:+.3g})"
    interval = None if row["low"] is None else (row["low"], row["high"])
    return Finding(
        sentence=f"{sentence}.", number=row["effect"], interval=interval, n=row["units"], rank=20
    )


def _span_findings(rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    tested = [
        row for row in rows if " - " in row["group"] and row["statistic"] == "attention_share"
    ]
    if not tested:
        return
    row = max(tested, key=lambda row: abs(row["value"] or 0.0))
    withheld = "" if row["q"] is not None else "; p is withheld, since a group is small"
    yield Finding(
        sentence=(
            f"The decision's attention to {row['span']} differs most at layer {row['layer']}: "
            f"{row['group']} is {row['value']:+.3f}{withheld}."
        ),
        number=row["value"],
        interval=None if row["low"] is None else (row["low"], row["high"]),
        n=row["units"],
        rank=40,
    )
