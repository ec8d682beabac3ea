"""What a plan says a comparison can find: the numbers against SciPy and simulation, before and after the samples are there."""

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

from toolkit._power import POWER, _clusters, _counted, smallest
from toolkit.pricing import Comparison
from toolkit.records import StagePart
from toolkit_stats import toolkit_parts
from toolkit_store import open_store


@pytest.mark.parametrize("sizes", [(4, 46), (20, 20), (211, 6189)])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 1_015_808])
def test_the_effect_has_the_power_that_is_told(sizes: tuple[int, int], alpha: float) -> None:
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


def counted(asked: Comparison, key: dict[str, Any]) -> dict[str, int] | None:
    samples = [{"sample": f"s{at}", "unit": f"u{at // 2}", "cluster": "same"} for at in range(60)]
    meta = [{"sample": f"s{at}", "string": None, "number": None, **row(at)} for name, row in key.items() for at in range(60)]
    tables = {"samples": pa.Table.from_pylist(samples), "sample_meta": pa.Table.from_pylist(meta)}
    plan: Any = SimpleNamespace(loaded=SimpleNamespace(spec=SimpleNamespace(seed=0)))
    return _counted(asked, plan, lambda name, rows: tables[name], [])


def test_what_is_counted_is_what_the_comparison_takes_for_independent() -> None:
    key = {
        "g": lambda at: {"key": "g", "number": 1e6 if at < 30 else 0.1234567},
        "day": lambda at: {"key": "day", "string": f"d{at // 10}"},
    }
    groups = ("1000000", "0.1234567")
    assert counted(Comparison(by="g", groups=("1e+06", None)), key) is None
    assert counted(Comparison(by="g", groups=groups), key) == {"1000000": 1, "0.1234567": 1}
    assert counted(Comparison(by="g", groups=groups, cluster="none"), key) == {"1000000": 15, "0.1234567": 15}
    assert counted(Comparison(by="g", groups=groups, cluster="none", unit="sample"), key) == {"1000000": 30, "0.1234567": 30}
    assert counted(Comparison(by="g", groups=groups, cluster="none", unit="day"), key) == {"1000000": 3, "0.1234567": 3}
    assert counted(Comparison(by="g", groups=groups, cluster="none", unit="month"), key) is None


def test_comparisons_tell_the_plan_what_is_independent() -> None:
    parts = {part.name: part for part in toolkit_parts()}
    given = {"by": "g", "between": ("a", "rest"), "cluster": "none", "unit": "game"}
    for name in ("compare.welch", "compare.residual"):
        part = parts[name]
        assert isinstance(part, StagePart)
        assert part.compares is not None
        asked = part.compares(part.params.model_validate(given), {})
        assert (asked.unit, asked.cluster, asked.groups) == ("unit", "none", ("a", None))


def test_a_spread_needs_two() -> None:
    assert smallest(1, 60, 0.05) is None
    assert smallest(2, 2, 0.05) is not None


def test_units_and_equal_prompts_hold_samples_together() -> None:
    assert _clusters([("u1", "p1"), ("u1", "p2"), ("u2", "p2"), ("u3", "p3"), ("u4", "p3"), ("u5", "p5")]) == 3
    assert _clusters([]) == 0


COUNTED = '''
from toolkit import hookimpl
from toolkit.pricing import Comparison
from toolkit.records import Params, StagePart


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
        compares=lambda params, model: Comparison(by="group", groups=("even", None), family=model.get("family", 40)),
    )
'''


def planned(toolkit: Any, spec: Any, plugin: Any, *args: str) -> dict[str, Any]:
    done = toolkit.run("plan", spec, "--plugin", plugin, "--json", *args)
    assert done.returncode == 0, done.stderr
    return {row["stage"]: row["power"] for row in json.loads(done.stdout)["stages"]}


def test_a_plan_tells_bounds_first_and_counts_units_once_the_samples_are_there(toolkit, toy, tmp_path) -> None:
    plugin = tmp_path / "two.py"
    plugin.write_text(COUNTED)
    spec = toy(n=24)
    text = spec.read_text().replace("- id: groups", "- {id: two, uses: compare.two}\n- id: groups")
    spec.write_text(text + "limit: {units: 20}\n")
    found = planned(toolkit, spec, plugin)
    assert found["features"] is None
    assert found["two"]["groups"] == {"even": 10, "rest": 10}
    assert found["two"]["exact"] is False
    assert found["two"]["d"] == pytest.approx(smallest(10, 10, 0.05 / 40))
    said = toolkit.run("plan", spec, "--plugin", plugin).stdout
    assert "even <= 10, rest <= 10" in said
    assert f">= {found['two']['d']:.2f}" in said
    assert toolkit.run("run", spec, "--plugin", plugin).returncode == 0
    found = planned(toolkit, spec, plugin)
    assert found["two"]["exact"] is True
    assert sum(found["two"]["groups"].values()) == 20


def with_stages(spec: Path, stages: list[dict[str, Any]]) -> None:
    found = yaml.safe_load(spec.read_text())
    spec.write_text(json.dumps({**found, "stages": [*found["stages"], *stages]}, indent=1))


def test_a_run_confirms_what_it_chose_and_its_plan_says_that_the_family_is_not_known(toolkit, toy) -> None:
    spec = toy(n=48)
    with_ = {"by": "group", "between": ["even", "odd"], "alpha": 0.999}
    halves = {"select": {"half": "select"}, "confirm": {"half": "confirm", "family": "discovered"}}
    needs = {"select": ["features"], "confirm": ["features", "select"]}
    stages = [{"id": id, "uses": "compare.welch", "needs": needs[id], "with": with_ | own} for id, own in halves.items()]
    with_stages(spec, stages)
    assert toolkit.run("run", spec).returncode == 0
    store = open_store(toolkit.store, read_only=True)
    select, confirm = (store.read("features", [row.key for row in store.steps(stage=id)]).to_pylist() for id in halves)
    chosen = {row["feature"] for row in select if row["stat"] == "significant" and row["number"]}
    assert 0 < len(chosen) < len({row["feature"] for row in select})
    assert {row["feature"] for row in confirm} <= chosen
    assert {row["text"].partition(", alpha")[0] for row in confirm if row["stat"] == "q"} == {
        f"welch, half confirm: bh over {len(chosen)} features that the select half found"
    }
    line = next(
        line for line in toolkit.run("plan", spec).stdout.splitlines() if line.startswith("confirm") and "unknown" in line
    )
    assert "1 (unknown)" in line
    assert ">= " in line


def test_discoveries_of_all_units_are_refused_by_the_run(toolkit, toy) -> None:
    spec = toy(n=48)
    with_ = {"by": "group", "between": ["even", "odd"]}
    confirm = {"half": "confirm", "family": "discovered"}
    stages = [
        {"id": "all", "uses": "compare.welch", "needs": ["features"], "with": with_},
        {"id": "confirm", "uses": "compare.welch", "needs": ["features", "all"], "with": with_ | confirm},
    ]
    with_stages(spec, stages)
    done = toolkit.run("run", spec)
    assert done.returncode != 0
    assert "compared 'even vs odd' on all units; units that chose a feature cannot confirm it" in done.stderr
    spec.write_text(spec.read_text().replace('"half": "confirm"', '"half": "all"'))
    assert "tested on units that chose nothing: half: confirm" in toolkit.run("plan", spec).stderr
