"""The report section `volcano`: effect against evidence, one point per feature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

from toolkit import figures as draw
from toolkit.work import Figure, Inputs
from toolkit_stats.compare.contrasts import EFFECTS
from toolkit_stats.figures.labelling import LabelledPoint, place_labels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from toolkit_stats.compare.contrasts import ContrastTable

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720.0, 430.0, 52.0, 14.0, 30.0, 48.0
POINTS, LABELS, HALF = 3000, 10, 8.0
SMALLEST = 1e-300
"""A p below this, or one that has become 0, is drawn as this."""


@dataclass(frozen=True)
class _Frame:
    """Maps d and p to coordinates."""

    reach: float
    highest: float

    def x(self, d: float) -> float:
        """The x of a d; 0 is in the middle."""
        return LEFT + (d / self.reach + 1) / 2 * (WIDTH - LEFT - RIGHT)

    def y(self, p: float) -> float:
        """The y of a p, on a log scale."""
        return self.level(-log10(max(p, SMALLEST)))

    def level(self, evidence: float) -> float:
        """The height of a value of -log10 p."""
        return HEIGHT - BOTTOM - evidence / self.highest * (HEIGHT - TOP - BOTTOM)


def figures(inputs: Inputs) -> Iterator[Figure]:
    """One figure a contrast."""
    from toolkit_stats.compare.contrasts import read_contrasts

    for contrast in read_contrasts(inputs):
        ranking = contrast.ranking()
        if len(ranking):
            drawn = _thinned(contrast, ranking)
            html = (
                _legend(contrast)
                + _chart(contrast, ranking, drawn)
                + _note(contrast, ranking, drawn)
            )
            data = [_row(contrast, int(index)) for index in ranking]
            yield Figure(contrast.name, html, _spoken(contrast, ranking), data)


def _row(contrast: ContrastTable, index: int) -> dict[str, object]:
    """One feature as a row of numbers."""
    space = contrast.spaces[int(contrast.space[index])]
    return {
        "space": space.id,
        "address": space.address,
        "feature": int(contrast.feature[index]),
        "d": float(contrast.d[index]),
        "p": float(contrast.p[index]),
        "significant": bool(contrast.significant[index]),
    }


def _thinned(contrast: ContrastTable, ranking: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The labelled points, the significant ones, and of the others as many as there is room for,
    evenly by rank.
    """
    import numpy as np

    labelled, others = ranking[:LABELS], ranking[LABELS:]
    significant = _evenly(others[contrast.significant[others]], POINTS - len(labelled))
    drawn = _evenly(
        others[~contrast.significant[others]], POINTS - len(labelled) - len(significant)
    )
    return np.concatenate([drawn[::-1], significant[::-1], labelled[::-1]])


def _evenly(points: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    import numpy as np

    return (
        points
        if len(points) <= limit
        else points[np.linspace(0, len(points) - 1, limit).astype(np.int64)]
    )


def _legend(contrast: ContrastTable) -> str:
    names = [
        ("var(--computed)", f"significantly higher in {contrast.a}"),
        ("var(--failed)", f"significantly higher in {contrast.b}"),
    ]
    return draw.key(
        [*names, ("color-mix(in srgb,var(--faint) 40%,transparent)", "not significant")]
    )


# --- the drawing ----------------------------------------------------------------------------------


def _chart(
    contrast: ContrastTable, ranking: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64]
) -> str:
    import numpy as np

    reach = max(float(np.abs(contrast.d[ranking]).max()) * 1.12, 1e-6)
    highest = max(-log10(max(float(contrast.p[ranking].min()), SMALLEST)) * 1.06, 1.0)
    frame = _Frame(reach, highest)
    points = (_point(contrast, frame, int(index)) for index in drawn)
    return draw.svg(
        WIDTH,
        HEIGHT,
        [
            *_axes(contrast, frame),
            *points,
            *_threshold(contrast, frame),
            *_labels(contrast, frame, ranking, drawn),
        ],
    )


def _axes(contrast: ContrastTable, frame: _Frame) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    yield draw.text(0, 14, "\N{MINUS SIGN}log10 p", kind="strong")
    for tick in draw.ticks(0, frame.highest, 6):
        yield draw.line(
            LEFT,
            frame.level(tick),
            WIDTH - RIGHT,
            frame.level(tick),
            "axis" if tick == 0 else "grid",
        )
        yield draw.text(LEFT - 8, frame.level(tick) + 4, draw.number(tick), anchor="end")
    for tick in draw.ticks(-frame.reach, frame.reach, 8):
        if tick == 0:
            yield draw.line(frame.x(0), TOP, frame.x(0), floor, "grid")
        yield draw.line(frame.x(tick), floor, frame.x(tick), floor + 5, "axis")
        yield draw.text(frame.x(tick), floor + 19, draw.number(tick), anchor="middle")
    yield draw.text(
        frame.x(0), HEIGHT - 8, EFFECTS[contrast.effect], anchor="middle", kind="strong"
    )
    yield draw.text(LEFT, HEIGHT - 8, f"\N{LEFTWARDS ARROW} higher in {_cut(contrast.b)}")
    yield draw.text(
        WIDTH - RIGHT,
        HEIGHT - 8,
        f"higher in {_cut(contrast.a)} \N{RIGHTWARDS ARROW}",
        anchor="end",
    )


