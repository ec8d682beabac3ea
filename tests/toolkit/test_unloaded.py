"""A table that stands for a model: where a needed stage writes it, the model is not loaded, and the
reader is told what it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.toolkit.conftest import Toolkit, toolkit  # noqa: F401
from toolkit._plan.make_plan import make_plan
from toolkit._plan.plan import Plan
from toolkit._plan.power import power_of
from toolkit._plan.resolve import resolve
from toolkit._plugins.loading import load_parts
from toolkit._spec.load import load_spec
from toolkit_store import open_store

SPECS = Path(__file__).parents[2] / "specs"
PLUGIN = """
import pyarrow as pa
from pydantic import Field
from toolkit import hookimpl
from toolkit.errors import DataError
from toolkit.identity import Identity
from toolkit.parts import ModelPart, NoParams, Params, StagePart
from toolkit.tables import arrow_schema


class Keeps(Params):
    keep: bool = Field(True, description="Keep the streams.")


def load(params, report):
    raise DataError("the model was loaded")


def keep(work):
    row = {"space": "s", "sample": "n", "position": 0, "hookpoint": "resid_post.0", "values": [1.0]}
    yield "spaces", arrow_schema("spaces").empty_table()
    if work.params.keep:
        yield "streams", pa.Table.from_pylist([row], schema=arrow_schema("streams"))


def look(work):
    text = f"{work.model} {work.identity.name} {work.identity.facts} {work.inputs.tables()}"
    row = {"contrast": "c", "kind": "k", "name": "n", "metric": "m", "text": text}
    yield "baselines", pa.Table.from_pylist([row], schema=arrow_schema("baselines"))


@hookimpl
def toolkit_parts():
    known = Identity("heavy", "1", "d", {"layers": 3})
    yield ModelPart(name="heavy", help="x", identify=lambda params: known, load=load)
    yield StagePart(
        name="extract.kept", help="x", params=Keeps, run=keep,
        reads=("samples",), writes=("spaces", "streams"),
        writes_for=lambda params: ("spaces", "streams") if params.keep else ("spaces",),
    )
    yield StagePart(
        name="compare.look", help="x", run=look, reads=("samples",), optional=("streams",),
        replaces_model="streams", writes=("baselines",), uses_model=True,
    )
    yield StagePart(
        name="compare.must", help="x", run=look, reads=("streams",), writes=("baselines",)
    )
