"""The charts that `charts.py` measures: the same data drawn by us and, as a specification, by
Vega-Lite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toolkit._view import charts
from toolkit.features.comparisons import ComparedGroup, Comparison
from toolkit.work import Figure
from toolkit_stats.compare.contrasts import ContrastTable, Space
from toolkit_stats.figures.heatmap import CELLS, layer_heatmap

LAYERS = 31
ALPHA = 0.05


class Chart(NamedTuple):
    """One chart drawn by us, and the specification of the same for Vega-Lite."""

    ours: Callable[[], str]
    vega: Mapping[str, Any]


def made_charts(points: int, values: int) -> dict[str, Chart]:
    """The three charts."""
    rng = np.random.default_rng(0)
    return {
        "volcano": volcano(rng, points),
        "histogram": histogram(rng, values),
        "heatmap": heatmap(rng),
    }


def volcano(rng: np.random.Generator, count: int) -> Chart:
    """Features by their effect and corrected p-value, with a brush."""
    effects = rng.normal(scale=0.5, size=count)
    q = 10.0 ** -np.abs(effects * 12 * rng.uniform(0.5, 1.5, count))
    points = [
        charts.VolcanoPoint(f"{index % LAYERS}/{index}", float(effect), float(value), value < ALPHA)
        for index, (effect, value) in enumerate(zip(effects, q, strict=True))
    ]
    rows = [
        {
            "address": point.label,
            "d": round(point.effect, 3),
            "q": float(f"{point.q:.3g}"),
            "kind": "rest" if not point.significant else "more" if point.effect > 0 else "less",
        }
        for point in points
    ]
    shown = {"field": "kind", "type": "nominal", "legend": None}
    marks = {
        "mark": {"type": "circle", "size": 32},
        "params": [{"name": "brush", "select": "interval"}],
        "encoding": {
            "x": {"field": "d", "type": "quantitative"},
            "y": {"field": "height", "type": "quantitative", "title": "-log10 q"},
            "color": {"condition": {"param": "brush", **shown}, "value": "lightgray"},
            "tooltip": [{"field": name} for name in ("address", "d", "q")],
        },
    }
    level = {
        "data": {"values": [{"alpha": -math.log10(ALPHA)}]},
        "mark": {"type": "rule", "strokeDash": [4, 4]},
        "encoding": {"y": {"field": "alpha", "type": "quantitative"}},
    }
    heights = [{"calculate": "-log(datum.q) / LN10", "as": "height"}]
    layers = {"transform": heights, "layer": [marks, level]}
    return Chart(
        lambda: f'<div id="volcano">{charts.volcano(points, ALPHA, "d").html}</div>',
        specification(rows, layers),
    )


def histogram(rng: np.random.Generator, count: int) -> Chart:
    """Values in bins, which the server counts in both ways."""
    values = rng.gamma(2.0, 1.5, count)
    counts, edges = np.histogram(values, charts.BINS, (0.0, float(values.max())))
    rows = [
        {"start": float(start), "end": float(end), "tokens": int(number)}
        for start, end, number in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    bars = {
        "mark": "bar",
        "encoding": {
            "x": {"field": "start", "type": "quantitative", "bin": "binned"},
            "x2": {"field": "end"},
            "y": {"field": "tokens", "type": "quantitative"},
            "tooltip": [{"field": name} for name in ("start", "end", "tokens")],
        },
    }
    title = "How strongly 3/65 fires"
    return Chart(lambda: charts.histogram(values, title).html, specification(rows, bars))


def heatmap(rng: np.random.Generator) -> Chart:
    """The strongest features of each layer, coloured by effect."""
    size = LAYERS * CELLS
    effects = rng.normal(scale=0.5, size=size)
    q = 10.0 ** -np.abs(effects * 12)
    flags = q < ALPHA
    contrast = ContrastTable(
        comparison=compared(),
        name="lost vs won",
        a="lost",
        b="won",
        spaces=[Space(f"s{n}", str(n), f"resid_post.{n}", f"m/{n}") for n in range(LAYERS)],
        space=np.repeat(np.arange(LAYERS), CELLS),
        feature=np.tile(np.arange(CELLS), LAYERS),
        d=effects,
        p=q / 10,
        q=q,
        significant=flags,
        discovered=flags,
        twin=np.zeros(size, bool),
        adjusted_significant=flags,
    )
    rows = [
        {**row, "layer": int(str(row["address"]).split("/")[0])}
        for row in heatmap_figure(contrast).data
    ]
    cells = {
        "mark": "rect",
        "encoding": {
            "x": {"field": "rank", "type": "ordinal"},
            "y": {"field": "layer", "type": "ordinal"},
            "color": {"field": "d", "type": "quantitative", "scale": {"scheme": "redblue"}},
            "tooltip": [{"field": name} for name in ("address", "d", "q")],
        },
    }
    return Chart(lambda: heatmap_figure(contrast).html, specification(rows, cells))


def heatmap_figure(contrast: ContrastTable) -> Figure:
    """The heatmap of a contrast, which has one since it has several layers."""
    figure = layer_heatmap(contrast)
    assert figure is not None
    return figure


def compared() -> Comparison:
    """The comparison whose effects the heatmap shows."""
    groups = tuple(
        ComparedGroup(name=name, samples=100, units=100, prompts=100, clusters=100)
        for name in ("lost", "won")
    )
    return Comparison(
        part="compare.welch",
        test="welch",
        by="outcome",
        effect="d",
        groups=groups,
        half="all",
        positions="last",
        unit="unit",
        cluster="prompt",
        family="all",
        tested={f"s{number}": CELLS for number in range(LAYERS)},
        correction="bh",
        alpha=ALPHA,
    )


def specification(rows: Sequence[Mapping[str, Any]], view: Mapping[str, Any]) -> dict[str, Any]:
    """A Vega-Lite specification with its data."""
    return {"data": {"values": rows}, "width": 560, "height": 244, **view}
