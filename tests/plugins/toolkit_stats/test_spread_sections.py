"""The report sections `layer-features` and `values-by-group`: each cell and bar is that of known
rows.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_stats.test_sections import FOUND, SPACES, compared, features, texts
from toolkit.parts import ReportSection
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_work
from toolkit.work import Figure
from toolkit_stats import toolkit_parts

SECTIONS = {part.name: part for part in toolkit_parts() if isinstance(part, ReportSection)}
HEATMAP, HISTOGRAMS = SECTIONS["layer-features"], SECTIONS["values-by-group"]


def drawn(section: ReportSection, rows: pa.Table = FOUND, **tables: pa.Table) -> list[Figure]:
    return list(section.run(TableInputs({"spaces": SPACES, **compared(rows), **tables})))


@pytest.mark.parametrize("section", [HEATMAP, HISTOGRAMS], ids=lambda section: section.name)
def test_each_keeps_the_contract_and_has_something_to_say(section: ReportSection) -> None:
    inputs = TableInputs({**compared(FOUND), "spaces": SPACES, **texts()})
    check_part(section, work=make_work(tables=inputs.by_name))
    (figure,) = section.run(inputs)
    assert figure.title == "a vs b"
    assert figure.alt
    assert figure.data
    assert list(section.run(TableInputs({}))) == []


def test_a_layer_is_a_row_of_its_features_by_size() -> None:
    (figure,) = drawn(HEATMAP)
    cells = re.findall(
        r'<rect class="(more|less)" x="([\d.]+)" y="([\d.]+)"[^>]*fill-opacity="([\d.]+)"'
        r"( stroke)?[^>]*><title>(\S+):",
        figure.html,
    )
    names = [(kind, bool(frame), name) for kind, _, _, _, frame, name in cells]
    assert names == [
        ("more", True, "2/3"),
        ("less", True, "2/7"),
        ("less", True, "10/9"),
        ("more", False, "10/11"),
    ]
    assert [cell[3] for cell in cells] == ["0.77", "0.31", "1.00", "0.13"]
    heights = [float(cell[2]) for cell in cells]
    assert heights[0] == heights[1] < heights[2] == heights[3]
    assert [row["rank"] for row in figure.data] == [1, 2, 1, 2]


def test_one_layer_has_no_heatmap() -> None:
    assert drawn(HEATMAP, features(("s0", 3, 1.5, 1e-8, 1e-6, True))) == []


def test_bars_are_shares_of_each_group_and_silence_is_a_bar() -> None:
    """Feature 9 fires in all four samples, largest 1 to 4; 11 fires in none."""
    (figure,) = drawn(HISTOGRAMS, **texts())
    rows = [row for row in figure.data if row["share"]]
    spread: dict[tuple[Any, Any], list[tuple[float, float]]] = {}
    for row in rows:
        key = row["feature"], row["group"]
        spread.setdefault(key, []).append((round(row["to"], 3), row["share"]))
    width = 4 / 14
    first = [round(width * bins, 3) for bins in (4, 8)]
    assert spread["10/9", "a"] == [(first[0], 0.5), (first[1], 0.5)]
    assert spread["10/9", "b"] == [(round(width * 11, 3), 0.5), (4.0, 0.5)]
    assert spread["10/11", "a"] == [(0.0, 1.0)]
    assert "All measured samples of both groups: 2 and 2." in figure.html


def test_without_activations_there_are_no_histograms() -> None:
    params = {name: rows for name, rows in texts().items() if name != "activations"}
    assert drawn(HISTOGRAMS, **params) == []
