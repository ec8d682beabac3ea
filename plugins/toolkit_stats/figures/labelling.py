"""Places the labels of points in a drawing: next to the point, without covering other labels or
labelled points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Points = npt.NDArray[np.float64]

GAP, LETTER, HEIGHT, RADIUS = 9.0, 7.5, 15.0, 4.0
"""The gap from a point to its label, the width of a letter, the height of a label, and the radius
of a point.
"""
STEPS = 40
"""How many positions are tried above and below a point, within the drawing."""
ON_NAME, ON_NAMED, ON_LEAD, ON_POINT, INWARDS = 1000.0, 1000.0, 300.0, 20.0, 12.0
"""The costs of covering a label, a labelled point, a leader line or another point, and of the inner
side.
"""


@dataclass(frozen=True)
class LabelledPoint:
    """A point with a label, and its preferred side: 1 right, -1 left."""

    x: float
    y: float
    words: str
    side: int


@dataclass(frozen=True)
class Label:
    """A label: the position of its nearer end, and its side of the point."""

    of: LabelledPoint
    y: float
    side: int

    @property
    def start(self) -> float:
        """The end that is nearer to the point."""
        return self.of.x + self.side * GAP

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom."""
        far = self.start + self.side * len(self.of.words) * LETTER
        return min(self.start, far), max(self.start, far), self.y - HEIGHT / 2, self.y + HEIGHT / 2


def place_labels(
    points: Sequence[LabelledPoint], others: Points, room: tuple[float, float, float, float]
) -> list[Label]:
    """A label for each point, in order; each takes the cheapest free position in `room`."""
    import numpy as np

    centres = np.array([(point.x, point.y) for point in points])
    labels: list[Label] = []
    leads = np.empty((0, 2))
    for index, point in enumerate(points):
        best, least = Label(point, point.y, point.side), inf
        for label in _candidates(point):
            if abs(label.y - point.y) >= least:
                break  # all other positions are further away
            cost = (
                _cost(label, labels, np.delete(centres, index, axis=0), leads, others)
                if _inside(label.box, room)
                else inf
            )
            best, least = (label, cost) if cost < least else (best, least)
        labels.append(best)
        leads = np.concatenate([leads, lead(labels[-1])])
    return labels


def lead(label: Label) -> Points:
    """The leader line from a point to its label; empty where they are adjacent."""
    import numpy as np

    if abs(label.y - label.of.y) <= 3:
        return np.empty((0, 2))
    part = np.linspace(0, 1, 9)[:, None]
    return (
        np.array([(label.of.x, label.of.y)]) * (1 - part)
        + np.array([(label.start, label.y)]) * part
    )


def _candidates(point: LabelledPoint) -> Iterator[Label]:
    heights = sorted(range(-STEPS, STEPS + 1), key=lambda step: (abs(step), -step))
    for step, side in product(heights, (point.side, -point.side)):
        yield Label(point, point.y + step * HEIGHT * 0.6, side)


def _inside(
    box: tuple[float, float, float, float], room: tuple[float, float, float, float]
) -> bool:
    return box[0] >= room[0] and box[1] <= room[1] and box[2] >= room[2] and box[3] <= room[3]


def _cost(
    label: Label, before: Sequence[Label], named: Points, leads: Points, others: Points
) -> float:
    x0, x1, y0, y1 = label.box
    over = sum(
        x0 < box[1] and x1 > box[0] and y0 < box[3] and y1 > box[2]
        for box in (label_before.box for label_before in before)
    )
    line = lead(label)
    crossed = sum(_covered(label_before.box, line, 0.0) > 0 for label_before in before) + (
        _covered(label.box, leads, 0.0) > 0
    )
    points = ON_NAMED * _covered(label.box, named, RADIUS) + ON_POINT * _covered(
        label.box, others, RADIUS
    )
    return (
        ON_NAME * over
        + ON_LEAD * crossed
        + points
        + INWARDS * (label.side != label.of.side)
        + abs(label.y - label.of.y)
    )


def _covered(box: tuple[float, float, float, float], points: Points, reach: float) -> int:
    """How many points a box lies on."""
    x, y = points[:, 0], points[:, 1]
    return int(
        (
            (x > box[0] - reach)
            & (x < box[1] + reach)
            & (y > box[2] - reach)
            & (y < box[3] + reach)
        ).sum()
    )
