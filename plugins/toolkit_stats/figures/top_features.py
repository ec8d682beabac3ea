"""The report section `top-features`: the features with the clearest differences, and the texts with
their largest activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit import figures as draw
from toolkit.features.comparisons import rows_of
from toolkit.work import Figure, Inputs
from toolkit_stats.figures.firing import group_labels, hits, of_space

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_stats.compare.contrasts import ContrastTable

LISTED, SHOWN, EXAMPLES = 12, 6, 3
BEFORE, AFTER = 260, 90
"""Characters shown before and after the token with the largest activation."""
STYLE = (
    "<style>.stats-example{display:flex;flex-wrap:wrap;gap:.15rem .9rem;margin:.5rem "
    "0;padding:.6rem .9rem;background:var(--soft);border:1px solid "
    "var(--line);border-radius:.5rem}.stats-example .meta{flex:0 0 "
    "8.5rem;color:var(--faint);font-size:.85rem;overflow-wrap:anywhere}.stats-example .meta "
    "b{color:var(--fg)}.stats-example .said{flex:1 1 "
    "18rem;min-width:0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.925rem;"
    "line-height:1.75}.stats-example "
    ".said span{border-radius:.2rem;padding:.1rem "
    "0;print-color-adjust:exact;background:color-mix(in srgb,var(--hue) "
    "calc(var(--a)*55%),transparent)}.stats-example .said .peak{box-shadow:inset 0 -2px "
    "var(--hue)}.stats-example .gap{color:var(--faint)}.stats-name{margin:1.1rem 0 "
    ".25rem;font-weight:600}</style>"
)


@dataclass(frozen=True)
class _ExampleTables:
    """The tables that examples are made of, read once."""

    activations: pa.Table
    samples: pa.Table
    meta: pa.Table


@dataclass(frozen=True)
class _Example:
    """A sample in which a feature fires, with its activation at each position read."""

    name: str
    label: str
    text: str
    pieces: Sequence[str]
    values: Mapping[int, float]

    @property
    def peak(self) -> float:
        """The largest activation."""
        return max(self.values.values())


def figures(inputs: Inputs) -> Iterator[Figure]:
    """A table and examples for each contrast."""
    from toolkit_stats.compare.contrasts import read_contrasts

    contrasts = [
        (contrast, [int(index) for index in contrast.ranking()[:LISTED]])
        for contrast in read_contrasts(inputs)
    ]
    texts = _texts(inputs) if any(top for _, top in contrasts) else None
    for contrast, top in contrasts:
        if top:
            yield Figure(
                f"{contrast.name}: the clearest differences",
                _listed(inputs, contrast, top),
                _spoken(contrast, top),
            )
        if top and texts and (examples := _examples(texts, contrast, top[:SHOWN])):
            words = (
                f"Samples in which the first {len(top[:SHOWN])} features fire most strongly, the "
                "tokens marked by activation."
            )
            yield Figure(f"{contrast.name}: where they fire", STYLE + examples, words)


# --- the table ------------------------------------------------------------------------------------


def _listed(inputs: Inputs, contrast: ContrastTable, top: Sequence[int]) -> str:
    numbers = _numbers(inputs, contrast, top)
    stats = {stat for *_, stat, _ in numbers}
    interval, adjusted = f"{contrast.effect}_low" in stats, bool(contrast.adjusted)
    chosen = f"{contrast.effect}_select" in stats
    heads = [
        "feature",
        contrast.symbol,
        *(["95\N{NO-BREAK SPACE}% interval"] if interval else []),
        "p",
        "q",
    ]
    heads += [f"{contrast.symbol} {contrast.adjusted}"] if adjusted else []
    heads += [f"{contrast.symbol} where it was chosen"] if chosen else []
    heads += [f"{stat} {group}".strip() for stat in ("mean", "density") for group in contrast.sides]
    rows = []
    for index in top:

        def number(stat: str, group: str = contrast.group, index: int = index) -> float | None:
            return numbers.get(
                (
                    contrast.spaces[contrast.space[index]].id,
                    int(contrast.feature[index]),
                    stat,
                    group,
                )
            )

        colour = (
            "var(--good)" if contrast.d[index] > 0 else "var(--bad)"
        )  # as text, the fill colours are too faint
        d = draw.signed(float(contrast.d[index]))
        effect = f'<span style="color:{colour};font-weight:600">{d}</span>'
        cells = [draw.escaped(contrast.address(index)), effect]
        cells += (
            [_range(number(f"{contrast.effect}_low"), number(f"{contrast.effect}_high"))]
            if interval
            else []
        )
        cells += [draw.small(float(contrast.p[index])), draw.small(float(contrast.q[index]))]
        cells += [_effect(number(f"{contrast.effect}_adjusted"))] if adjusted else []
        cells += [_effect(number(f"{contrast.effect}_select"))] if chosen else []
        cells += [_plain(number("mean", group)) for group in contrast.sides]
        rows.append([*cells, *(_percent(number("density", group)) for group in contrast.sides)])
    words = (
        f"Smallest q first, then largest |{contrast.symbol}|; density is the share of samples in "
        "which it fires"
    )
    return draw.table(words, heads, rows)


def _numbers(
    inputs: Inputs, contrast: ContrastTable, top: Sequence[int]
) -> dict[tuple[str, int, str, str], float | None]:
    """Further columns of the listed features: means and densities of the groups, the interval, the
    adjusted effect.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    stats = [
        "mean",
        "density",
        *(f"{contrast.effect}_{part}" for part in ("low", "high", "adjusted", "select")),
    ]
    features = pa.array([int(contrast.feature[index]) for index in top], pa.uint32())
    rows = rows_of(inputs.read("features"), contrast.comparison)
    rows = rows.filter(pc.is_in(rows["feature"], value_set=features))
    rows = rows.filter(pc.is_in(rows["stat"], value_set=pa.array(stats, pa.string())))
    return {
        (row["space"], row["feature"], row["stat"], row["group"]): row["number"]
        for row in rows.to_pylist()
    }


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{draw.signed(low)} to {draw.signed(high)}"


