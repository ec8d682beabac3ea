"""Select and confirm: halves that share no unit and no prompt, in every stage and in the plan."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_stats.comparison_tables import (
    joined,
    outputs,
    run,
    sample,
    sizes,
    tables,
)
from toolkit._plan.power import _counted
from toolkit.costs import PlannedComparison
from toolkit.errors import DataError
from toolkit.features.comparisons import comparisons_of, distinct_labels, rows_of
from toolkit.statistics.halves import in_half
from toolkit.statistics.randomness import half
from toolkit.testing.fakes import make_work
from toolkit_stats.baselines.leak import Leak
from toolkit_stats.samples.groups import group_design, trend_design
from toolkit_stats.samples.labelled import two_groups
from toolkit_stats.samples.params import Means, Trend

PAIR = {"by": "group", "between": ("a", "b")}
UNITS, PROMPTS = 120, 40


def crossing(prompts: int = PROMPTS) -> dict[str, pa.Table]:
    """Units of one sample each, which share few prompts; every prompt is of one group, and every
    third unit has one of its own.
    """
    names = [f"u{index:03d}" for index in range(UNITS)]
    prompt = [f"own{index}" if index % 3 == 0 else f"p{index % prompts}" for index in range(UNITS)]
    rows = [sample(name, name, text) for name, text in zip(names, prompt, strict=True)]
    rng = np.random.default_rng(0)
    fired = [("s1", name, 0, {1: float(rng.random())}) for name in names]
    return tables(
        rows,
        ["ab"[index % 2] for index in range(UNITS)],
        fired,
        number=[float(index % 7) for index in range(UNITS)],
    )


def prompts_of(inputs: dict[str, pa.Table], names: list[str]) -> set[str]:
    cluster = {row["sample"]: row["cluster"] for row in inputs["samples"].to_pylist()}
    return {cluster[name] for name in names}


def designs(inputs: dict[str, pa.Table], **params: Any) -> dict[str, list[str]]:
    """The samples of each half."""
    return {
        part: group_design(make_work(Means(**PAIR, half=part, **params), inputs)).samples
        for part in ("all", "select", "confirm")
    }


def test_no_prompt_is_in_both_halves() -> None:
    inputs = crossing()
    result = designs(inputs)
    select, confirm = (prompts_of(inputs, result[part]) for part in ("select", "confirm"))
    assert not select & confirm
    assert {half(0, name) for name in result["confirm"]} == {"confirm"}
    halved = {
        part: {name for name in result["all"] if half(0, name) == part}
        for part in ("select", "confirm")
    }
    assert set(result["select"]) == halved["select"]
    left = halved["confirm"] - set(result["confirm"])
    assert left
    assert prompts_of(inputs, sorted(left)) <= select


def test_units_that_are_independent_all_the_same_keep_their_prompts() -> None:
    inputs = crossing()
    result = designs(inputs, cluster="none")
    assert set(result["confirm"]) == {name for name in result["all"] if half(0, name) == "confirm"}
    assert prompts_of(inputs, result["select"]) & prompts_of(inputs, result["confirm"])


def test_who_is_left_out_does_not_depend_on_labels() -> None:
    """A prompt that only unlabelled samples of the select half have is left out as well."""
    inputs = crossing()
    meta = inputs["sample_meta"].to_pylist()
    names = {row["sample"]: row["unit"] for row in inputs["samples"].to_pylist()}
    kept = [
        row for row in meta if half(0, names[row["sample"]]) == "confirm" or row["key"] != "group"
    ]
    inputs["sample_meta"] = pa.Table.from_pylist(kept, schema=inputs["sample_meta"].schema)
    confirm = group_design(make_work(Means(**PAIR, half="confirm"), inputs)).samples
    assert confirm == designs(crossing())["confirm"]


def test_the_size_of_a_group_says_how_many_were_left_out() -> None:
    inputs = crossing()
    result = designs(inputs)
    confirmed = set(result["confirm"])
    left = sum(
        half(0, name) == "confirm" and name not in confirmed for name in result["all"][: UNITS // 2]
    )
    text = sizes("welch", inputs, **PAIR, half="confirm")["a"]
    assert f", {left} left out whose prompts the select half has" in text
    assert "left out" not in sizes("welch", inputs, **PAIR, half="select")["a"]
    data = two_groups(make_work(Leak(**PAIR, half="confirm"), inputs))
    assert f", {left} left out whose prompts the select half has; b: " in data.sizes()
    assert set(data.samples) == confirmed


def test_a_trend_goes_by_the_same_samples() -> None:
    inputs = crossing()
    design, _ = trend_design(make_work(Trend(by="number", half="confirm"), inputs))
    assert set(design.samples) == set(designs(inputs)["confirm"])


def test_a_group_whose_every_prompt_is_in_the_select_half_is_refused() -> None:
    names = [f"n{index}" for index in range(60)]
    rows = [
        sample(name, name, f"p{index % 4}" if index < 30 else name)
        for index, name in enumerate(names)
    ]
    inputs = tables(rows, ["a"] * 30 + ["b"] * 30, [])
    count = sum(half(0, name) == "confirm" for name in names[:30])
    message = re.escape(
        f"between: all {count} samples with group 'a' in the half 'confirm' have prompts that the "
        "select half has too, so that nothing new is left to confirm on. Give the experiment more "
        "distinct prompts, or set `cluster: none`"
    )
    with pytest.raises(DataError, match=message):
        run("welch", inputs, **PAIR, half="confirm")


def test_a_plan_counts_what_the_comparison_takes() -> None:
    inputs = crossing()
    plan: Any = SimpleNamespace(loaded=SimpleNamespace(spec=SimpleNamespace(seed=0)))
    for cluster in ("prompt", "none"):
        asked = PlannedComparison(by="group", groups=("a", "b"), half="confirm", cluster=cluster)
        design = group_design(make_work(Means(**PAIR, half="confirm", cluster=cluster), inputs))
        expected = {group.name: group.count for group in design.groups}
        assert _counted(asked, plan, lambda name, rows: inputs[name], []) == expected


# --- rows -----------------------------------------------------------------------------------------


def test_rows_of_two_halves_are_never_mixed() -> None:
    """Groups, features and statistics are the same; the comparison tells the rows apart."""
    inputs = crossing()
    both = {
        part: outputs("welch", inputs, **PAIR, half=part) for part in ("confirm", "all", "select")
    }
    every = joined(*both.values())
    result = comparisons_of(every["comparisons"])
    assert [(group.name, group.label) for group in result] == [
        ("a vs b", "welch"),
        ("a vs b", "welch, half confirm"),
        ("a vs b", "welch, half select"),
    ]
    for group in result:
        assert rows_of(every["features"], group).equals(both[group.half]["features"])
    assert len(set(distinct_labels(result).values())) == 3


def test_all_units_are_all_samples() -> None:
    rows = crossing()["samples"].to_pylist()
    assert in_half(0, rows, "all") == ({row["sample"] for row in rows}, set())
