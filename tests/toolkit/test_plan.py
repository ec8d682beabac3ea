"""Keys and expansion: deterministic, and moved by what can change a result and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit._plan.expand import expand
from toolkit._plan.keys import canonical, differences, digest_of, key_of
from toolkit._plan.make_plan import make_plan
from toolkit._plan.plan import Step
from toolkit._plan.resolve import resolve
from toolkit._plugins.loading import load_parts
from toolkit._run.atomic import write_bytes
from toolkit._run.history import forecast_seconds
from toolkit._run.sinks import _safe
from toolkit._spec.load import load_spec
from toolkit.costs import Workload
from toolkit.errors import DataError
from toolkit.testing.fakes import make_samples, make_step

PARTS = load_parts()
SIMPLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def plan_of(path: Path, *sets: str):
    return make_plan(resolve(load_spec(path, (), sets), PARTS), PARTS)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), SIMPLE))
def test_the_key_does_not_depend_on_the_order_of_names(material):
    assert key_of(canonical(material)) == key_of(canonical(dict(reversed(material.items()))))


@given(st.dictionaries(st.text(min_size=1), st.integers(), min_size=1))
def test_a_change_is_named(material):
    name = sorted(material)[0]
    changed = {**material, name: material[name] + 1}
    assert name in differences(canonical(material), canonical(changed))
    assert differences(canonical(material), canonical(material)) == ""


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ("seed=8", {"samples", "features", "groups"}),
        ("model.with.salt=9", {"features"}),
        ("saes.with.salt=9", {"features"}),
        ("stages.features.with.active=2", {"features"}),
        ("stages.features.with.batch=2", set()),
        ("executors.local.workers=2", set()),
        ("limit={units: 5}", {"samples"}),
    ],
)
def test_what_moves_a_stages_own_key(toy, change, moves):
    before, after = plan_of(toy()), plan_of(toy(), change)
    changed = {
        old.id
        for old, new in zip(before.stages, after.stages, strict=True)
        if old.material() != new.material()
    }
    assert changed == moves


@given(st.integers(1, 40), st.integers(1, 12))
def test_steps_cover_the_samples_once_and_in_order(n, size):
    plan = plan_of(
        Path(__file__).parents[2] / "specs" / "toy.yaml", f"stages.features.with.batch={size}"
    )
    samples = make_samples([f"text {i}" for i in range(n)])["samples"]
    steps = expand(plan.stage("features"), {"samples": []}, samples)
    assert [place for step in steps for place in range(step.first, step.last)] == list(range(n))
    assert steps == expand(plan.stage("features"), {"samples": []}, samples)
    assert len({step.key for step in steps}) == len(steps)


def test_a_digest_is_of_rows_and_not_of_chunks():
    whole = make_samples(["a", "b", "c", "d"])["samples"]
    import pyarrow as pa

    assert digest_of(pa.concat_tables([whole.slice(0, 1), whole.slice(1)])) == digest_of(whole)
    assert digest_of(whole.slice(0, 3)) != digest_of(whole)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b", ""])
def test_a_sink_stays_in_its_folder(name):
    with pytest.raises(DataError, match="outside its folder"):
        _safe(name, "s")


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_bytes(path, b"old")
    monkeypatch.setattr(
        "os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_time_is_forecast_from_the_same_part_on_the_same_model_only(toy):
    stage, other = (
        plan_of(toy()).stage("features"),
        plan_of(toy(), "model.with.salt=9").stage("features"),
    )

    def took(of, seconds):
        return make_step(
            f"k{seconds}", part=of.part.name, material=canonical(of.material()), seconds=seconds
        )

    todo = [Step(stage, index, "k", "m") for index in range(3)]
    assert (
        forecast_seconds(todo, [took(stage, 2.0), took(stage, 4.0), took(other, 100.0)], stage)
        == 9.0
    )
    assert forecast_seconds(todo, [took(other, 100.0)], stage) is None


def test_time_is_in_proportion_to_operations(tmp_path):
    """A step with other params counts by its operations, and one with equal params before it."""
    text = (
        "version: 1\nname: a\nmodel: {uses: huggingface, with: "
        "{path: 'package:toolkit_lab/files/model'}}\n"
        "samples: {uses: prompts, with: {prompts: [{text: One.}]}}\n"
        "stages: [{id: axis, uses: patch.steer, with: {outcomes: {a: [x]}, by: g, "
        "between: [a, b], points: POINTS, directions: 19}}]\n"
    )

    def axis(points):
        path = tmp_path / f"{points}.yaml"
        path.write_text(text.replace("POINTS", str(points)))
        return plan_of(path).stage("axis")

    def took(stage, seconds):
        return make_step(
            f"k{seconds}",
            part=stage.part.name,
            material=canonical(stage.material()),
            seconds=seconds,
        )

    few, many = axis(10), axis(200)
    load = Workload(
        samples=500, distinct=500, tokens=50_000, longest=100, model=few.model.identity.facts
    )
    price = few.part.estimates.cost
    ratio = price(many.params, load).flops / price(few.params, load).flops
    assert ratio > 1.5
    todo = [Step(many, 0, "k", "m")]
    assert forecast_seconds(todo, [took(few, 3.0)], many, load) == pytest.approx(3.0 * ratio)
    assert forecast_seconds(todo, [took(few, 3.0), took(many, 5.0)], many, load) == 5.0
    assert forecast_seconds(todo, [took(few, 3.0)], many) == 3.0
