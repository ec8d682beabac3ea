"""The specs of the interventions, whole, on the packaged model: one store, small numbers of points
and games, and each says in its report what it is made for.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.test_studies_on_the_lab import SPECS, Lab, computed
from toolkit._report.facts import costs
from toolkit._run.event_log import read_events
from toolkit._run.progress import progress_of
from toolkit_store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FEW = [
    "stages.causes.with.points=16",
    "stages.causes.with.directions=100",
    "stages.causes.with.direction_points=6",
    "stages.causes.with.candidates.top=12",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("patching"))


PATCHING = [
    *FEW,
    "stages.joint.with.points=8",
    "stages.joint.with.sets=19",
    "stages.joint.with.top=4",
    "stages.gradients.with.points=8",
    "stages.doses.with.points=8",
    "stages.causes.with.min_effect=0.001",
    "stages.verdicts.with.min_effect=0.001",
]


@pytest.fixture(scope="module")
def patching(lab: Lab) -> str:
    return run_as_planned(lab, "exp2_patching_l1_31", PATCHING)


def run_as_planned(lab: Lab, name: str, sets: Sequence[str]) -> str:
    """Run a spec; together its stages take what its plan expected, within a factor of 2: texts
    read, operations, rows and bytes in the store.
    """
    expected = lab.plan(name, sets=sets)["expected"]
    said = lab.run(name, sets=sets)
    store = open_store(lab.store, read_only=True)
    (folder,) = (lab.store / "runs").glob(f"{name}-*")
    known = {row.key: row for row in store.steps()}
    facts = costs(progress_of(read_events(folder)), known, store.bytes_per_row())[-1]
    for of, (forecast, actual) in (
        ("forwards", facts.texts),
        ("flops", facts.operations),
        ("table_rows", facts.rows),
        ("disk", facts.stored),
    ):
        assert forecast == pytest.approx(expected[of]), of
        assert actual / 2 <= forecast <= 2 * actual, (of, forecast, actual)
    assert "Expected cost against actual" in page(lab, name)
    return said


def page(lab: Lab, name: str) -> str:
    (result,) = (path for path in (lab.store / "runs").glob(f"{name}-*/report.html"))
    text: str = result.read_text(encoding="utf-8")
    return text


def test_exp2_screens_every_layer_and_its_report_begins_with_the_verdicts(
    lab: Lab, patching: str
) -> None:
    screens = lab.rows("screens", "causes", "exp2_patching_l1_31")
    verdicts = lab.rows("verdicts", "verdicts", "exp2_patching_l1_31")
    assert {row["family"] for row in screens} == {len(screens)} == {len(verdicts)}
    assert len({row["space"] for row in screens}) == 4
    assert max(row["sham"] for row in screens) < 1e-5
    for arm in ("shuffled", "mean_difference", "random_feature", "reconstruct_a"):
        assert None not in {row[arm] for row in screens}, arm
    shown = page(lab, "exp2_patching_l1_31")
    headings = re.findall("<h2[^>]*>([^<]*)", shown)
    assert headings.index("Patch effects against their controls") < headings.index(
        "Gradients against exact effects"
    )
    assert "Specific against naive" in shown
    control = lab.rows("control_verdicts", "verdicts", "exp2_patching_l1_31")
    assert {(row["space"], row["feature"]) for row in control} == {
        (row["space"], row["feature"]) for row in verdicts
    }
    assert "Trained against random decoder" in shown
    assert "Where it fires" in shown


def test_exp2_follows_its_survivors(lab: Lab, patching: str) -> None:
    joint = lab.rows("joint_effects", "joint", "exp2_patching_l1_31")
    assert {row["arm"] for row in joint} == {"joint", "sum", "interaction", "ablated"}
    doses = lab.rows("feature_doses", "doses", "exp2_patching_l1_31")
    assert len({row["dose"] for row in doses}) == 7
    gradients = lab.rows("gradient_effects", "gradients", "exp2_patching_l1_31")
    assert {row["method"] for row in gradients} == {"atp", "relp"}


def test_effects_are_asked_by_verdict_layer_and_arm(
    lab: Lab, patching: str, tmp_path: Path
) -> None:
    name = "exp2_patching_l1_31"
    spaces = lab.rows("spaces", "features", name)
    at_3 = {row["space"] for row in spaces if row["hookpoint"] == "resid_post.3"}
    effects = {(row["space"], row["feature"]) for row in lab.rows("effects", "causes", name)}
    judged = [
        row
        for row in lab.rows("verdicts", "verdicts", name)
        if row["space"] in at_3 and (row["space"], row["feature"]) in effects
    ]
    verdict = judged[0]["verdict"]
    expected = {row["feature"] for row in judged if row["verdict"] == verdict}
    file = tmp_path / "effects.parquet"
    asked = ["--verdict", verdict, "--layer", "3", "--arm", "specific", "--k", "1000"]
    args = ["query", "effects", "--store", str(lab.store), "--run", name, *asked]
    answers = [
        subprocess.run(
            [sys.executable, "-m", "toolkit", *args, *form],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for form in (["--csv"], ["--parquet", str(file)])
    ]
    rows = list(csv.DictReader(answers[0].splitlines()))
    assert {int(row["address"].rpartition("/")[2]) for row in rows} == expected
    assert len(rows) == 3 * len(expected)
    assert {row["arm"] for row in rows} == {"specific"}
    assert pq.read_table(file).num_rows == len(rows)


def test_a_screen_that_is_killed_continues_where_it_was(lab: Lab, patching: str) -> None:
    """Its rows are those of the screen that was not killed and not cut into steps."""
    sets = [*PATCHING, "name=killed", "stages.causes.with.step=8"]
    args = ["run", str(SPECS / "exp2_patching_l1_31.yaml"), "--overlay", str(SPECS / "lab.yaml")]
    for text in sets:
        args += ["--set", text]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "toolkit", *args],
        env={**env, "TOOLKIT_STORE": str(lab.store)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    while screened_steps(lab) < 2 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = screened_steps(lab)
    output = lab.run("exp2_patching_l1_31", sets=sets)
    assert 2 <= before
    assert computed(output, "causes") <= 6 - before
    whole, resumed = (
        {(row["space"], row["feature"]): row for row in lab.rows("screens", "causes", name)}
        for name in ("exp2_patching_l1_31", "killed")
    )
    assert set(whole) == set(resumed)
    for key, row in whole.items():
        assert resumed[key]["effect"] == pytest.approx(row["effect"], abs=1e-5)


def screened_steps(lab: Lab) -> int:
    """Steps of the killed screen that are done."""
    return sum(
        event["event"] == "step_done" and event["stage"] == "causes"
        for event in lab.events("killed")
    )


def test_exp2_as_published_stands_beside_the_sound_screen(lab: Lab, patching: str) -> None:
    sets = [*FEW, "stages.fixed.with.candidates.top=12"]
    output = run_as_planned(lab, "exp2_as_published", sets)
    assert computed(output, "exp0_llama/play") == 0
    assert computed(output, "features") == 0
    stats = {row["stat"] for row in lab.rows("features", "published", "exp2_as_published")}
    assert {"published_sign_rule", "published_naive_safe_value", "published_specific"} <= stats
    assert len({row["screen"] for row in lab.rows("screens", "fixed", "exp2_as_published")}) == 1
    assert "the sound screen calls" in page(lab, "exp2_as_published")


def test_exp2_steering_takes_seven_doses_against_twenty_directions(lab: Lab, patching: str) -> None:
    sets = ["stages.steer.with.points=10", "stages.steer.with.axis_samples=40"]
    run_as_planned(lab, "exp2_steering", sets)
    tests = lab.rows("dose_tests", "steer", "exp2_steering")
    assert {row["directions"] for row in tests} == {20}
    doses = lab.rows("doses", "steer", "exp2_steering")
    assert len({row["dose"] for row in doses}) == 7
    assert len({row["direction"] for row in doses}) == 21


def test_exp5_plays_games_under_patches_against_twenty_random_directions(lab: Lab) -> None:
    sets = [f"stages.{stage}.with.reps=5" for stage in ("ablated", "doubled")]
    sets += ["stages.random.with.reps=1", *FEW, "stages.causes.with.candidates.top=6"]
    run_as_planned(lab, "exp5_persistent", sets)
    rows = lab.rows("paired_games", "paired", "exp5_persistent")
    arms = {row["arm"] for row in rows}
    assert arms == {"ablated", "doubled", *(f"random_{number}" for number in range(1, 21))}
    assert {row["null_arms"] for row in rows if row["arm"] == "ablated"} == {20}
    assert "20 random arms change it as much" in page(lab, "exp5_persistent")
