"""The report section of what fires: its numbers are those of the activations."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from toolkit.parts import ReportSection
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_samples, make_work
from toolkit_saes import toolkit_parts

(SECTION,) = (
    part for part in toolkit_parts() if isinstance(part, ReportSection) and part.name == "firing"
)
FIRED = {"s0": ([1, 2], [2, 3]), "s1": ([5], [])}
"""By space, the features that fire in each of two texts."""


@pytest.fixture
def tables() -> dict[str, pa.Table]:
    made = make_samples(["one", "two"])
    names = made["samples"]["sample"].to_pylist()
    same = {"model": "m", "revision": "1", "sae_hash": "h", "recipe": "r", "width": 8, "sae": "x"}
    spaces = [
        {**same, "space": space, "hookpoint": f"resid_post.{layer}", "address": f"m/{layer}"}
        for layer, space in enumerate(FIRED)
    ]
    rows: list[dict[str, Any]] = [
        {"space": space, "sample": name, "position": 0, "features": of, "values": [1.0] * len(of)}
        for space, texts in FIRED.items()
        for name, of in zip(names, texts, strict=True)
    ]
    return {
        **made,
        "spaces": pa.Table.from_pylist(spaces, schema=arrow_schema("spaces")),
        "activations": pa.Table.from_pylist(rows, schema=arrow_schema("activations")),
    }


def test_the_finding_counts_what_fires_and_where(tables: dict[str, pa.Table]) -> None:
    assert SECTION.findings
    (result,) = SECTION.findings(TableInputs(tables))
    assert result.sentence == (
        "4 of the 16 features of 2 SAEs (25.0 %) fire in at least one of 2 texts, 1.2 of an SAE "
        "at one token; most in m/0 (37.5 %), fewest in m/1 (12.5 %)."
    )
    assert (result.number, result.n) == (0.25, 2)


def test_the_section_draws_each_sae(tables: dict[str, pa.Table]) -> None:
    chart, listed = SECTION.run(TableInputs(tables))
    assert chart.html.count("<circle") == 2
    assert [row["fire"] for row in listed.data] == [3, 1]
    check_part(SECTION, work=make_work(tables=tables))


def test_a_run_that_compares_features_answers_with_the_comparison(
    tables: dict[str, pa.Table],
) -> None:
    compared = {**tables, "comparisons": pa.Table.from_pylist([], arrow_schema("comparisons"))}
    assert list(SECTION.run(TableInputs(compared))) == []
