"""status, runs, show, report and doctor, each on a small store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from toolkit._cli import doctor, report, runs, show, status
from toolkit._run import events as ev
from toolkit._run.events import as_json
from toolkit._run.run_folder import find_run
from toolkit.errors import BadInput, StoreNotUsable
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store

MANIFEST = {
    "format": 1,
    "run": "toy-abc1",
    "name": "toy",
    "spec": {"name": "toy"},
    "stages": [{"id": "count", "part": "count", "version": "1"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with a finished run and one whose process is gone."""
    store = open_store(tmp_path / "store", create=True)
    rows = (
        arrow_schema("sample_meta")
        .empty_table()
        .from_pylist(
            [{"sample": "s1", "key": "k", "number": 1.0, "string": None}],
            schema=arrow_schema("sample_meta"),
        )
    )
    store.commit(
        make_step("key1", experiment="toy", stage="count", part="count", run="toy-abc1"),
        {"sample_meta": rows},
    )
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    store.record_run(run="toy-abc1", name="toy", state="done", done=1, total=1, steps=["key1"])
    store.record_run(run="toy-xyz2", name="toy", state="running", done=0, total=4, pid=child.pid)
    for run in ("toy-abc1", "toy-xyz2"):
        files = store.folder / "runs" / run
        files.mkdir(parents=True)
        (files / "manifest.json").write_text(json.dumps({**MANIFEST, "run": run}))
        place = {"key": "key1", "stage": "count", "index": 0, "worker": "w"}
        events: list[ev.RunEvent] = [
            ev.RunStarted(at="2026-01-01T00:00:00+00:00", run=run, stages=1, log="log.txt")
        ]
        if run == "toy-abc1":
            done = ev.StepDone(at="2026-01-01T00:00:01+00:00", seconds=1.0, rows={}, **place)
            end = ev.RunDone(at="2026-01-01T00:00:02+00:00", computed=1, reused=0, seconds=2.0)
            events += [done, end]
        (files / "events.jsonl").write_text(
            "".join(json.dumps(as_json(event)) + "\n" for event in events) + '{"at": "cut o'
        )
    return store.folder


def call(module: object, *args: str, code: int = 0) -> str:
    result = CliRunner().invoke(module.command, args, catch_exceptions=False)  # type: ignore[attr-defined]
    assert result.exit_code == code, result.output
    return result.stdout


def test_status_tells_a_dead_run_from_a_finished_one(folder: Path) -> None:
    text = call(status, "--store", str(folder))
    assert "dead" in text
    assert "continue with: toolkit run toy-xyz2" in text
    result = json.loads(call(status, "--store", str(folder), "--json"))
    assert [(view["run"], view["state"]) for view in result] == [
        ("toy-abc1", "done"),
        ("toy-xyz2", "dead"),
    ]


def test_status_of_one_run_shows_its_stages_and_follow_ends(folder: Path) -> None:
    text = call(status, "toy-a", "--follow", "--store", str(folder))
    assert "STAGE" in text
    assert "toy-xyz2" not in text


def test_runs(folder: Path) -> None:
    assert len(call(runs, "--store", str(folder)).splitlines()) == 3
    assert [view["run"] for view in json.loads(call(runs, "--json", "--store", str(folder)))] == [
        "toy-abc1",
        "toy-xyz2",
    ]


def test_show(folder: Path) -> None:
    assert "sample_meta" in call(show, "toy-abc1", "--store", str(folder))
    assert json.loads(call(show, "toy-abc1", "--json", "--store", str(folder)))["rows"] == {
        "sample_meta": 1
    }


def test_report_prints_its_path_last(folder: Path) -> None:
    path = Path(call(report, "toy-abc1", "--store", str(folder)).splitlines()[-1])
    assert path == folder / "runs" / "toy-abc1" / "report.html"
    assert "sample_meta" in path.read_text()


def test_a_report_that_cannot_be_written_is_an_error_with_a_fix(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("toolkit._report.page.write_bytes", refuse)
    with pytest.raises(StoreNotUsable, match=r"Read-only file system.*Copy the store"):
        call(report, "toy-abc1", "--store", str(folder))


def test_the_events_of_finished_runs_are_not_read_for_a_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        "toolkit._run.event_log.read_events", lambda path: seen.append(path.name) or []
    )
    call(runs, "--store", str(folder))
    call(status, "--store", str(folder))
    assert seen == ["toy-xyz2", "toy-xyz2"], "only the run that is not finished"


def test_an_unknown_run_names_the_nearest(folder: Path) -> None:
    with pytest.raises(BadInput, match="Nearest: toy-abc1"):
        find_run(folder, "toy-abc9")
    with pytest.raises(BadInput, match="beginning of 2 runs"):
        find_run(folder, "toy-")
    with pytest.raises(BadInput, match="holds no runs"):
        find_run(folder / "elsewhere", "x")


def test_doctor_says_the_fix_and_clean_removes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "torch_build", lambda: doctor.Diagnosis("torch", "not asked here"))
    for run, key in (("toy-abc1", "key1"), ("toy-xyz2", "unfinished")):
        (folder / "runs" / run / "jobs" / key).mkdir(parents=True)
    text = call(doctor, "--store", str(folder), code=3)
    assert "toolkit doctor --clean" in text
    assert "Continue with: toolkit run toy-xyz2" in text
    assert "job folders: 1" in call(doctor, "--clean", "--store", str(folder), code=3)
    assert not (folder / "runs" / "toy-abc1" / "jobs" / "key1").exists()
    assert (folder / "runs" / "toy-xyz2" / "jobs" / "unfinished").exists()
    open_store(folder).record_run(run="toy-xyz2", name="toy", state="interrupted")
    result = json.loads(call(doctor, "--json", "--store", str(folder)))
    assert [finding for finding in result["findings"] if finding["cure"]] == []
