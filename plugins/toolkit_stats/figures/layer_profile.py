"""The report section `layer-profile`: the layers of the features that differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit import figures as draw
from toolkit.work import Figure, Inputs
from toolkit_stats.figures.sides import key_of_sides

if TYPE_CHECKING:
    from toolkit_stats.compare.contrasts import ContrastTable, Space

WIDTH, LEFT, RIGHT, TOP = 720.0, 56.0, 8.0, 30.0
COUNTS, GAP, EFFECTS = 190.0, 44.0, 80.0
FOLDED = 12
"""A table of more spaces than this is folded."""


@dataclass(frozen=True)
class _Bar:
    """One space: tested features, significant ones of each sign, and the largest |d| with its
    feature.
    """

    space: Space
    tested: int
    more: int
    less: int
    largest: float
    feature: int


def figures(inputs: Inputs) -> Iterator[Figure]:
    """One figure a contrast: bars of counts, dots of the largest effect, and the numbers."""
    from toolkit_stats.compare.contrasts import read_contrasts

    for contrast in read_contrasts(inputs):
        bars = [_bar(contrast, number) for number in range(len(contrast.spaces))]
        shown = [bar for bar in bars if bar.tested]
        if shown:
            drawn = (
                key_of_sides(contrast)
                + _counts_text(contrast)
                + _chart(contrast, shown)
                + _numbers(contrast, shown)
            )
            data = [
                {
                    "space": bar.space.id,
                    "address": bar.space.address,
                    "tested": bar.tested,
                    "higher_in_first": bar.more,
                    "higher_in_second": bar.less,
                    "largest_d": bar.largest,
                    "feature": bar.feature,
                }
                for bar in shown
            ]
            yield Figure(contrast.name, drawn, _spoken(contrast, shown), data)


def _bar(contrast: ContrastTable, number: int) -> _Bar:
    import numpy as np

    features = np.flatnonzero(contrast.space == number)
    d, significant = contrast.d[features], contrast.significant[features]
    size = np.where(np.isnan(d), -1.0, np.abs(d))
    index = int(size.argmax()) if len(features) else -1
    largest = float(d[index]) if len(features) else math.nan
    more, less = int((significant & (d > 0)).sum()), int((significant & (d < 0)).sum())
    return _Bar(
        contrast.spaces[number],
        len(features),
        more,
        less,
        largest,
        int(contrast.feature[features[index]]) if len(features) else -1,
    )


def _counts_text(contrast: ContrastTable) -> str:
    """The test, the groups, and how many features differ: by corrected p alone, and with the
    threshold on the effect.
    """
    if not contrast.how:
        return ""
    cut = (
        f"{contrast.significant.sum():,} with the cut on the effect"
        if contrast.comparison.min_effect
        else "no cut on the effect"
    )
    both = f"{contrast.discovered.sum():,} features by corrected p alone, {cut}"
    sentences = [f"{contrast.how}.", *(f"{size}." for size in contrast.sizes), f"Found: {both}."]
    if contrast.twin.any():
        only = [
            int((marked & ~contrast.twin).sum())
            for marked in (contrast.discovered, contrast.significant)
        ]
        sentences.append(
            "With features that do the same in several SAEs of one site counted once: "
            f"{only[0]:,} and {only[1]:,}."
        )
    if contrast.adjusted:
        significant_in_both = int((contrast.significant & contrast.adjusted_significant).sum())
        sentences.append(
            f"Of the latter, {significant_in_both:,} differ as well {contrast.adjusted}."
        )
    return f'<p class="faint">{draw.escaped(" ".join(sentences))}</p>'


# --- the drawing ----------------------------------------------------------------------------------


def _chart(contrast: ContrastTable, bars: Sequence[_Bar]) -> str:
    band = (WIDTH - LEFT - RIGHT) / len(bars)
    middles = [LEFT + band * (number + 0.5) for number in range(len(bars))]
    under, names = _names(bars, middles, band)
    height = TOP + COUNTS + GAP + EFFECTS + under
    return draw.svg(
        WIDTH, height, [*_counts(bars, middles, band), *_effects(contrast, bars, middles), *names]
    )


def _counts(bars: Sequence[_Bar], middles: Sequence[float], band: float) -> Iterator[str]:
    """Significant features, upwards for the first group and downwards for the second."""
    up, down = max(bar.more for bar in bars), max(bar.less for bar in bars)
    total = max(up + down, 1)
    zero = TOP + COUNTS * (up / total if up + down else 1.0)
    scale = COUNTS / total
    yield draw.text(0, 12, "significant features", kind="strong")
    for tick in draw.ticks(-down, max(up, 1 - down), 5, whole=True):
        yield draw.line(
            LEFT,
            zero - tick * scale,
            WIDTH - RIGHT,
            zero - tick * scale,
            "axis" if tick == 0 else "grid",
        )
        yield draw.text(LEFT - 8, zero - tick * scale + 4, draw.number(abs(tick)), anchor="end")
    wide = min(band * 0.66, 44.0)
    for bar, middle in zip(bars, middles, strict=True):
        for count, kind, top in (
            (bar.more, "more", zero - bar.more * scale),
            (bar.less, "less", zero),
        ):
            if count:
                title = f"{bar.space.hookpoint}: {count:,}"
                yield draw.rect(middle - wide / 2, top, wide, count * scale, kind, title)
        if not (bar.more or bar.less):
            yield draw.text(middle, zero - 5, "0", anchor="middle")


def _effects(
    contrast: ContrastTable, bars: Sequence[_Bar], middles: Sequence[float]
) -> Iterator[str]:
    """The largest effect of each space, as a dot on a stem."""
    top, bottom = TOP + COUNTS + GAP, TOP + COUNTS + GAP + EFFECTS
    sizes = [0.0 if math.isnan(bar.largest) else abs(bar.largest) for bar in bars]
    highest = max(*sizes, 1e-9) * 1.08
    yield draw.text(0, top - 14, f"largest |{contrast.symbol}| of any feature", kind="strong")
    for tick in draw.ticks(0, highest, 3):
        y = bottom - tick / highest * EFFECTS
        yield draw.line(LEFT, y, WIDTH - RIGHT, y, "axis" if tick == 0 else "grid")
        yield draw.text(LEFT - 8, y + 4, draw.number(tick), anchor="end")
    for bar, middle, size in zip(bars, middles, sizes, strict=True):
        if size:
            y = bottom - size / highest * EFFECTS
            title = (
                f"{bar.space.short}/{bar.feature}: {contrast.symbol} = {draw.signed(bar.largest)}"
            )
            yield draw.line(middle, bottom, middle, y, "axis")
            yield draw.circle(middle, y, 5, "more" if bar.largest > 0 else "less", title)


def _names(bars: Sequence[_Bar], middles: Sequence[float], band: float) -> tuple[float, list[str]]:
    """Names under the bars, turned where they are long and thinned where they are many; and their
    height.
    """
    words = [
        bar.space.short
        if len(bar.space.short) <= 24
        else bar.space.short[:23] + "\N{HORIZONTAL ELLIPSIS}"
        for bar in bars
    ]
    longest = max(len(word) for word in words)
    bottom = TOP + COUNTS + GAP + EFFECTS
    turned = longest > 4 and longest * 7 > band
    every = math.ceil((16 if turned else longest * 7 + 6) / band)
    shown = list(zip(words, middles, strict=True))[::every]
    if turned:
        return 30 + longest * 5, [
            draw.text(x + 4, bottom + 18, word, anchor="end", turn=-40) for word, x in shown
        ]
    title = draw.text(
        LEFT + (WIDTH - LEFT - RIGHT) / 2, bottom + 38, "layer", anchor="middle", kind="strong"
    )
    layers = all(word.isdecimal() for word in words)
    names = [draw.text(x, bottom + 18, word, anchor="middle") for word, x in shown]
    return (46, [*names, title]) if layers else (28, names)


# --- the numbers ----------------------------------------------------------------------------------


def _numbers(contrast: ContrastTable, bars: Sequence[_Bar]) -> str:
    heads = (
        "hookpoint",
        "tested",
        f"higher in {contrast.a}",
        f"higher in {contrast.b}",
        f"largest |{contrast.symbol}|",
        "feature",
    )
    rows = [
        (
            draw.escaped(bar.space.hookpoint),
            f"{bar.tested:,}",
            f"{bar.more:,}",
            f"{bar.less:,}",
            draw.signed(bar.largest),
            f"{draw.escaped(bar.space.short)}/{bar.feature}",
        )
        for bar in bars
    ]
    total = (
        "all",
        *(
            f"{sum(getattr(bar, column) for bar in bars):,}"
            for column in ("tested", "more", "less")
        ),
        "",
        "",
    )
    table = draw.table(
        "Features that fired, and those that differ significantly", heads, [*rows, total]
    )
    return (
        table
        if len(bars) <= FOLDED
        else f"<details><summary>Numbers of all {len(bars)} hookpoints</summary>{table}</details>"
    )


def _spoken(contrast: ContrastTable, bars: Sequence[_Bar]) -> str:
    more, less = sum(bar.more for bar in bars), sum(bar.less for bar in bars)
    peak = max(bars, key=lambda bar: bar.more + bar.less)
    where = (
        f" Most of them at {peak.space.hookpoint}: {peak.more + peak.less}." if more + less else ""
    )
    return (
        f"Bar chart over {len(bars)} hookpoints: {more} features are significantly higher in "
        f"{contrast.a}, {less} in {contrast.b}.{where} The table below it has all numbers."
    )
