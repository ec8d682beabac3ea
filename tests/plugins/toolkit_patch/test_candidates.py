"""Which comparison a screen draws on: rows of two are never mixed, however groups are called."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from toolkit.errors import DataError
from toolkit.features.comparisons import Comparison
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs, make_comparison, make_comparisons
from toolkit_patch.screen.candidates import read_features


def compared(comparison: Comparison, number: float) -> dict[str, pa.Table]:
    """One feature, as a comparison writes it."""
    stats = [(stat, comparison.name) for stat in ("d", "q")]
    stats += [(stat, group) for stat in ("mean", "density") for group in comparison.group_names]
    rows: list[dict[str, Any]] = [
        {
            "space": "s",
            "feature": 1,
            "stat": stat,
            "group": group,
            "number": number,
            "comparison": comparison.id,
        }
        for stat, group in [*stats, ("fired", "")]
    ]
    features = pa.Table.from_pylist(rows, schema=arrow_schema("features"))
    return {"features": features, "comparisons": make_comparisons(comparison)}


def joined(*parts: dict[str, pa.Table]) -> TableInputs:
    return TableInputs(
        {name: pa.concat_tables([part[name] for part in parts]) for name in parts[0]}
    )


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("between", [None, ("a", "b")])
def test_rows_of_the_two_halves_of_one_contrast_are_never_mixed(
    order: int, between: tuple[str, str] | None
) -> None:
    select, confirm = (
        make_comparison("a", "b", id=half, half=half) for half in ("select", "confirm")
    )
    parts = [compared(select, 2.0), compared(confirm, 0.01)][::order]
    result = read_features(joined(*parts), between, "confirm")
    assert result.comparison.id == "select"
    assert (result.d.tolist(), result.values.tolist()) == ([2.0], [[2.0, 2.0]])


def test_halves_that_another_seed_drew_are_refused() -> None:
    made = compared(make_comparison("a", "b", half="select", seed=7), 1.0)
    with pytest.raises(DataError, match=r"split by seed 7 and those of this stage by seed 42, so"):
        read_features(TableInputs(made), None, "confirm", 42)
    for half, seed in (("confirm", 7), ("all", 42)):
        assert read_features(TableInputs(made), None, half, seed).feature.tolist() == [1]


def test_two_tests_of_one_half_are_refused_by_name() -> None:
    both = [
        compared(make_comparison("a", "b", id=test, test=test, half="select"), 1.0)
        for test in ("welch", "auroc")
    ]
    with pytest.raises(DataError, match="auroc, half select, welch, half select"):
        read_features(joined(*both), None, "confirm")


def test_a_group_may_be_called_as_a_contrast_is() -> None:
    made = compared(make_comparison("cat vs dog", "mouse", half="select"), 1.0)
    for between in (None, ("cat vs dog", "mouse")):
        result = read_features(TableInputs(made), between, "confirm")
        assert result.groups == ("cat vs dog", "mouse")
        assert result.feature.tolist() == [1]
