"""How stages feed each other: units that a stage makes itself, samples from a stage of the same
spec, and the examination's gate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit_store import open_store

PLUGIN = Path(__file__).parents[1] / "resources" / "fake_games_plugin.py"


@pytest.fixture
def write_spec(tmp_path):
    """Write the spec of the scratch plugin, with changes at its top level or in params."""

    def write(
        name: str = "fake_games",
        *,
        fits: bool = True,
        play: dict[str, Any] | None = None,
        **top: Any,
    ) -> Path:
        spec = {
            "version": 1,
            "name": name,
            "saes": {"uses": "fake_saes", "with": {"fits": fits}},
            "samples": {"uses": "game_texts", "from": {"stage": "play"}},
            "stages": [
                {"id": "features", "uses": "extract.fake_games"},
                {"id": "play", "uses": "play.fake_games", "with": play or {}},
            ],
            **top,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    return write


def run(toolkit, spec, *args):
    return toolkit.run("run", spec, "--plugin", PLUGIN, *args)


def stages(toolkit, spec, *args):
    result = toolkit.run("plan", spec, "--plugin", PLUGIN, "--json", *args)
    assert result.returncode == 0, result.stderr
    return {row["stage"]: row for row in json.loads(result.stdout)["stages"]}


def rows(toolkit, table):
    store = open_store(toolkit.store, read_only=True)
    return store.read(table, [row.key for row in store.steps()]).to_pylist()


def test_samples_come_from_a_stage_of_the_same_spec_wherever_it_stands(toolkit, write_spec):
    results = stages(toolkit, write_spec())
    assert list(results) == ["play", "samples", "examine", "features"]
    assert results["samples"]["needs"] == ["play"]
    assert results["play"]["needs"] == []


@pytest.mark.slow
def test_a_stage_that_makes_its_own_units_is_split_over_them_and_obeys_the_limit(
    toolkit, write_spec
):
    assert run(toolkit, write_spec(limit={"units": 7})).returncode == 0
    assert [row["game"] for row in rows(toolkit, "games")] == [f"g{n:03d}" for n in range(7)]
    ranges = [
        (row.first, row.last)
        for row in open_store(toolkit.store, read_only=True).steps(stage="play")
    ]
    assert ranges == [(0, 4), (4, 7)]


@pytest.mark.slow
def test_more_units_keep_the_steps_that_are_there(toolkit, write_spec):
    run(toolkit, write_spec(limit={"units": 4}))
    results = stages(toolkit, write_spec(limit={"units": 10}))
    assert (results["play"]["steps"], results["play"]["there"]) == ("3", 1)


@pytest.mark.slow
def test_params_that_cannot_change_results_enter_no_key(toolkit, write_spec):
    run(toolkit, write_spec())
    assert stages(toolkit, write_spec(play={"note": "another"}))["play"]["there"] == 3


@pytest.mark.slow
def test_the_examination_sees_the_first_samples_only_and_is_not_run_again_for_others(
    toolkit, write_spec
):
    run(toolkit, write_spec(limit={"units": 4}))
    assert rows(toolkit, "saes")[0]["tokens"] == 3
    run(toolkit, write_spec(limit={"units": 10}))
    assert len(open_store(toolkit.store, read_only=True).steps(stage="examine")) == 1


@pytest.mark.slow
def test_an_sae_that_does_not_fit_stops_the_run_before_any_use(toolkit, write_spec):
    result = run(toolkit, write_spec(fits=False))
    assert result.returncode == 4
    assert "SAE fake does not fit at resid_post.0: it is a fake." in result.stderr
    assert (
        "No stage that uses these SAEs was run. `--set examine=warn` runs them anyway."
        in result.stderr
    )
    assert [row.stage for row in open_store(toolkit.store, read_only=True).steps()] == [
        "examine",
        "play",
        "play",
        "play",
        "samples",
    ]


@pytest.mark.slow
def test_a_warning_goes_on_and_stays_in_the_report(toolkit, write_spec):
    result = run(toolkit, write_spec(fits=False), "--set", "examine=warn")
    assert result.returncode == 0
    assert "SAE fake does not fit at resid_post.0: it is a fake." in result.stderr
    assert "does not fit at resid_post.0" in Path(result.stdout.splitlines()[-1]).read_text()
    assert len(rows(toolkit, "activations")) == 10


def test_off_examines_nothing(toolkit, write_spec):
    assert "examine" not in stages(toolkit, write_spec(fits=False, examine="off"))


@pytest.mark.slow
def test_saes_of_a_stage_that_reads_no_samples_are_examined_on_those_of_the_spec(
    toolkit, write_spec
):
    other = {
        "id": "trace",
        "uses": "trace.fake_games",
        "needs": ["features"],
        "saes": {"uses": "fake_saes", "with": {"fits": False}},
    }
    own_stages = [
        {"id": "play", "uses": "play.fake_games"},
        {"id": "features", "uses": "extract.fake_games"},
    ]
    spec = write_spec(stages=[*own_stages, other])
    assert stages(toolkit, spec)["examine.2"]["needs"] == ["samples"]
    result = run(toolkit, spec)
    assert result.returncode == 4
    assert "SAE fake does not fit" in result.stderr


def test_saes_that_nothing_can_be_examined_on_are_refused(toolkit, write_spec):
    own_stages = [
        {"id": "play", "uses": "play.fake_games"},
        {
            "id": "features",
            "uses": "extract.fake_games",
            "samples": {"uses": "game_texts", "from": {"stage": "play"}},
        },
        {"id": "trace", "uses": "trace.fake_games", "needs": ["features"]},
    ]
    spec = write_spec(stages=own_stages, samples=None)
    text = spec.read_text().replace("samples: null\n", "")
    spec.write_text(text)
    result = toolkit.run("check", spec, "--plugin", PLUGIN)
    assert result.returncode == 0, (
        result.stderr
    )  # the SAEs are the same as those of the stage that reads samples
    spec.write_text(
        text.replace(
            "- id: trace\n", "- id: trace\n  saes: {uses: fake_saes, with: {fits: false}}\n"
        )
    )
    result = toolkit.run("check", spec, "--plugin", PLUGIN)
    assert result.returncode == 2
    assert (
        "stage 'trace' uses SAEs, and the spec names no samples to examine them on. Add "
        "`samples:`, or set `examine: off`." in (result.stderr)
    )


@pytest.mark.slow
def test_the_examination_changes_no_key(toolkit, write_spec):
    run(toolkit, write_spec())
    results = stages(toolkit, write_spec(examine="off"))
    assert results["features"]["there"] == 1


def test_stages_that_wait_for_their_own_samples_are_refused(toolkit, write_spec):
    spec = yaml.safe_load(write_spec().read_text())
    spec["samples"]["from"]["stage"] = "features"
    spec["samples"]["uses"] = "count"
    path = write_spec("circle")
    path.write_text(yaml.safe_dump(spec))
    result = toolkit.run("check", path, "--plugin", PLUGIN)
    assert result.returncode == 2
    assert "these stages wait for each other: samples, examine, features." in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"samples": {"uses": "game_texts", "from": {"stage": "plai"}}},
            "There is no stage 'plai'. Did you mean 'play'?",
        ),
        (
            {"stages": [{"id": "examine", "uses": "play.fake_games"}]},
            "'examine' is reserved for the examination of SAEs",
        ),
        ({"examine": "maybe"}, "examine: must be 'stop', 'warn' or 'off', not the text 'maybe'."),
    ],
)
def test_refusals(toolkit, write_spec, change, message):
    result = toolkit.run("check", write_spec(**change), "--plugin", PLUGIN)
    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.slow
def test_the_report_holds_the_forecast_against_what_it_took(toolkit, write_spec):
    result = run(toolkit, write_spec())
    page = Path(result.stdout.splitlines()[-1]).read_text()
    assert "Forecast against actual" in page
    assert "its first step" in page
    assert stages(toolkit, write_spec(play={"games": 12}))["play"]["seconds"] > 0
