"""The sinks `wandb` and `mlflow` with the real clients, without a network: what their files hold is
what was logged, and nothing of this machine or of the login.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.toolkit_sinks.test_trackers import KEY, MEASURES, contents, work
from toolkit_sinks import toolkit_parts

pytestmark = [
    pytest.mark.peer,
    pytest.mark.timeout(300),  # a new database of MLflow has dozens of migrations
    pytest.mark.filterwarnings("default"),
]
SINKS = {part.name: part for part in toolkit_parts()}
BLOCK, HEADER, FILE_HEADER = 32_768, 7, 7
"""The log format of LevelDB, in which wandb writes."""


def needs(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def written(sink: str, folder: Path, **params: Any) -> None:
    for name, content in SINKS[sink].run(work(sink, folder, **params)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file; one may lie in several blocks."""
    at, whole = FILE_HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER or data[at + 6] == 0:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        piece = data[at + HEADER : at + HEADER + size]
        whole = piece if kind in (1, 2) else whole + piece
        at += HEADER + size
        if kind in (1, 4):
            yield whole


def test_wandb_writes_a_run_that_can_be_synchronised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    written("wandb", tmp_path, project="p")
    from wandb.proto import wandb_internal_pb2

    (path,) = tmp_path.glob("wandb/offline-run-20251017_120000-*/*.wandb")
    records = [wandb_internal_pb2.Record.FromString(raw) for raw in log_records(path.read_bytes())]
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.run_id, run.project, run.display_name) == ("two-groups-1", "p", "two groups")
    config = {entry.key: entry.value_json for entry in run.config.update}
    assert json.loads(config["seed"]) == 7
    logged = {
        ".".join(item.nested_key) or item.key: item.value_json
        for record in records
        for item in record.history.item
    }
    assert {"findings", "tables/verdicts", "tables/measures"} <= {
        key.partition(".")[0] for key in logged
    }
    summary = {
        entry.key or ".".join(entry.nested_key): entry.value_json
        for record in records
        for entry in record.summary.update
    }
    assert json.loads(summary["measures/bankrupt_rate"]) == MEASURES[0]["value"]
    assert any(record.HasField("exit") for record in records)
    tables = [json.loads(file.read_text()) for file in path.parent.rglob("verdicts*.table.json")]
    assert [len(table["data"]) for table in tables] == [2]
    everything = b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
    content = everything + b"".join(record.SerializeToString() for record in records)
    assert run.host == "-"
    for private in (KEY, "/home/me", "my-machine"):
        assert private.encode() not in content, private


def test_mlflow_has_the_run_once_in_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("mlflow", "sqlalchemy", "alembic")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", KEY)
    for _ in range(2):
        written("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sae-toolkit")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["toolkit.run"] == "two-groups-1"
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "7"
    assert run.data.metrics["measures/bankrupt_rate"] == MEASURES[0]["value"]
    history = client.get_metric_history(run.info.run_id, "rows/verdicts")
    assert [metric.value for metric in history] == [2.0]
    files = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    assert files == {f"figures/{name}" for name in contents().files}
    everything = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for private in (KEY, "/home/me", "my-machine"):
        assert private.encode() not in everything, private


def test_mlflow_writes_to_a_folder_too(tmp_path: Path) -> None:
    needs("mlflow")
    written("mlflow", tmp_path / "out", uri=(tmp_path / "store").as_uri())
    (measure,) = (tmp_path / "store").glob("*/*/metrics/measures/bankrupt_rate")
    assert measure.read_text().split()[1] == "0.25"
