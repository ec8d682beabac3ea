"""The report section `pathway`: differences of groups in followed features by layer, correlations
across layers, and decisions as points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit import figures as draw
from toolkit.features.addresses import layer_of
from toolkit.work import Figure, Inputs
from toolkit_stats.compare.contrasts import EFFECTS

ROW, WIDE, RIGHT, TOP = 20, 400, 130, 12
SIDE = 360
LISTED, SHOWN = 20, 60
CHOSEN = "Chosen by |d| on these very units: expect d to be smaller on others"
COLOURS = ("var(--computed)", "var(--failed)")


def figures(inputs: Inputs) -> Iterator[Figure]:
    """Effect sizes by layer, group means, the strongest links, and the signature of decisions."""
    tables = set(inputs.tables())
    if not {"trajectories", "spaces"} <= tables:
        return
    rows = inputs.read("trajectories").to_pylist()
    links = inputs.read("links").to_pylist() if "links" in tables else []
    spaces = _followed_spaces(inputs, rows, links)
    for names in sorted({(row["group"], row["against"]) for row in rows if row["stat"] == "d"}):
        yield from _contrast_figures(names, rows, spaces)
    if links:
        yield Figure(
            "Correlated features of different layers",
            _links(links, spaces),
            f"The {LISTED} strongest correlations.",
        )
    signatures = inputs.read("signatures").to_pylist() if "signatures" in tables else []
    if len({row["component"] for row in signatures}) > 1:
        label = _labels(inputs, {row["group"] for row in rows if row["stat"] == "mean"})
        yield Figure(
            "Each decision as a point",
            _points(signatures, label),
            "Decisions on the first two principal components.",
            signatures,
        )


def _followed_spaces(
    inputs: Inputs, rows: Sequence[Mapping[str, Any]], links: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The spaces that a trajectory or a link is of."""
    ends = {row[end] for row in links for end in ("space", "other_space")}
    followed = {row["space"] for row in rows} | ends
    spaces = inputs.read("spaces").to_pylist()
    return {row["space"]: row for row in spaces if row["space"] in followed}


def _contrast_figures(
    names: tuple[str, str], rows: Sequence[Mapping[str, Any]], spaces: Mapping[str, Any]
) -> Iterator[Figure]:
    """The differences between two groups by layer, and the means of both."""
    differences = sorted(
        (row for row in rows if (row["group"], row["against"]) == names),
        key=lambda row: _by_layer(row, spaces),
    )
    contrast = " vs ".join(names)
    yield Figure(
        f"{contrast}: followed features, layer by layer",
        _notes(differences) + _forest(differences, spaces, names),
        _spoken(differences, spaces),
        differences,
    )
    means = {
        (row["space"], row["feature"], row["group"]): row for row in rows if row["stat"] == "mean"
    }
    yield Figure(
        f"{contrast}: both groups",
        _means(differences, names, means, spaces),
        "Means of each group with 95 % intervals.",
    )


def _by_layer(row: Mapping[str, Any], spaces: Mapping[str, Any]) -> tuple[int, str, float]:
    layer = layer_of(spaces[row["space"]])
    return (-1 if layer is None else layer, row["space"], -abs(row["value"] or 0.0))


def _name(space: Mapping[str, Any], feature: int, spaces: Mapping[str, Any]) -> str:
    """LAYER/INDEX where that is unique, else the full address."""
    same = [other for other in spaces.values() if layer_of(other) == layer_of(space)]
    return (
        f"{layer_of(space)}/{feature}"
        if len(same) == 1 and layer_of(space) is not None
        else f"{space['address']}:{feature}"
    )


