"""Findings of comparisons and rankings, and clusters by state."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_stats import comparison_tables
from tests.plugins.toolkit_stats.test_ranking import ranked, world
from tests.plugins.toolkit_stats.test_reported import compared
from toolkit.errors import DataError
from toolkit.parts import ReportSection
from toolkit.statistics.halves import joined_by_state
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs
from toolkit.work import Finding
from toolkit_stats import toolkit_parts

FINDINGS = {
    part.name: part.findings
    for part in toolkit_parts()
    if isinstance(part, ReportSection) and part.findings
}


def findings(section: str, tables: dict[str, pa.Table]) -> list[Finding]:
    return list(FINDINGS[section](TableInputs(tables)))


def test_a_comparison_says_how_many_differ_and_which_most() -> None:
    (result,) = findings("layer-profile", compared("welch"))
    assert result.sentence.startswith(
        "4 of 16 features differ in a vs b (welch, bh, alpha 0.05); the strongest is "
    )
    assert result.sentence.endswith("40 and 40 clusters.")
    assert result.number is not None
    assert result.interval is not None
    assert result.interval[0] < result.number < result.interval[1]
    assert (result.n, result.baseline) == (80, "")


def test_a_comparison_that_found_nothing_says_so() -> None:
    (result,) = findings("layer-profile", compared("welch", min_abs_d=50.0))
    assert result.sentence.startswith(
        "None of 16 features differs in a vs b (welch, bh, alpha 0.05); the "
    )
    assert "smallest q is that of 1" in result.sentence


def row(kind: str, name: str, value: float, metric: str = "auroc") -> dict[str, Any]:
    """A baseline of a vs b."""
    same = {"contrast": "a vs b", "kind": kind, "name": name, "metric": metric, "text": ""}
    numbers = {"value": value, "low": value - 0.125, "high": value + 0.0625, "chance": 0.5}
    return {**same, **numbers, "groups": "a: 9 samples"}


def baselines(*rows: dict[str, Any]) -> dict[str, pa.Table]:
    return {"baselines": pa.Table.from_pylist(list(rows), schema=arrow_schema("baselines"))}


def test_what_metadata_reach_stands_beside_it() -> None:
    rows = [
        row("metadata", "balance", 0.15),
        row("metadata", "round", 0.6),
        row("metadata", "round", 0.99, "accuracy"),
        row("best feature", "all spaces", 0.852),
        {**row("metadata", "other", 1.0), "contrast": "a vs c"},
    ]
    (result,) = findings("layer-profile", {**compared("welch"), **baselines(*rows)})
    assert result.baseline == "balance alone reaches AUROC 0.850; the best feature 0.852"


def test_the_best_feature_stands_beside_what_needs_none() -> None:
    rows = (row("metadata", "balance", 0.75), row("best feature", "s", 0.25), row("x", "y", 1, "n"))
    (result,) = findings("baselines", baselines(*rows))
    assert result.sentence == (
        "a vs b, on held-out folds: the best single feature reaches AUROC 0.750 [0.688, 0.875] "
        "(a: 9 samples)."
    )
    assert (result.number, result.interval) == (0.75, (0.6875, 0.875))
    assert result.baseline == "balance alone reaches AUROC 0.750; the best feature 0.750"
    (alone,) = findings("baselines", baselines(rows[0]))
    assert "metadata balance reaches AUROC 0.750 [0.625, 0.812]" in alone.sentence


def test_what_chose_features_is_no_finding_where_they_were_confirmed() -> None:
    params = {name: rows for name, rows in compared("welch").items() if name != "comparisons"}
    select = comparison_tables.outputs("welch", params, half="select", between=["a", "b"])
    confirm = comparison_tables.outputs(
        "welch", {**params, **select}, half="confirm", family="discovered", between=["a", "b"]
    )
    both = findings("layer-profile", {**params, **comparison_tables.joined(select, confirm)})
    assert [("half confirm" in finding.sentence) for finding in both] == [True]
    (alone,) = findings("layer-profile", {**params, **select})
    assert "a vs b, half select (welch" in alone.sentence


def test_a_ranking_says_how_many_rise_and_which_first() -> None:
    tables = world()
    (result,) = findings("ranking", {**tables, **ranked(tables)})
    assert result.sentence.startswith("1 of 16,384 features rise with concept_strength_label")
    assert "the first is 12/7, score " in result.sentence
    label = baselines({**row("metadata", "length", 0.9), "contrast": "3 vs 0"})
    (beside,) = findings("ranking", {**tables, **ranked(tables), **label})
    assert (result.baseline, beside.baseline) == (
        "",
        "3 vs 0: length alone reaches AUROC 0.900",
    )
    none = ranked(tables, min_r=0.9999)
    (result,) = findings("ranking", {**tables, **none})
    assert result.sentence.startswith("0 of 16,384 features")


# --- clusters by state ----------------------------------------------------------------------------


def test_samples_of_one_state_are_one_cluster_also_through_prompts() -> None:
    samples = [
        {"sample": name, "cluster": prompt} for name, prompt in zip("abcd", "xxyz", strict=True)
    ]
    rows = joined_by_state(samples, {"a": "1", "b": "2", "c": "2", "d": "3"})
    labels = [row["cluster"] for row in rows]
    assert labels[0] == labels[1] == labels[2] != labels[3]


def states(*of: str) -> dict[str, pa.Table]:
    names = [f"n{index}" for index in range(len(of))]
    samples = [comparison_tables.sample(name) for name in names]
    rows = [("s1", name, 0, {1: 1.0 + index}) for index, name in enumerate(names)]
    half = len(of) // 2
    return comparison_tables.tables(samples, "a" * half + "b" * half, rows, state=of)


def test_a_comparison_takes_equal_states_for_one_piece_of_evidence() -> None:
    inputs = states("1", "2", "3", "3", "4", "5", "6", "7")
    by_state, by_prompt = (
        comparison_tables.compared("welch", inputs, between=("a", "b"), cluster=cluster)
        for cluster in ("state", "prompt")
    )
    assert [group.clusters for group in by_state.groups] == [3, 4]
    assert [group.clusters for group in by_prompt.groups] == [4, 4]
    assert by_state.cluster == "state"


def test_samples_without_a_state_are_refused_by_name() -> None:
    inputs = states("1", "2", "3", "4", "5", "6")
    meta = inputs["sample_meta"].slice(0, inputs["sample_meta"].num_rows - 1)
    with pytest.raises(DataError, match="cluster: sample 'n5' has no metadata 'state'"):
        comparison_tables.compared(
            "welch", {**inputs, "sample_meta": meta}, between=("a", "b"), cluster="state"
        )
