"""The report's figures: what they show adds up, user text is escaped, and long texts stay light."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.plugins.toolkit_tokens.conftest import run
from toolkit.testing.fakes import TableInputs
from toolkit_tokens.report import drawings
from toolkit_tokens.report.section import figures, findings


@pytest.fixture(scope="module")
def tables(scenarios: Any, tracked: Any) -> Any:
    params = {"by": "group", "between": ["risky", "safe"], "where": {"consistent": "yes"}}
    return {
        **scenarios,
        **tracked,
        **run("stage", "track.contrasts", params, {**scenarios, **tracked}),
    }


def test_tracking_has_its_figures(tables: Any) -> None:
    found = {figure.title: figure for figure in figures(TableInputs(tables))}
    titles = " | ".join(found)
    for part in (
        "Features by position",
        "Sum of activations on the text",
        "Attention from the decision back",
        "attention by layer, group risky",
        "Differences of spans: risky - safe",
    ):
        assert part in titles
    assert all(figure.html and figure.alt for figure in found.values())
    (said,) = [one for one in findings(TableInputs(tables))]
    assert "p is withheld, since a group is small" in said.sentence
    assert said.n == 8
    assert said.interval is not None


def test_a_waterfall_ends_at_its_sum() -> None:
    drawn = drawings.waterfall([("a", 2.0), ("b", -0.5)], 1.5, 1.4)
    bars = [
        (float(x), float(width))
        for x, width in re.findall(
            r'<rect class="\w+" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn
        )
    ]
    (first, second, total, measured) = bars
    assert first[0] + first[1] == pytest.approx(second[0] + second[1], abs=0.2)
    assert second[0] == pytest.approx(total[0] + total[1], abs=0.2)
    assert total[1] / measured[1] == pytest.approx(1.5 / 1.4, rel=0.01)


def test_text_of_users_is_escaped() -> None:
    pieces = ["<b>", "&"]
    for drawn in (
        drawings.highlighted(pieces, {0: 1.0}),
        drawings.heatmap(["<i>"], [{0: 1.0}], pieces),
        drawings.bands({0: {0: 1.0}}, pieces, [{"name": "<u>", "start": 0, "end": 1}]),
        drawings.waterfall([("<s>", 1.0)], 1.0, 1.0),
    ):
        assert not re.search(r"<[bius]>", drawn)
        assert "&lt;" in drawn


def test_a_text_of_512_tokens_stays_light() -> None:
    """Cells without a value are not drawn."""
    pieces = [f" w{number}" for number in range(512)]
    grid = [{position: 1.0 for position in range(0, 512, 10)} for _ in range(16)]
    drawn = drawings.heatmap([str(number) for number in range(16)], grid, pieces)
    assert drawn.count("<rect") == 16 * 52
    assert len(drawn) < 200_000
    layers = {layer: {position: 1 / 512 for position in range(512)} for layer in range(31)}
    assert len(drawings.bands(layers, pieces, [])) < 4_000_000
