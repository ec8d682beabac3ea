"""Stands in for MLflow with one tracking store in memory. As MLflow does, it refuses more than 100
params at once and a param that changes. FAILS makes every client raise.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .entities import Metric, Param

FAILS: Exception | None = None
experiments: dict[str, Any] = {}
runs: dict[str, Any] = {}


class MlflowClient:
    def __init__(self, tracking_uri: str) -> None:
        if FAILS is not None:
            raise FAILS
        self.uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        return experiments.get(name)

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        experiments[name] = SimpleNamespace(experiment_id="1", artifacts=artifact_location)
        return "1"

    def search_runs(self, experiment_ids: list[str], filter_string: str) -> list[Any]:
        (expected,) = re.findall(r"tags\.`toolkit\.run` = '([^']*)'", filter_string)
        return [run for run in runs.values() if run.tags["toolkit.run"] == expected]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        name = f"run-{len(runs)}"
        runs[name] = SimpleNamespace(
            info=SimpleNamespace(run_id=name), name=run_name, tags=dict(tags), status="RUNNING"
        )
        runs[name].params, runs[name].metrics, runs[name].files = {}, set(), {}
        runs[name].data = SimpleNamespace(params=runs[name].params)
        return runs[name]

    def delete_run(self, run: str) -> None:
        runs[run].tags["toolkit.run"] = "deleted"

    def set_tag(self, run: str, key: str, value: str) -> None:
        runs[run].tags[key] = value

    def log_batch(
        self, run: str, metrics: list[Metric] | tuple[()] = (), params: list[Param] | tuple[()] = ()
    ) -> None:
        assert len(params) <= 100
        for key, value in params:
            assert re.fullmatch(r"[\w\-. /]+", key), key
            assert runs[run].params.setdefault(key, value) == value, "a param changed"
        runs[run].metrics |= set(metrics)

    def log_artifacts(self, run: str, folder: str) -> None:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                runs[run].files[str(path.relative_to(folder))] = path.read_bytes()

    def set_terminated(self, run: str, status: str) -> None:
        runs[run].status = status