def _effect(value: float | None) -> str:
    return "" if value is None else draw.signed(value)


def _plain(value: float | None) -> str:
    return "" if value is None else draw.fixed(value, draw.decimals(value))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _spoken(contrast: ContrastTable, top: Sequence[int]) -> str:
    return (
        f"Table of {len(top)} features compared between {contrast.a} and {contrast.b}; the first "
        f"is {contrast.address(top[0])}."
    )


# --- examples -------------------------------------------------------------------------------------


def _texts(inputs: Inputs) -> _ExampleTables | None:
    from toolkit.tables import arrow_schema

    tables = set(inputs.tables())
    if not {"samples", "activations"} <= tables:
        return None
    meta = (
        inputs.read("sample_meta")
        if "sample_meta" in tables
        else arrow_schema("sample_meta").empty_table()
    )
    return _ExampleTables(
        inputs.read("activations"),
        inputs.read("samples").select(["sample", "text", "pieces"]),
        meta,
    )


def _examples(texts: _ExampleTables, contrast: ContrastTable, top: Sequence[int]) -> str:
    labels = group_labels(texts.meta, contrast)
    shown = []
    for index in top:
        examples = _hardest(
            texts, contrast.spaces[contrast.space[index]].id, int(contrast.feature[index]), labels
        )
        if examples:
            hue = "var(--computed)" if contrast.d[index] > 0 else "var(--failed)"
            side = contrast.a if contrast.d[index] > 0 else contrast.b
            d = draw.signed(float(contrast.d[index]))
            about = f"{contrast.symbol} {d}, higher in {draw.escaped(side)}"
            address = draw.escaped(contrast.address(index))
            faint = f'<span class="faint">{about}</span>'
            name = f'<p class="stats-name">{address} {faint}</p>'
            drawn = "".join(_example(example, examples[0].peak) for example in examples)
            shown.append(f'<div style="--hue:{hue}">{name}{drawn}</div>')
    return "".join(shown)


def _hardest(
    texts: _ExampleTables, space: str, feature: int, labels: Mapping[str, str]
) -> list[_Example]:
    """The samples with the largest activations of the feature, from the compared groups where
    known.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = of_space(texts.activations, space)
    best: dict[str, float] = {}
    for sample, value in hits(rows, feature):
        if not labels or sample in labels:
            best[sample] = max(best.get(sample, 0.0), value)
    names = sorted(
        (name for name, value in best.items() if value > 0), key=lambda name: (-best[name], name)
    )[:EXAMPLES]
    ids = pa.array(names, pa.string())
    samples = {
        row["sample"]: row
        for row in texts.samples.filter(
            pc.is_in(texts.samples["sample"], value_set=ids)
        ).to_pylist()
    }
    values: dict[str, dict[int, float]] = {name: {} for name in names}
    for row in rows.filter(pc.is_in(rows["sample"], value_set=ids)).to_pylist():
        values[row["sample"]][row["position"]] = dict(
            zip(row["features"], row["values"], strict=True)
        ).get(feature, 0.0)
    return [
        _Example(
            name, labels.get(name, ""), samples[name]["text"], samples[name]["pieces"], values[name]
        )
        for name in names
        if name in samples
    ]


# --- a text with its tokens marked ----------------------------------------------------------------


def _example(example: _Example, highest: float) -> str:
    label = f"<b>{draw.escaped(example.label)}</b><br>" if example.label else ""
    about = f"{label}{draw.escaped(example.name)}<br>peak {example.peak:.3g}"
    meta = f'<div class="meta">{about}</div>'
    text = f'<div class="said">{_marked(example, highest)}</div>'
    return f'<div class="stats-example">{meta}{text}</div>'


def _marked(example: _Example, highest: float) -> str:
    """The text around the peak, with tokens coloured by activation."""
    pieces = example.pieces or [example.text]
    between = "" if "".join(pieces) in example.text else " "
    hottest = max(example.values, key=lambda position: (example.values[position], -position))
    peak = hottest if 0 <= hottest < len(pieces) else len(pieces) - 1
    start, end = _window(pieces, peak)
    values = {**example.values, peak: example.peak}
    parts = [
        _token(pieces[index], values.get(index, 0.0), highest, index == peak)
        for index in range(start, end)
    ]
    gap = '<span class="gap">\N{HORIZONTAL ELLIPSIS}</span>'
    return (gap if start > 0 else "") + between.join(parts) + (gap if end < len(pieces) else "")


def _window(pieces: Sequence[str], peak: int) -> tuple[int, int]:
    """The half-open range of tokens to show."""
    start, end = peak, peak + 1
    while start > 0 and sum(map(len, pieces[start - 1 : peak])) <= BEFORE:
        start -= 1
    while end < len(pieces) and sum(map(len, pieces[peak + 1 : end + 1])) <= AFTER:
        end += 1
    return start, end


def _token(piece: str, value: float, highest: float, peak: bool) -> str:
    shown = draw.escaped(
        piece.replace("\r", "").replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    )
    if value <= 0:
        return shown
    if not shown.strip():  # a space, or a token without text, still needs a coloured character
        shown = "\N{OPEN BOX}" if shown else "\N{WHITE SQUARE}"
    kind = ' class="peak"' if peak else ""
    return f'<span{kind} style="--a:{value / highest:.2f}" title="{value:.3g}">{shown}</span>'