def _notes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Why p-values are withheld, and that the features were chosen on these very units."""
    notes = [CHOSEN] if any(row["chosen"] for row in rows) else []
    reasons = dict.fromkeys(row["withheld"] for row in rows if row["withheld"])
    notes += [reason[:1].upper() + reason[1:] for reason in reasons]
    return "".join(f'<p class="box part">{draw.escaped(note)}.</p>' for note in notes)


def _spoken(rows: Sequence[Mapping[str, Any]], spaces: Mapping[str, Any]) -> str:
    known = [row for row in rows if row["value"] is not None]
    if not known:
        return "No followed feature differs."
    best = max(known, key=lambda row: abs(row["value"]))
    name = _name(spaces[best["space"]], best["feature"], spaces)
    return (
        f"Effect sizes of {len(known)} features with 95 % intervals; the largest is {name} with d "
        f"{draw.signed(best['value'])}."
    )


def _forest(
    rows: Sequence[Mapping[str, Any]], spaces: Mapping[str, Any], groups: Sequence[str]
) -> str:
    """One row per feature: its effect with its interval, drawn and in numbers."""
    shown = [row for row in rows if row["value"] is not None][:SHOWN]
    names = [_name(spaces[row["space"]], row["feature"], spaces) for row in shown]
    names = [name if len(name) < 22 else f"\N{HORIZONTAL ELLIPSIS}{name[-20:]}" for name in names]
    ends = [
        abs(float(row[end])) for row in shown for end in ("low", "high") if row[end] is not None
    ]
    reach = float(min(max([0.5, *ends]), 4.0)) * 1.05
    x0, foot = 18 + 7 * max(map(len, names), default=0), TOP + ROW * len(shown) + 4

    x = draw.ChartAxis(-reach, reach, x0, x0 + WIDE)
    body = list(draw.x_ticks(x, TOP, foot, x.ticks(8), draw.number))
    body.append(draw.text(x.at(0), foot + 36, EFFECTS["d"], anchor="middle", kind="strong"))
    for index, (row, name) in enumerate(zip(shown, names, strict=True)):
        body += _forest_row(row, name, TOP + ROW * index + ROW / 2, x)
    more = len([row for row in rows if row["value"] is not None]) - len(shown)
    tail = f'<p class="faint">{more} more are in the table `trajectories`.</p>' if more > 0 else ""
    legend = (
        draw.key(zip(COLOURS, (f"higher in {group}" for group in groups), strict=True))
        if len(groups) == 2
        else ""
    )
    return legend + draw.svg(x0 + WIDE + RIGHT, foot + 42, body) + tail


def _forest_row(row: Mapping[str, Any], name: str, y: float, x: draw.ChartAxis) -> Iterator[str]:
    """One feature; what lies beyond the axis is drawn at its end."""
    value, low, high = (
        None if row[end] is None else min(max(row[end], x.low), x.high)
        for end in ("value", "low", "high")
    )
    colour = COLOURS[row["value"] < 0]
    q = "" if row["q"] is None else f"q {draw.small(row['q'])}"
    yield draw.text(x.start - 10, y + 4, name, anchor="end")
    yield from draw.interval(x, y, value or 0.0, (low, high), colour=colour)
    yield draw.text(x.end + 12, y + 4, f"d {draw.signed(row['value'])}  {q}")


def _means(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    means: Mapping[Any, Any],
    spaces: Mapping[str, Any],
) -> str:
    cells = []
    for row in rows[:SHOWN]:
        sides = [means.get((row["space"], row["feature"], name)) for name in names]
        shown = [_mean(side) if side else "" for side in sides]
        cells.append(
            (
                draw.escaped(_name(spaces[row["space"]], row["feature"], spaces)),
                *(draw.escaped(cell) for cell in shown),
            )
        )
    return draw.table(
        "Mean activation over a group's decisions; intervals over clusters",
        ("feature", *names),
        cells,
    )


def _mean(side: Mapping[str, Any]) -> str:
    """A mean with its interval, with as many decimals as both need."""
    digits = draw.decimals(side["value"], (side["high"] - side["low"]) / 2)
    value, low, high = (draw.fixed(side[end], digits) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _links(rows: Sequence[Mapping[str, Any]], spaces: Mapping[str, Any]) -> str:
    strongest = sorted(rows, key=lambda row: (-abs(row["r"]), row["space"], row["feature"]))[
        :LISTED
    ]
    cells = []
    for row in strongest:
        ends = [(row["space"], row["feature"]), (row["other_space"], row["other_feature"])]
        named = [draw.escaped(_name(spaces[space], feature, spaces)) for space, feature in ends]
        q = "withheld" if row["q"] is None else draw.small(row["q"])
        cells.append((named[0], named[1], *_correlations(row), q))
    method = draw.escaped(str(strongest[0]["text"]))
    note = (
        f'<p class="faint">{method}. A correlation is no path: both may follow the same words.</p>'
    )
    return note + draw.table(
        "The strongest first",
        ("feature", "with", "r", "95\N{NO-BREAK SPACE}% interval", "q"),
        cells,
    )


def _correlations(row: Mapping[str, Any]) -> tuple[str, str]:
    """r and its interval: two decimals, or four where two would make it 1."""
    digits = 4 if max(abs(row[end]) for end in ("r", "low", "high")) > 0.995 else 2
    r, low, high = (
        f"{row[end]:+.{digits}f}".replace("-", "\N{MINUS SIGN}") for end in ("r", "low", "high")
    )
    return r, f"{low} to {high}"


def _labels(inputs: Inputs, groups: set[str]) -> dict[str, str]:
    """Each sample's group, from the metadata key that has all groups among its values."""
    if "sample_meta" not in inputs.tables():
        return {}
    results: dict[str, dict[str, str]] = {}
    for row in inputs.read("sample_meta").to_pylist():
        value = (
            row["string"]
            if row["string"] is not None
            else f"{row['number']:g}"
            if row["number"] is not None
            else ""
        )
        results.setdefault(row["key"], {})[row["sample"]] = value
    return next(
        (labels for _, labels in sorted(results.items()) if groups <= set(labels.values())), {}
    )


def _points(rows: Sequence[Mapping[str, Any]], label: Mapping[str, str]) -> str:
    scores: dict[str, dict[int, float]] = {}
    share: dict[int, float] = {}
    for row in rows:
        scores.setdefault(row["sample"], {})[row["component"]] = row["score"]
        share[row["component"]] = row["share"]
    reach = [max(1e-9, *(abs(score[axis]) for score in scores.values())) * 1.05 for axis in (0, 1)]
    groups = sorted({label.get(sample, "") for sample in scores})
    body = [
        draw.line(SIDE / 2, 10, SIDE / 2, SIDE - 10, "axis"),
        draw.line(10, SIDE / 2, SIDE - 10, SIDE / 2, "axis"),
    ]
    for sample, score in sorted(scores.items()):
        x, y = (
            SIDE / 2 * (1 + 0.95 * score[0] / reach[0]),
            SIDE / 2 * (1 - 0.95 * score[1] / reach[1]),
        )
        colour = COLOURS[groups.index(label.get(sample, "")) % 2]
        body.append(draw.circle(x, y, 3.5, "dot", colour=colour))
    legend = draw.key((COLOURS[index % 2], name) for index, name in enumerate(groups) if name)
    words = (
        f"Horizontal: component 1, {100 * share[0]:.0f} % of the variance. Vertical: "
        f"component 2, {100 * share[1]:.0f} %."
    )
    chart = f'<div style="max-width:26rem">{draw.svg(SIDE, SIDE, body)}</div>'
    return f'{legend}{chart}<p class="faint">{words}</p>'