"""


def written(folder: Path, keep: bool, uses: str = "compare.look") -> tuple[Path, Path]:
    """A spec and the plugin of its parts."""
    spec = {
        "version": 1,
        "name": "unloaded",
        "model": {"uses": "heavy"},
        "samples": {"uses": "count", "with": {"n": 3}},
        "stages": [
            {"id": "features", "uses": "extract.kept", "with": {"keep": keep}},
            {"id": "look", "uses": uses, "needs": ["features"]},
        ],
    }
    paths = folder / "unloaded.yaml", folder / "parts.py"
    for path, text in zip(paths, (yaml.safe_dump(spec), PLUGIN), strict=True):
        path.write_text(text)
    return paths


@pytest.mark.slow
def test_no_model_is_loaded_where_a_table_stands_for_it(
    toolkit: Toolkit,  # noqa: F811
    tmp_path: Path,
) -> None:
    spec, plugin = written(tmp_path, keep=True)
    done = toolkit.run("run", spec, "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    store = open_store(toolkit.store, read_only=True)
    (row,) = store.read("baselines", [step.key for step in store.steps(stage="look")]).to_pylist()
    assert row["text"] == "None heavy {'layers': 3} ['samples', 'streams']"


def test_without_the_table_it_is_loaded(toolkit: Toolkit, tmp_path: Path) -> None:  # noqa: F811
    spec, plugin = written(tmp_path, keep=False)
    done = toolkit.run("run", spec, "--plugin", plugin)
    assert done.returncode != 0
    assert "stage 'look', step 0 (compare.look): the model was loaded" in done.stderr


def test_a_table_that_the_params_do_not_write_reaches_nobody(
    toolkit: Toolkit,  # noqa: F811
    tmp_path: Path,
) -> None:
    spec, plugin = written(tmp_path, keep=False, uses="compare.must")
    done = toolkit.run("check", spec, "--plugin", plugin)
    assert done.returncode != 0
    assert (
        "stage 'look' (compare.must) reads table 'streams'. No stage of the spec writes 'streams'."
        in done.stderr
    )
    spec, plugin = written(tmp_path, keep=True, uses="compare.must")
    assert toolkit.run("check", spec, "--plugin", plugin).returncode == 0


# --- the studies ----------------------------------------------------------------------------------

PARTS = load_parts()


def plan_of(name: str, *overlays: str, sets: tuple[str, ...] = ()) -> Plan:
    paths = [SPECS / f"{overlay}.yaml" for overlay in ("lab", *overlays)]
    return make_plan(
        resolve(load_spec(SPECS / f"{name}.yaml", paths, sets), PARTS, paths, sets), PARTS
    )


@pytest.mark.parametrize(
    "name", ["exp1_sae_l1_31", "exp1_residual_l1_31", "exp1_pathway", "gemma_top_features"]
)
def test_of_what_a_study_does_after_its_source_only_extraction_and_examination_run_the_model(
    name: str,
) -> None:
    plan = plan_of(name)
    own = [stage for stage in plan.stages if stage.experiment == plan.name]
    running = {stage.id for stage in own if stage.model is not None and not stage.model_replaced}
    assert running - {"play", "samples"} == {"features", "examine"}
    readers = [stage for stage in own if stage.model_replaced]
    assert {stage.part.name for stage in readers} <= {"compare.probe", "compare.residual"}
    assert all('"model":null' in stage.loaded_key for stage in readers)
    kept = plan_of(name, sets=("stages.features.with.stream=null", "stages.probe.with.layers=1"))
    assert not [stage for stage in kept.stages if stage.model_replaced]


def materials(name: str, *overlays: str) -> dict[str, Any]:
    return {stage.id: stage.material() for stage in plan_of(name, *overlays).stages}


@pytest.mark.parametrize("overlays", [(), ("lab_gemma",)], ids=["lab", "lab_gemma"])
def test_the_trait_ranking_uses_the_extraction_of_the_other_spec(overlays: tuple[str, ...]) -> None:
    first, second = (
        materials("gemma_135_extract", *overlays),
        materials("gemma_top_features", *overlays),
    )
    assert first.items() <= second.items()
    assert set(first) == {"samples", "examine", "features"}


def test_the_control_uses_games_extraction_probe_and_leak_of_the_study() -> None:
    first, second = materials("exp1_sae_l1_31"), materials("exp1_residual_l1_31")
    assert set(second) - set(first) == {"residual"}
    assert all(first[id] == second[id] for id in set(second) - {"residual"})


def test_tests_on_a_stream_of_unknown_width_are_not_taken_for_as_many_as_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(
        "HF_HUB_OFFLINE"
    )  # the model is named at a commit, and nothing is asked of the network
    folder = "package:toolkit_lab/files/saes/Lab-LXR-4x"
    saes = f'saes={{uses: llama_scope, with: {{path: "{folder}", layers: all}}}}'
    model = f'model={{uses: huggingface, with: {{id: nobody/nothing, revision: "{"0" * 40}"}}}}'
    plan = make_plan(
        resolve(load_spec(SPECS / "exp1_residual_l1_31.yaml", (), [saes, model]), PARTS), PARTS
    )
    result = power_of(plan, plan.stage("residual"), {}, None)
    assert result is not None
    assert result["family"] is None
    known = plan_of("exp1_residual_l1_31")
    computed = power_of(known, known.stage("residual"), {}, None)
    assert computed is not None
    assert computed["family"] == 3 * 128
