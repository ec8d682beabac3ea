"""What a plan says a comparison can find: the numbers against SciPy and simulation, before and after the samples are there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from toolkit._power import POWER, _clusters, smallest


@pytest.mark.parametrize("sizes", [(4, 46), (20, 20), (211, 6189)])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 1_015_808])
def test_the_effect_has_the_power_that_is_told(sizes: tuple[int, int], alpha: float) -> None:
    effect = smallest(*sizes, alpha)
    assert effect is not None
    shift = effect / np.sqrt(1 / sizes[0] + 1 / sizes[1])
    df = sum(sizes) - 2
    edge = stats.t.isf(alpha / 2, df)
    assert stats.nct.sf(edge, df, shift) == pytest.approx(POWER, abs=1e-6)


def test_it_is_found_4_times_out_of_5() -> None:
    effect = smallest(15, 40, 0.01)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4000, 15)) + effect, rng.normal(size=(4000, 40))
    assert (stats.ttest_ind(a, b, axis=1).pvalue < 0.01).mean() == pytest.approx(POWER, abs=0.025)


def test_a_spread_needs_two() -> None:
    assert smallest(1, 60, 0.05) is None
    assert smallest(2, 2, 0.05) is not None


def test_units_and_equal_prompts_hold_samples_together() -> None:
    assert _clusters([("u1", "p1"), ("u1", "p2"), ("u2", "p2"), ("u3", "p3"), ("u4", "p3"), ("u5", "p5")]) == 3
    assert _clusters([]) == 0


COUNTED = '''
from toolkit import hookimpl
from toolkit.records import Comparison, Params, StagePart


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
