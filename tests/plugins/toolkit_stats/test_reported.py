"""What the report makes of each test's rows: figures of every section, both counts, twins once, two
tests of the same groups.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_stats import comparison_tables
from toolkit.parts import ReportSection
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs
from toolkit_stats import toolkit_parts
from toolkit_stats.compare.contrasts import read_contrasts

OF_CONTRASTS = ("layer-profile", "volcano", "top-features")
SECTIONS = {
    part.name: part
    for part in toolkit_parts()
    if isinstance(part, ReportSection) and part.name in OF_CONTRASTS
}
TESTS: dict[str, dict[str, Any]] = {
    "welch": {"between": ["a", "b"], "covariates": ["balance"]},
    "student": {"between": ["a", "rest"]},
    "mann_whitney": {"between": ["a", "b"]},
    "auroc": {"between": ["a", "b"]},
    "permutation": {"between": ["a", "b"], "permutations": 199},
    "correlation": {"by": "balance"},
    "anova": {},
    "kruskal": {},
}


def compared(*tests: str, **params: Any) -> dict[str, pa.Table]:
    """What these comparisons write of two features that differ and two that do not, in two SAEs of
    one site.
    """
    rng = np.random.default_rng(0)
    balance = np.repeat([1.0, 0.0], 40) + rng.normal(size=80) / 4
    dense = np.maximum(rng.normal(size=(80, 4)) + np.outer(balance, [3.0, 0.0, -3.0, 0.0]) + 1, 0)
    inputs = comparison_tables.of_dense(dense, list("a" * 40 + "b" * 40), balance=balance.tolist())
    both = [
        inputs["activations"],
        inputs["activations"].set_column(
            0, inputs["activations"].schema.field(0), pa.array(["s2"] * 80)
        ),
    ]
    inputs |= {
        "activations": pa.concat_tables(both),
        "spaces": pa.Table.from_pylist(
            [comparison_tables.space(), comparison_tables.space("s2")],
            schema=arrow_schema("spaces"),
        ),
    }
    rows = [
        comparison_tables.outputs(
            test, inputs, **{"details": "discovered", **TESTS[test], **params}
        )
        for test in tests
    ]
    return {**inputs, **comparison_tables.joined(*rows)}


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_each_section_draws_what_each_test_writes(section: ReportSection, test: str) -> None:
    figures = list(section.run(TableInputs(compared(test))))
    (symbol,) = {"correlation": "r", "anova": "η²", "kruskal": "η²"}.get(test, "d")[:1]
    assert figures
    assert symbol in figures[0].html
    assert "nan" not in figures[0].html


def test_both_counts_are_reported_and_twins_once() -> None:
    (figure,) = SECTIONS["layer-profile"].run(TableInputs(compared("welch", min_abs_d=1.5)))
    assert "welch: bh over 16 features, alpha 0.05, |d| &gt;= 1.5." in figure.html
    assert "a: 40 samples of 40 units, 40 distinct prompts, 40 clusters." in figure.html
    assert (
        "Found: 4 features by corrected p alone, 2 with the cut on the effect. "
        "With features that do the same in several SAEs of one site counted once: 2 and 1."
    ) in figure.html
    assert "differ as well given balance." in figure.html


def test_two_tests_of_the_same_groups_are_told_apart() -> None:
    tables = compared("welch", "mann_whitney")
    results = list(read_contrasts(TableInputs(tables)))
    assert [result.name for result in results] == ["a vs b, mann_whitney", "a vs b, welch"]
    assert (results[0].p != results[1].p).any()
    assert (results[0].d == results[1].d).all()
    assert [result.adjusted for result in results] == ["", "given balance"]
    assert [result.twin.sum() for result in results] == [2, 2]


def test_without_a_cut_only_one_count_is_claimed() -> None:
    (figure,) = SECTIONS["layer-profile"].run(TableInputs(compared("mann_whitney")))
    assert "features by corrected p alone, no cut on the effect." in figure.html


def test_the_table_shows_intervals_and_what_is_left_after_adjusting() -> None:
    html = next(iter(SECTIONS["top-features"].run(TableInputs(compared("welch"))))).html
    assert '<th scope="col">95\N{NO-BREAK SPACE}% interval</th>' in html
    assert '<th scope="col">d given balance</th>' in html
    assert re.search(r">\+\d\.\d\d to \+\d\.\d\d<", html)
