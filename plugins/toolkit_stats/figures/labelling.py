"""Where the names of points go in a drawing: beside them, on no other name and on no point that is
named, or the nearest such place.
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
"""From a point to its name; the width of a letter in it; its height; and how far a point reaches.
"""
STEPS = 40
"""Heights that are tried above a point and below it, as far as the drawing goes."""
ON_NAME, ON_NAMED, ON_LEAD, ON_POINT, INWARDS = 1000.0, 1000.0, 300.0, 20.0, 12.0
"""What it costs to lie on a name, on a point that is named, on a line that leads to one, on another
point, and to stand inwards.
"""


@dataclass(frozen=True)
class LabelledPoint:
    """A point with a name, and the side where it goes if there is room: 1 right, -1 left."""

    x: float
    y: float
    words: str
    side: int


@dataclass(frozen=True)
class Label:
    """A name beside its point: where its nearer end stands, and on which side of the point."""

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


def placed(
    points: Sequence[LabelledPoint], others: Points, room: tuple[float, float, float, float]
) -> list[Label]:
    """A label for each point, in their order; each takes the cheapest place that those before it
    leave in `room`.
    """
    import numpy as np

    centres = np.array([(point.x, point.y) for point in points])
    labels: list[Label] = []
    leads = np.empty((0, 2))
    for index, point in enumerate(points):
        best, least = Label(point, point.y, point.side), inf
        for label in _places(point):
            if abs(label.y - point.y) >= least:
                break  # all that is left is further away
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
    """Points of the line from a point to its label; none where that stands beside it."""
    import numpy as np

    if abs(label.y - label.of.y) <= 3:
        return np.empty((0, 2))
    part = np.linspace(0, 1, 9)[:, None]
    return (
        np.array([(label.of.x, label.of.y)]) * (1 - part)
        + np.array([(label.start, label.y)]) * part
    )


def _places(point: LabelledPoint) -> Iterator[Label]:
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
    left, right, top, bottom = label.box
    over = sum(
        left < box[1] and right > box[0] and top < box[3] and bottom > box[2]
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
