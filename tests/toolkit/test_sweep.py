"""`sweep:` makes one run of all combinations, with what points share computed once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from toolkit import _flow
from toolkit._run.options import RunOptions
from toolkit._spec.load import load_spec
from toolkit._spec.sweep import sweep_points
from toolkit.errors import SpecError
from toolkit_store import open_store


@pytest.fixture
def swept(toy):
    """Writes the toy spec with a sweep."""

    def write(**sweep: list) -> Path:
        path = toy()
        axes = {name.replace("__", "."): values for name, values in sweep.items()}
        path.write_text(path.read_text() + yaml.safe_dump({"sweep": axes}))
        return path

    return write


def ids(path: Path) -> dict[str, list[str]]:
    return {stage.id: stage.needs for stage in load_spec(path).spec.stages}


def test_a_stage_that_differs_is_there_for_each_variant(swept):
    result = ids(swept(stages__features__with__active=[2, 3]))
    assert result == {
        "features-1": [],
        "features-2": [],
        "groups-1": ["features-1"],
        "groups-2": ["features-2"],
    }


def test_a_stage_that_points_share_is_one(swept):
    path = swept(stages__features__with__active=[2, 3], stages__groups__with__by=["group", "unit"])
    result = ids(path)
    assert [id for id in result if id.startswith("features")] == ["features-1", "features-2"]
    assert len([id for id in result if id.startswith("groups")]) == 4
    points = sweep_points(load_spec(path).data)
    assert [point.stages["features"] for point in points] == ["features-1"] * 2 + ["features-2"] * 2
    assert len({point.stages["groups"] for point in points}) == 4
    assert points[1].values == {
        "stages.features.with.active": 2,
        "stages.groups.with.by": "unit",
    }


def test_what_the_top_says_is_said_in_the_stages(swept):
    spec = load_spec(swept(model__with__salt=[1, 5], seed=[7, 8])).spec
    by_id = {stage.id: stage for stage in spec.stages}
    assert by_id["features-1"].model is None
    assert by_id["features-2"].seed == 8
    assert by_id["features-2"].samples == spec.samples, "another seed draws other samples"
    assert by_id["features-3"].model.with_ == {"salt": 5}
    assert by_id["features-3"].seed is None


def test_the_record_is_what_the_user_wrote(swept):
    path = swept(seed=[1, 2])
    assert load_spec(path).data["sweep"] == {"seed": [1, 2]}
    assert [stage["id"] for stage in load_spec(path).data["stages"]] == ["features", "groups"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"name": ["a"]}, "A sweep changes model, saes, samples, seed, stages"),
        (
            {"stages.feature.with.n": [1]},
            "There is no 'feature' in stages. Did you mean 'features'",
        ),
        ({"seed": []}, "sweep.seed"),
        ({"seed": 3}, "sweep.seed"),
        ({"seed": list(range(1001))}, "1,001 combinations; at most 1,000"),
        ({"seed": [-1, -2]}, "sweep.seed.1: must be at least 0, not -2."),
    ],
)
def test_a_sweep_that_is_invalid_is_refused(toy, sweep, message):
    path = toy()
    path.write_text(path.read_text() + yaml.safe_dump({"sweep": sweep}))
    with pytest.raises(SpecError) as error:
        load_spec(path)
    assert message in str(error.value)
    assert path.name in str(error.value)


WRONG = [
    ("stages.features.with.active", [2, 0], "{1}: must be at least 1, not 0."),
    (
        "stages.features.with.active",
        [2, {"a": 1}],
        "{1}: must be a whole number, not a map with a.",
    ),
    ("stages.features.with", [{"active": 2}, {"activ": 2}], "{1}.activ: unknown key 'activ'"),
    ("stages.features.uses", ["extract.hash", "extract.has"], "{1}: "),
    ("stages.groups.needs", [["features"], ["feature"]], "{1}.0: There is no stage 'feature'."),
    ("stages.groups.with.b", [1], "{0}: unknown key 'b'"),
    ("stages.feature.with.active", [1], "{0}: There is no 'feature' in stages."),
    ("model.with.salt", [1, "x"], "{1}: must be a whole number, not the text 'x'."),
    ("samples.with.n", [4, -4], "{1}: must be at least"),
    ("stages.features.seed", [1, "01"], "{1}: must be a number, without quotes"),
]


@pytest.mark.parametrize(("path", "values", "message"), WRONG)
def test_a_wrong_value_is_named_as_the_sweep_has_it(toy, path, values, message):
    """Also where a stage's params, or needs, are checked after the stages of all points exist."""
    spec = toy()
    before = spec.read_text()
    lines = [f"sweep:\n  {path}:\n", *(f"    - {json.dumps(value)}\n" for value in values)]
    spec.write_text(before + "".join(lines))
    number = int(message[1])
    with pytest.raises(SpecError) as error:
        _flow.plan(str(spec), RunOptions(store=str(spec.parent / "store")))
    line = before.count("\n") + 3 + number
    named = f"{spec}:{line}: sweep.{path}.{message[1:].replace('}', '', 1)}"
    assert str(error.value).startswith(named), str(error.value)
    assert not re.search(r"stages\.\d", str(error.value)), str(error.value)


