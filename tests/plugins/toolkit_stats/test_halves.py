"""Select and confirm: halves that share no unit and no prompt, in every stage and in the plan."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_stats.made import run, sample, tables
from toolkit._plan.power import _counted
from toolkit.costs import PlannedComparison
from toolkit.errors import DataError
from toolkit.halves import half_of, in_half, marked, rows_of_half
from toolkit.randomness import half
from toolkit.testing.fakes import make_work
from toolkit_stats.baselines.leak import Leak
from toolkit_stats.compare.params import Means, Trend
from toolkit_stats.samples.groups import group_design, trend_design
from toolkit_stats.samples.labelled import two_groups

PAIR = {"by": "group", "between": ("a", "b")}
UNITS, PROMPTS = 120, 40


def crossing(prompts: int = PROMPTS) -> dict[str, pa.Table]:
    """Units of one sample each, which share few prompts; every prompt is of one group, and every
    third unit has one of its own.
    """
    names = [f"u{at:03d}" for at in range(UNITS)]
    prompt = [f"own{at}" if at % 3 == 0 else f"p{at % prompts}" for at in range(UNITS)]
    rows = [sample(name, name, said) for name, said in zip(names, prompt, strict=True)]
    rng = np.random.default_rng(0)
    fired = [("s1", name, 0, {1: float(rng.random())}) for name in names]
    return tables(
        rows,
        ["ab"[at % 2] for at in range(UNITS)],
        fired,
        number=[float(at % 7) for at in range(UNITS)],
    )


def prompts_of(given: dict[str, pa.Table], names: list[str]) -> set[str]:
    cluster = {row["sample"]: row["cluster"] for row in given["samples"].to_pylist()}
    return {cluster[name] for name in names}


def designs(given: dict[str, pa.Table], **params: Any) -> dict[str, list[str]]:
    """The samples of each half."""
    return {
        part: group_design(make_work(Means(**PAIR, half=part, **params), given)).samples
        for part in ("all", "select", "confirm")
    }


def test_no_prompt_is_in_both_halves() -> None:
    given = crossing()
    found = designs(given)
    select, confirm = (prompts_of(given, found[part]) for part in ("select", "confirm"))
    assert not select & confirm
    assert {half(0, name) for name in found["confirm"]} == {"confirm"}
    halved = {
        part: {name for name in found["all"] if half(0, name) == part}
        for part in ("select", "confirm")
    }
    assert set(found["select"]) == halved["select"]
    left = halved["confirm"] - set(found["confirm"])
    assert left
    assert prompts_of(given, sorted(left)) <= select


def test_units_that_are_independent_all_the_same_keep_their_prompts() -> None:
    given = crossing()
    found = designs(given, cluster="none")
    assert set(found["confirm"]) == {name for name in found["all"] if half(0, name) == "confirm"}
    assert prompts_of(given, found["select"]) & prompts_of(given, found["confirm"])


def test_who_is_left_out_does_not_depend_on_labels() -> None:
    """A prompt that only unlabelled samples of the select half have is left out as well."""
    given = crossing()
    meta = given["sample_meta"].to_pylist()
    names = {row["sample"]: row["unit"] for row in given["samples"].to_pylist()}
    kept = [
        row for row in meta if half(0, names[row["sample"]]) == "confirm" or row["key"] != "group"
    ]
    given["sample_meta"] = pa.Table.from_pylist(kept, schema=given["sample_meta"].schema)
    confirm = group_design(make_work(Means(**PAIR, half="confirm"), given)).samples
    assert confirm == designs(crossing())["confirm"]


def test_the_size_of_a_group_says_how_many_were_left_out() -> None:
    given = crossing()
    found = designs(given)
    own = set(found["confirm"])
    left = sum(
        half(0, name) == "confirm" and name not in own for name in found["all"][: UNITS // 2]
    )
    text = run("welch", given, **PAIR, half="confirm")["s1", 1, "mean", "a"]["text"]
    assert f", {left} left out whose prompts the select half has" in text
    assert (
        "left out" not in run("welch", given, **PAIR, half="select")["s1", 1, "mean", "a"]["text"]
    )
    data = two_groups(make_work(Leak(**PAIR, half="confirm"), given))
    assert f", {left} left out whose prompts the select half has; b: " in data.sizes()
    assert set(data.samples) == own


def test_a_trend_goes_by_the_same_samples() -> None:
    given = crossing()
    design, _ = trend_design(make_work(Trend(by="number", half="confirm"), given))
    assert set(design.samples) == set(designs(given)["confirm"])


def test_a_group_whose_every_prompt_is_in_the_select_half_is_refused() -> None:
    names = [f"n{at}" for at in range(60)]
    rows = [sample(name, name, f"p{at % 4}" if at < 30 else name) for at, name in enumerate(names)]
    given = tables(rows, ["a"] * 30 + ["b"] * 30, [])
    count = sum(half(0, name) == "confirm" for name in names[:30])
    said = re.escape(
        f"between: all {count} samples with group 'a' in the half 'confirm' have prompts that the "
        "select half has too, so that nothing new is left to confirm on. Give the experiment more "
        "distinct prompts, or say `cluster: none`"
    )
    with pytest.raises(DataError, match=said):
        run("welch", given, **PAIR, half="confirm")


def test_a_plan_counts_what_the_comparison_takes() -> None:
    given = crossing()
    plan: Any = SimpleNamespace(loaded=SimpleNamespace(spec=SimpleNamespace(seed=0)))
    for cluster in ("prompt", "none"):
        asked = PlannedComparison(by="group", groups=("a", "b"), half="confirm", cluster=cluster)
        design = group_design(make_work(Means(**PAIR, half="confirm", cluster=cluster), given))
        wanted = {group.name: group.count for group in design.groups}
        assert _counted(asked, plan, lambda name, rows: given[name], []) == wanted


# --- rows -----------------------------------------------------------------------------------------


def test_rows_say_of_which_half_they_are() -> None:
    given = crossing()
    both = {part: run("welch", given, **PAIR, half=part) for part in ("all", "select", "confirm")}
    joined = pa.Table.from_pylist([row for found in both.values() for row in found.values()])
    for part, found in both.items():
        assert rows_of_half(joined, part).to_pylist() == list(found.values())
        assert {half_of(row["text"]) for row in found.values()} == {part}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "all"),
        ("half select", "select"),
        ("welch, half confirm", "confirm"),
        (
            "welch, half confirm: bh over 3 features that the select half found, alpha 0.05",
            "confirm",
        ),
        ("welch: bh over 3 features, alpha 0.05", "all"),
        ("4 samples, 2 left out whose prompts the select half has", "all"),
        ("4 samples, 2 left out whose prompts the select half has, half confirm", "confirm"),
        ("welch within another half select", "all"),
    ],
)
def test_a_mark_is_read_where_it_stands(text: str | None, part: str) -> None:
    assert half_of(text) == part
    rows = pa.table({"text": pa.array([text], pa.string())})
    assert [name for name in ("all", "select", "confirm") if len(rows_of_half(rows, name))] == [
        part
    ]


def test_a_mark_stands_at_the_end() -> None:
    assert (marked(None, "all"), marked("x", "all")) == (None, "x")
    assert (marked(None, "select"), marked("x", "confirm")) == ("half select", "x, half confirm")


def test_all_units_are_all_samples() -> None:
    rows = crossing()["samples"].to_pylist()
    assert in_half(0, rows, "all") == ({row["sample"] for row in rows}, set())
