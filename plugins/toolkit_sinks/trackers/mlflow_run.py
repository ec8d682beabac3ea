"""The sink `mlflow`: a run in an MLflow tracking store, here or on a server. It is found again by
its tag `toolkit.run`, so that a repeated run changes it and makes no second one.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from toolkit.errors import DataError
from toolkit.secrets import Secrets
from toolkit.work import SinkWork

from .contents import (
    FINDING_COLUMNS,
    TrackerParams,
    config_of,
    finding_rows,
    flat_config,
    measures_of,
    notes_of,
    tracked_tables,
)

if TYPE_CHECKING:
    from toolkit.work import ReportContents

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
"""No usage report; and folders are allowed as tracking stores. Read when mlflow is imported."""
RUN_TAG = "toolkit.run"
LONGEST_PARAM, PARAMS_AT_ONCE = 6000, 100
"""Limits of MLflow's stores: characters of a param, and params per call."""
PASSWORDS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "DATABRICKS_TOKEN")


class Mlflow(TrackerParams):
    """Which tracking store and experiment the run goes to."""

    experiment: str = Field("sae-toolkit", min_length=1, description="The name of the experiment.")
    uri: str | None = Field(
        None,
        min_length=1,
        description="The tracking store: sqlite:///FILE, a folder as file:FOLDER, or a server; "
        "without it, the database mlflow.db in the sink's folder.",
    )

    @field_validator("uri")
    @classmethod
    def _has_no_password(cls, uri: str | None) -> str | None:
        if uri and "@" in urlsplit(uri).netloc:
            raise ValueError(
                "a name or password in the URI would be recorded with the run. Take it out, and "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return uri


def check(params: Mlflow) -> str | None:
    """What is missing to write it."""
    needed = ["mlflow", *(("sqlalchemy", "alembic") if _is_database(params.uri) else ())]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed. Install it: pip install 'sae-toolkit[mlflow]'."
    return None


def _is_database(uri: str | None) -> bool:
    return uri is None or uri.startswith("sqlite:")


def write_mlflow(work: SinkWork) -> Iterator[tuple[str, bytes]]:
    """Log the run, then `mlflow.json`, which says where it is."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        experiment, run = _log(work)
    except Exception as error:
        raise DataError(_failure(error)) from None
    where = {"run": work.run, "experiment": experiment, "mlflow_run": run}
    yield "mlflow.json", (json.dumps(where, indent=1) + "\n").encode()


def _failure(error: Exception) -> str:
    """The sentence for what MLflow raised, without its passwords."""
    values = {name: os.environ[name] for name in PASSWORDS if os.environ.get(name)}
    text = Secrets(values).hide(str(error)).strip()
    reason = text.splitlines()[0][:300].rstrip(".") if text else type(error).__name__
    return (
        f"MLflow did not take the run: {reason}. Every step is safe: correct `uri` or start the "
        "server, then continue with the same command."
    )


def _log(work: SinkWork) -> tuple[str, str]:
    """Log the run; the ids of its experiment and of its run there."""
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they log each table of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=_uri(work))
    experiment = _experiment(client, work)
    contents = work.report()
    run = _run(client, experiment, work)
    client.set_tag(run, "mlflow.note.content", notes_of(work, contents.findings))
    _log_measures(client, run, work)
    with tempfile.TemporaryDirectory(prefix="toolkit-mlflow-") as scratch:
        _write_artifacts(work, contents, Path(scratch))
        client.log_artifacts(run, scratch)
    client.set_terminated(run, "FINISHED")
    return experiment, run


def _uri(work: SinkWork) -> str:
    if work.params.uri is not None:
        return str(work.params.uri)
    work.folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{work.folder / 'mlflow.db'}"


def _experiment(client: Any, work: SinkWork) -> str:
    """The experiment's id; it is made where there is none."""
    existing = client.get_experiment_by_name(work.params.experiment)
    if existing is not None:
        return str(existing.experiment_id)
    artifacts = (work.folder / "mlruns").as_uri() if work.params.uri is None else None
    return str(client.create_experiment(work.params.experiment, artifact_location=artifacts))


def _run(client: Any, experiment: str, work: SinkWork) -> str:
    """The id of the run that has this run's tag and configuration. One with another configuration,
    such as that of an older version, is deleted: MLflow changes no param.
    """
    params = {_key(name): text[:LONGEST_PARAM] for name, text in flat_config(config_of(work))}
    for run in client.search_runs([experiment], filter_string=f"tags.`{RUN_TAG}` = '{work.run}'"):
        if params.items() >= run.data.params.items():
            _log_params(client, run.info.run_id, params)
            return str(run.info.run_id)
        client.delete_run(run.info.run_id)
    name = str(work.record.get("name") or work.run)
    run = client.create_run(experiment, run_name=name, tags={RUN_TAG: work.run})
    _log_params(client, run.info.run_id, params)
    return str(run.info.run_id)


def _log_params(client: Any, run: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entries = [Param(name, text) for name, text in params.items()]
    for start in range(0, len(entries), PARAMS_AT_ONCE):
        client.log_batch(run, params=entries[start : start + PARAMS_AT_ONCE])


def _key(name: str) -> str:
    """A name in the characters that MLflow allows: letters, digits and `_-. /`."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)


def _log_measures(client: Any, run: str, work: SinkWork) -> None:
    """Each measure at the time of the newest result, so that logging it again adds nothing."""
    from mlflow.entities import Metric

    stamp = work.committed_at
    time = int(datetime.fromisoformat(stamp).timestamp() * 1000) if stamp else 0
    metrics = [Metric(_key(name), value, time, 0) for name, value in measures_of(work).items()]
    client.log_batch(run, metrics=metrics)


def _write_artifacts(work: SinkWork, contents: ReportContents, folder: Path) -> None:
    """The spec, the findings and tables as CSV, and the files of the report's figures."""
    files: dict[str, bytes] = {
        "spec.json": json.dumps(config_of(work), indent=1, ensure_ascii=False).encode(),
        "findings.csv": _csv(FINDING_COLUMNS, finding_rows(contents.findings)),
    }
    files |= {
        f"tables/{tracked.name}.csv": _csv(tracked.columns, tracked.rows)
        for tracked in tracked_tables(work)
    }
    files |= {f"figures/{name}": content for name, content in contents.files.items()}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *rows])
    return out.getvalue().encode()
