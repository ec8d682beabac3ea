"""What a plan says a comparison can find: the numbers against SciPy and simulation, before and
after the samples are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from scipy import stats

from toolkit._plan.power import (
    POWER,
    _clusters,
    _counted,
    _shared_out,
    smallest,
    smallest_eta2,
    smallest_r,
)
from toolkit.costs import PlannedComparison
from toolkit.parts import StagePart
from toolkit_stats import toolkit_parts
from toolkit_store import open_store


@pytest.mark.parametrize("sizes", [(4, 46), (20, 20), (211, 6189)])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 1_015_808])
def test_the_effect_has_the_power_that_is_reported(sizes: tuple[int, int], alpha: float) -> None:
    effect = smallest(*sizes, alpha)
    assert effect is not None
    a, b = sizes
    shift = effect / np.sqrt(1 / a + 1 / b)
    df = (1 / a + 1 / b) ** 2 / (1 / a**2 / (a - 1) + 1 / b**2 / (b - 1))
    edge = stats.t.isf(alpha / 2, min(sizes) - 1)
    assert stats.nct.sf(edge, df, shift) == pytest.approx(POWER, abs=1e-6)


def test_it_is_found_4_times_out_of_5() -> None:
    effect = smallest(15, 40, 0.01)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4000, 15)) + effect, rng.normal(size=(4000, 40))
    t = np.abs(stats.ttest_ind(a, b, axis=1, equal_var=False).statistic)
    assert (2 * stats.t.sf(t, 14) < 0.01).mean() == pytest.approx(POWER, abs=0.025)
    assert effect > stats.norm.isf(0.005) * np.sqrt(1 / 15 + 1 / 40)


def test_a_small_group_is_not_helped_by_a_large_one() -> None:
    small, large = smallest(5, 100, 1e-6), smallest(50, 55, 1e-6)
    assert small is not None
    assert large is not None
    assert small > 10 * large


@pytest.mark.parametrize(("units", "alpha"), [(20, 0.05), (60, 0.001), (400, 0.05)])
def test_a_correlation_of_the_size_that_is_told_is_found_4_times_out_of_5(
    units: int, alpha: float
) -> None:
    computed = smallest_r(units, alpha)
    assert computed is not None
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 6000, units))
    y = computed * x + np.sqrt(1 - computed**2) * noise
    x, y = (
        (sample - sample.mean(axis=1, keepdims=True)) / sample.std(axis=1, keepdims=True)
        for sample in (x, y)
    )
    r = (x * y).mean(axis=1)
    p = 2 * stats.t.sf(np.abs(r) * np.sqrt((units - 2) / (1 - r**2)), units - 2)
    assert (p < alpha).mean() == pytest.approx(POWER, abs=0.025)


@pytest.mark.parametrize(
    ("counts", "alpha"), [((20, 20), 0.05), ((10, 15, 40), 0.01), ((30, 30, 30, 30), 1e-4)]
)
def test_a_spread_between_groups_of_the_size_that_is_told_is_found_4_times_out_of_5(
    counts: tuple[int, ...], alpha: float
) -> None:
    computed = smallest_eta2(counts, alpha)
    assert computed is not None
    means = np.arange(len(counts)) - np.average(np.arange(len(counts)), weights=counts)
    means *= np.sqrt(computed / (1 - computed) / np.average(means**2, weights=counts))
    rng = np.random.default_rng(2)
    groups = [
        rng.normal(mean, size=(5000, count)) for mean, count in zip(means, counts, strict=True)
    ]
    assert (stats.f_oneway(*groups, axis=1).pvalue < alpha).mean() == pytest.approx(
        POWER, abs=0.025
    )


def test_two_groups_are_several_too() -> None:
    """The two-sided t test at both groups' degrees of freedom, and Fisher's F, are one test."""
    computed = smallest_eta2((30, 30), 0.01)
    assert computed is not None
    d = np.sqrt(4 * computed / (1 - computed))
    edge = stats.t.isf(0.005, 58)
    assert stats.nct.sf(edge, 58, d / np.sqrt(2 / 30)) == pytest.approx(POWER, abs=1e-4)


def test_more_units_show_less_and_too_few_nothing() -> None:
    assert smallest_r(3, 0.05) is None
    assert smallest_eta2((1, 1), 0.05) is None
    assert smallest_eta2((60,), 0.05) is None
    assert smallest_eta2((0, 60), 0.05) is None
    many = [smallest_r(units, 1e-8) for units in (20, 100, 1000)]
    assert many == sorted(many, reverse=True)
    several = [smallest_eta2((units,) * 3, 1e-8) for units in (20, 100, 1000)]
    assert several == sorted(several, reverse=True)


def counted(asked: PlannedComparison, key: dict[str, Any]) -> dict[str, int] | None:
    samples = [
        {"sample": f"s{index}", "unit": f"u{index // 2}", "cluster": "same"} for index in range(60)
    ]
    meta = [
        {"sample": f"s{index}", "string": None, "number": None, **row(index)}
        for name, row in key.items()
        for index in range(60)
    ]
    tables = {"samples": pa.Table.from_pylist(samples), "sample_meta": pa.Table.from_pylist(meta)}
    plan: Any = SimpleNamespace(loaded=SimpleNamespace(spec=SimpleNamespace(seed=0)))
    return _counted(asked, plan, lambda name, rows: tables[name], [])


def test_what_is_counted_is_what_the_comparison_takes_for_independent() -> None:
    key = {
        "g": lambda at: {"key": "g", "number": 1e6 if at < 30 else 0.1234567},
        "day": lambda at: {"key": "day", "string": f"d{at // 10}"},
    }
    groups = ("1000000", "0.1234567")
    assert counted(PlannedComparison(by="g", groups=("1e+06", None)), key) is None
    assert counted(PlannedComparison(by="g", groups=groups), key) == {"1000000": 1, "0.1234567": 1}
    assert counted(PlannedComparison(by="g", groups=groups, cluster="none"), key) == {
        "1000000": 15,
        "0.1234567": 15,
    }
    assert counted(
        PlannedComparison(by="g", groups=groups, cluster="none", unit="sample"), key
    ) == {
        "1000000": 30,
        "0.1234567": 30,
    }
    assert counted(PlannedComparison(by="g", groups=groups, cluster="none", unit="day"), key) == {
        "1000000": 3,
        "0.1234567": 3,
    }
    assert (
        counted(PlannedComparison(by="g", groups=groups, cluster="none", unit="month"), key) is None
    )


def test_units_are_counted_of_a_number_and_of_several_groups() -> None:
    key = {"g": lambda at: {"key": "g", "number": float(at // 20)}}
    free = {"by": "g", "cluster": "none"}
    assert counted(PlannedComparison(**free, groups=None, effect="r"), key) == {"g": 30}
    assert counted(PlannedComparison(**free, groups=("0", "2"), effect="r"), key) == {"g": 20}
    assert counted(PlannedComparison(**free, groups=None, effect="eta2"), key) == {
        "0": 10,
        "1": 10,
        "2": 10,
    }
    assert counted(PlannedComparison(**free, groups=("0", "1"), effect="eta2"), key) == {
        "0": 10,
        "1": 10,
    }
    assert counted(PlannedComparison(by="h", groups=None, effect="r"), key) is None
    half = counted(PlannedComparison(**free, groups=None, effect="r", half="confirm"), key)
    assert half is not None
    assert 0 < half["g"] < 30


def test_units_that_are_to_come_are_shared_out_over_the_groups() -> None:
    assert _shared_out(PlannedComparison(by="g", groups=("a", None)), 21) == {"a": 10, "rest": 10}
    assert _shared_out(PlannedComparison(by="g", groups=("a", "b", "c"), effect="eta2"), 21) == {
        "a": 7,
        "b": 7,
        "c": 7,
    }
    assert _shared_out(PlannedComparison(by="g", groups=None, effect="eta2"), 21) == {
        "another": 10,
        "one": 10,
    }
    assert _shared_out(PlannedComparison(by="g", groups=None, effect="r"), 21) == {"g": 21}


@pytest.mark.parametrize(
    ("name", "params", "groups", "effect", "half"),
    [
        ("compare.correlation", {"by": "g", "half": "select"}, None, "r", "select"),
        ("compare.ranking", {"by": "g", "labels": [0, 1, 2.5]}, ("0", "1", "2.5"), "r", "confirm"),
        ("compare.anova", {"by": "g"}, None, "eta2", "all"),
        (
            "compare.kruskal",
            {"by": "g", "between": ["a", "b", "c"]},
            ("a", "b", "c"),
            "eta2",
            "all",
        ),
    ],
)
def test_trends_rankings_and_several_groups_say_what_they_compare(
    name: str, params: dict[str, Any], groups: Any, effect: str, half: str
) -> None:
    part = {part.name: part for part in toolkit_parts()}[name]
    assert isinstance(part, StagePart)
    assert part.estimates.comparison is not None
    asked = part.estimates.comparison(part.params.model_validate(params), {})
    assert (asked.groups, asked.effect, asked.half, asked.by) == (groups, effect, half, "g")


def test_a_plan_and_a_preregistration_have_the_trend_and_the_groups(toolkit: Any, toy: Any) -> None:
    spec = toy(n=24)
    stages = [
        {
            "id": "trend",
            "uses": "compare.correlation",
            "needs": ["features"],
            "with": {"by": "group"},
        },
        {
            "id": "several",
            "uses": "compare.anova",
            "needs": ["features"],
            "with": {"by": "group", "family": "space"},
        },
        {"id": "ranked", "uses": "compare.ranking", "needs": ["features"], "with": {"by": "group"}},
    ]
    more = "".join(f"- {json.dumps(stage)}\n" for stage in stages)
    spec.write_text(
        spec.read_text().replace("- id: groups", f"{more}- id: groups") + "limit: {units: 20}\n"
    )
    done = toolkit.run("plan", spec, "--json")
    assert done.returncode == 0, done.stderr
    results = {row["stage"]: row["power"] for row in json.loads(done.stdout)["stages"]}
    assert (results["trend"]["groups"], results["trend"]["r"]) == (
        {"group": 20},
        smallest_r(20, 0.05),
    )
    assert (results["several"]["exact"], results["several"]["eta2"]) == (
        False,
        smallest_eta2((10, 10), 0.05),
    )
    assert (results["ranked"]["groups"], results["ranked"]["r"]) == (
        {"group": 10},
        smallest_r(10, 0.05),
    )
    lines = {
        line.split()[0]: line
        for line in toolkit.run("plan", spec).stdout.splitlines()
        if " unknown " in line
    }
    assert f"|r| >= {results['trend']['r']:.2f}" in lines["trend"]
    assert f"eta2 >= {results['several']['eta2']:.2f}" in lines["several"]


def test_comparisons_tell_the_plan_what_is_independent() -> None:
    parts = {part.name: part for part in toolkit_parts()}
    params = {"by": "g", "between": ("a", "rest"), "cluster": "none", "unit": "game"}
    for name in ("compare.welch", "compare.residual"):
        part = parts[name]
        assert isinstance(part, StagePart)
        assert part.estimates.comparison is not None
        asked = part.estimates.comparison(part.params.model_validate(params), {})
        assert (asked.unit, asked.cluster, asked.groups) == ("unit", "none", ("a", None))


def test_a_spread_needs_two() -> None:
    assert smallest(1, 60, 0.05) is None
    assert smallest(2, 2, 0.05) is not None


def test_units_and_equal_prompts_hold_samples_together() -> None:
    assert (
        _clusters(
            [("u1", "p1"), ("u1", "p2"), ("u2", "p2"), ("u3", "p3"), ("u4", "p3"), ("u5", "p5")]
        )
        == 3
    )
    assert _clusters([]) == 0


COUNTED = '''
from toolkit import hookimpl
from toolkit.costs import PlannedComparison
from toolkit.parts import Estimates, Params, StagePart


class Two(Params):
    """Nothing to say."""


@hookimpl
def toolkit_parts():
    yield StagePart(
        name="compare.two",
        help="Compares nothing.",
        params=Two,
        run=lambda work: iter(()),
        reads=("samples", "sample_meta"),
        writes=("features",),
        estimates=Estimates(
            comparison=lambda params, model: PlannedComparison(
                by="group", groups=("even", None), family=model.get("family", 40)
            )
        ),
    )
'''


def planned(toolkit: Any, spec: Any, plugin: Any, *args: str) -> dict[str, Any]:
    done = toolkit.run("plan", spec, "--plugin", plugin, "--json", *args)
    assert done.returncode == 0, done.stderr
    return {row["stage"]: row["power"] for row in json.loads(done.stdout)["stages"]}


def test_a_family_that_nobody_knows_is_called_unknown(toolkit, toy, tmp_path) -> None:
    plugin, spec = tmp_path / "two.py", toy(n=24)
    plugin.write_text(COUNTED.replace('model.get("family", 40)', "None"))
    spec.write_text(
        spec.read_text().replace("- id: groups", "- {id: two, uses: compare.two}\n- id: groups")
        + "limit: {units: 20}\n"
    )
    (line,) = [
        line
        for line in toolkit.run("plan", spec, "--plugin", plugin).stdout.splitlines()
        if "even <= 10" in line
    ]
    assert line.split()[-4:-1] == ["unknown", "|d|", ">="]


@pytest.mark.slow
def test_a_plan_tells_bounds_first_and_counts_units_once_the_samples_are_there(
    toolkit, toy, tmp_path
) -> None:
    plugin = tmp_path / "two.py"
    plugin.write_text(COUNTED)
    spec = toy(n=24)
    text = spec.read_text().replace("- id: groups", "- {id: two, uses: compare.two}\n- id: groups")
    spec.write_text(text + "limit: {units: 20}\n")
    result = planned(toolkit, spec, plugin)
    assert result["features"] is None
    assert result["two"]["groups"] == {"even": 10, "rest": 10}
    assert result["two"]["exact"] is False
    assert result["two"]["d"] == pytest.approx(smallest(10, 10, 0.05 / 40))
    output = toolkit.run("plan", spec, "--plugin", plugin).stdout
    assert "even <= 10, rest <= 10" in output
    assert f">= {result['two']['d']:.2f}" in output
    assert toolkit.run("run", spec, "--plugin", plugin).returncode == 0
    result = planned(toolkit, spec, plugin)
    assert result["two"]["exact"] is True
    assert sum(result["two"]["groups"].values()) == 20


def with_stages(spec: Path, stages: list[dict[str, Any]]) -> None:
    result = yaml.safe_load(spec.read_text())
    spec.write_text(json.dumps({**result, "stages": [*result["stages"], *stages]}, indent=1))


@pytest.mark.slow
def test_a_run_confirms_what_it_chose_and_its_plan_says_that_the_family_is_not_known(
    toolkit, toy
) -> None:
    spec = toy(n=48)
    with_ = {"by": "group", "between": ["even", "odd"], "alpha": 0.999}
    halves = {"select": {"half": "select"}, "confirm": {"half": "confirm", "family": "discovered"}}
    needs = {"select": ["features"], "confirm": ["features", "select"]}
    stages = [
        {"id": id, "uses": "compare.welch", "needs": needs[id], "with": with_ | units}
        for id, units in halves.items()
    ]
    with_stages(spec, stages)
    assert toolkit.run("run", spec).returncode == 0
    store = open_store(toolkit.store, read_only=True)
    select, confirm = (
        store.read("features", [row.key for row in store.steps(stage=id)]).to_pylist()
        for id in halves
    )
    chosen = {row["feature"] for row in select if row["stat"] == "significant" and row["number"]}
    assert 0 < len(chosen) < len({row["feature"] for row in select})
    assert {row["feature"] for row in confirm} <= chosen
    compared = {row["comparison"] for row in confirm if row["stat"] == "q"}
    steps = [row.key for row in store.steps(stage="confirm")]
    comparisons = store.read("comparisons", steps).to_pylist()
    assert {row["comparison"] for row in comparisons} == compared
    assert [(row["test"], row["half"], row["correction"]) for row in comparisons] == [
        ("welch", "confirm", "bh")
    ]
    assert comparisons[0]["family"] == "discovered"
    assert sum(space["features"] for space in comparisons[0]["tested"]) == len(chosen)
    line = next(
        line
        for line in toolkit.run("plan", spec).stdout.splitlines()
        if line.startswith("confirm") and "unknown" in line
    )
    assert " unknown " in line
    assert ">= " in line


@pytest.mark.slow
def test_discoveries_of_all_units_are_refused_by_the_run(toolkit, toy) -> None:
    spec = toy(n=48)
    with_ = {"by": "group", "between": ["even", "odd"]}
    confirm = {"half": "confirm", "family": "discovered"}
    stages = [
        {"id": "all", "uses": "compare.welch", "needs": ["features"], "with": with_},
        {
            "id": "confirm",
            "uses": "compare.welch",
            "needs": ["features", "all"],
            "with": with_ | confirm,
        },
    ]
    with_stages(spec, stages)
    done = toolkit.run("run", spec)
    assert done.returncode != 0
    assert (
        "compared 'even vs odd' on all units; units that chose a feature cannot confirm it"
        in done.stderr
    )
    spec.write_text(spec.read_text().replace('"half": "confirm"', '"half": "all"'))
    assert (
        "tested on units that did not select the features: half: confirm"
        in toolkit.run("plan", spec).stderr
    )