def _cut(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "\N{HORIZONTAL ELLIPSIS}"


def _threshold(contrast: ContrastTable, frame: _Frame) -> Iterator[str]:
    """The largest p that was called significant."""
    if contrast.significant.any():
        p = float(contrast.p[contrast.significant].max())
        yield draw.line(LEFT, frame.y(p), WIDTH - RIGHT, frame.y(p), "dash")
        yield draw.text(
            frame.x(0), frame.y(p) - 6, f"largest significant p: {draw.small(p)}", anchor="middle"
        )


def _point(contrast: ContrastTable, frame: _Frame, index: int) -> str:
    d, p = float(contrast.d[index]), float(contrast.p[index])
    kind = ("more" if d > 0 else "less") if contrast.significant[index] else "rest"
    about = (
        f"{contrast.address(index)}: {contrast.symbol} {draw.signed(d)}, p "
        f"{draw.small(p)}, q {draw.small(float(contrast.q[index]))}"
    )
    size = 2.2 if kind == "rest" else 3.4
    return draw.circle(frame.x(d), frame.y(p), size, kind, about)


def _labels(
    contrast: ContrastTable,
    frame: _Frame,
    ranking: npt.NDArray[np.int64],
    drawn: npt.NDArray[np.int64],
) -> Iterator[str]:
    """Addresses next to the strongest points, on the outer side where possible."""
    import numpy as np

    points = [_named(contrast, frame, int(index)) for index in ranking[:LABELS]]
    others = [
        int(index)
        for index in drawn
        if contrast.significant[index] and index not in ranking[:LABELS]
    ]
    sides = np.array(
        [(frame.x(float(contrast.d[index])), frame.y(float(contrast.p[index]))) for index in others]
    ).reshape(-1, 2)
    labels = place_labels(points, sides, (LEFT, WIDTH, TOP - HALF, HEIGHT - BOTTOM))
    for label in sorted(labels, key=lambda label: (-label.of.side, label.of.y)):
        if abs(label.y - label.of.y) > 3:
            yield draw.line(label.of.x, label.of.y, label.start, label.y, "lead")
        yield draw.text(
            label.start,
            label.y + 4,
            label.of.words,
            anchor="start" if label.side > 0 else "end",
            kind="strong",
        )


def _named(contrast: ContrastTable, frame: _Frame, index: int) -> LabelledPoint:
    d = float(contrast.d[index])
    return LabelledPoint(
        frame.x(d), frame.y(float(contrast.p[index])), contrast.address(index), 1 if d >= 0 else -1
    )


# --- texts ----------------------------------------------------------------------------------------


def _note(
    contrast: ContrastTable, ranking: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64]
) -> str:
    sentences = []
    if len(drawn) < len(ranking):
        missing = int(contrast.significant[ranking].sum()) > POINTS
        which = "evenly chosen" if missing else "all significant ones and evenly chosen others"
        sentences.append(f"{len(drawn):,} of {len(ranking):,} points are drawn: {which}.")
    if undefined := len(contrast.d) - len(ranking):
        sentences.append(
            f"Not drawn: {undefined:,} with the same value in every sample of a group, for which "
            f"{contrast.symbol} is undefined."
        )
    return f'<p class="faint">{" ".join(sentences)}</p>' if sentences else ""


def _spoken(contrast: ContrastTable, ranking: npt.NDArray[np.int64]) -> str:
    d, significant = contrast.d[ranking], contrast.significant[ranking]
    listed = ", ".join(
        f"{contrast.address(int(index))} "
        f"({contrast.symbol} {draw.signed(float(contrast.d[index]))})"
        for index in ranking[:3]
    )
    more, less = (int((significant & side).sum()) for side in (d > 0, d < 0))
    return (
        f"Scatter plot of {len(ranking)} features, {EFFECTS[contrast.effect]} against minus log10 "
        f"of p: {more} are significantly higher in {contrast.a}, {less} in {contrast.b}. Strongest "
        f"evidence: {listed}."
    )
