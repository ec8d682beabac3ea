"""Names of points in the volcano: readable, and hiding none of the points that are named."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.toolkit_stats.test_sections import drawn, features
from toolkit_stats.figures.labelling import (
    GAP,
    HEIGHT,
    LETTER,
    RADIUS,
    Label,
    LabelledPoint,
    place_labels,
)

ROOM = (52.0, 720.0, 22.0, 382.0)
NONE = np.empty((0, 2))
PLACE = st.tuples(st.floats(60, 700), st.floats(40, 370))


def overlap(label: Label, other: Label) -> bool:
    a, b = label.box, other.box
    return a[0] < b[1] and a[1] > b[0] and a[2] < b[3] and a[3] > b[2]


def hides(label: Label, point: LabelledPoint) -> bool:
    left, right, top, bottom = label.box
    return left - RADIUS < point.x < right + RADIUS and top - RADIUS < point.y < bottom + RADIUS


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(PLACE, min_size=1, max_size=10))
def test_no_name_lies_on_a_name_or_on_a_point_that_is_named(
    places: list[tuple[float, float]],
) -> None:
    points = [LabelledPoint(x, y, "12/34567", 1 if x > 386 else -1) for x, y in places]
    labels = place_labels(points, NONE, ROOM)
    assert [label.of for label in labels] == points
    assert not any(overlap(first, second) for first, second in combinations(labels, 2))
    assert not any(hides(label, point) for label in labels for point in points)
    for label in labels:
        left, right, top, bottom = label.box
        assert left >= ROOM[0]
        assert right <= ROOM[1]
        assert top >= ROOM[2]
        assert bottom <= ROOM[3]


def test_a_point_by_itself_has_its_name_outwards_beside_it() -> None:
    labels = place_labels(
        [LabelledPoint(500, 100, "1/2", 1), LabelledPoint(200, 100, "3/4", -1)], NONE, ROOM
    )
    assert [(label.side, label.y, label.start) for label in labels] == [
        (1, 100, 500 + GAP),
        (-1, 100, 200 - GAP),
    ]


def test_a_name_turns_inwards_where_a_named_point_or_the_edge_is_outwards() -> None:
    placed = place_labels(
        [LabelledPoint(500, 100, "1/2", 1), LabelledPoint(500 + GAP + LETTER, 100, "3/4", 1)],
        NONE,
        ROOM,
    )
    assert [(label.side, label.y) for label in placed] == [(-1, 100), (1, 100)]
    (edge,) = place_labels([LabelledPoint(710, 100, "1/2345", 1)], NONE, ROOM)
    assert (edge.side, edge.y) == (-1, 100)


def test_a_name_goes_aside_for_many_points_that_have_none() -> None:
    others = np.array(
        [(500 + GAP + index, 100.0) for index in range(4)]
        + [(500 - GAP - index, 100.0) for index in range(4)]
    )
    (label,) = place_labels([LabelledPoint(500, 100, "1/2", 1)], others, ROOM)
    assert abs(label.y - 100) >= HEIGHT / 2 + RADIUS


@pytest.mark.parametrize("side", [1, -1])
def test_the_volcano_shows_every_point_that_it_names(side: int) -> None:
    """Pairs of features as strong as each other, one a little further out: names outwards lay on
    their neighbours.
    """
    rows = [
        (
            "s0",
            index,
            side * (1.0 + 0.12 * (index % 2) + 0.05 * (index // 2)),
            10.0 ** -(8 - index // 2),
            1e-3,
            True,
        )
        for index in range(10)
    ]
    (figure,) = drawn("volcano", features=features(*rows))
    circles = {
        name: (float(x), float(y))
        for x, y, name in re.findall(r'cx="(\S+)" cy="(\S+)" r="\S+"><title>(\S+):', figure.html)
    }
    names = re.findall(
        r'<text x="(\S+)" y="(\S+)" text-anchor="(\w+)" class="strong">(\d+/\d+)<', figure.html
    )
    assert {name for *_, name in names} == set(circles)
    for x, y, anchor, name in names:
        width = LETTER * len(name)
        left = float(x) - (width if anchor == "end" else 0)
        hidden = [
            other
            for other, (cx, cy) in circles.items()
            if left - RADIUS < cx < left + width + RADIUS
            and float(y) - 4 - HEIGHT / 2 < cy < float(y) - 4 + HEIGHT / 2
        ]
        assert not hidden, (name, hidden)