def test_a_stage_with_the_name_of_a_variant_is_refused(toy):
    spec = toy()
    text = spec.read_text().replace("id: groups", "id: features-2")
    spec.write_text(text + "sweep: {stages.features.with.active: [2, 3]}\n")
    with pytest.raises(SpecError, match=r"The variants of stage 'features' get .*features-2"):
        load_spec(spec)


def test_another_spec_needs_a_variant_by_its_name(toy, swept):
    path = swept(stages__features__with__active=[2, 3])
    needs = [{"spec": path.name, "stage": name} for name in ("features-2", "samples")]
    stage = {"id": "groups", "uses": "compare.means", "needs": needs, "with": {"by": "group"}}
    other = path.with_name("other.yaml")

    def planned() -> list[str]:
        other.write_text(yaml.safe_dump({"version": 1, "name": "other", "stages": [stage]}))
        plan = _flow.plan(str(other), RunOptions(store=str(path.parent / "store")))
        return [stage.id for stage in plan.plan.stages]

    assert planned() == ["toy/samples", "toy/features-2", "groups"]
    needs[0]["stage"] = "features"
    with pytest.raises(SpecError, match=r"no stage 'features'.*features-1, features-2"):
        planned()


@pytest.mark.slow
def test_one_run_computes_shared_steps_once(toolkit, swept):
    axes = {"stages__features__with__active": [2, 3], "stages__groups__seed": [1, 2]}
    path = swept(**axes)
    assert toolkit.run("run", path).returncode == 0
    store = open_store(toolkit.store)
    (state,) = {row.run for row in store.run_states()}
    rows = store.steps()
    stages = [row.stage for row in rows]
    assert stages.count("features-1") == stages.count("features-2") == 4
    assert len([stage for stage in stages if stage.startswith("groups")]) == 4
    report = (toolkit.store / "runs" / state / "report.html").read_text()
    table = report.split('id="sweep"')[1].split("</table>")[0]
    assert table.split("<tbody>")[1].count("<tr>") == 4
    assert "features-2, groups-4" in table


@pytest.mark.slow
def test_a_point_is_the_run_without_a_sweep(toolkit, toy, swept):
    """The steps of a point are reused by the spec that says its values."""
    assert toolkit.run("run", swept(stages__features__with__active=[2, 3])).returncode == 0
    plain = toy("plain.yaml", features={"active": 2})
    before = len(open_store(toolkit.store).steps())
    assert toolkit.run("run", plain).returncode == 0
    assert len(open_store(toolkit.store).steps()) == before
