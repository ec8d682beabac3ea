"""What trackers are given, with stand-ins for their clients that can fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.plugins.toolkit_sinks.conftest import SINKS, table
from toolkit.errors import DataError
from toolkit.testing.fakes import TableInputs
from toolkit.work import Finding, ReportContents, SinkWork

STAND_INS = Path(__file__).parent / "stand_ins"
KEY = "0123456789abcdef" * 2
RECORD = {
    "name": "two groups",
    "spec": {"question": "Do they differ?", "model": {"with": {"token": "${env:HF_TOKEN}"}}},
    "spec_sha256": "ab",
    "seed": 7,
    "toolkit": "0.1.0",
    "plugins": {"stats": "1"},
    "model": {"uses": "toy", "name": "m", "revision": "r", "digest": "d", "facts": {"path": "/x"}},
    "host": "my-machine",
    "spec_path": "/home/me/spec.yaml",
    "command": "toolkit run x --store /home/me/store",
}
MEASURES = [
    {
        "measure": name,
        "subject": "",
        "scope": scope,
        "condition": "",
        "title": name,
        "value": value,
        "low": None,
        "high": None,
        "p": None,
        "q": None,
        "n": 4,
        "event": None,
        "text": None,
    }
    for name, scope, value in (
        ("bankrupt rate", "all", 0.25),
        ("bankrupt rate", "level", 0.5),
        ("undefined", "all", None),
    )
]
VERDICTS = [
    {
        "screen": "s",
        "space": "a",
        "feature": feature,
        "comparison": "c",
        "contrast": "x vs y",
        "outcome": "stop",
        "verdict": "none",
        "reason": "r",
        "effect": 0.1,
        "low": 0.0,
        "high": 0.2,
        "p": 0.5,
        "q": 0.9,
        "family": 2,
    }
    for feature in (9, 3)
]
FINDING = Finding(sentence="Nothing is causal.", number=0.1, interval=(0.0, 0.2), n=40)


def contents() -> ReportContents:
    return ReportContents([FINDING], {"01-a.svg": b"<svg></svg>", "01-a.csv": b"x\n1\n"})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a stand-in under the name of what it stands in for."""

    def load(name: str) -> Any:
        monkeypatch.syspath_prepend(str(STAND_INS))
        for module in [key for key in sys.modules if key.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        module = __import__(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return load


def work(sink: str, folder: Path, **params: Any) -> SinkWork:
    tables = {"verdicts": table("verdicts", VERDICTS), "measures": table("measures", MEASURES)}
    return SinkWork(
        SINKS[sink].params.model_validate(params),
        folder,
        "two-groups-1",
        TableInputs(tables),
        committed_at="2025-10-17T12:00:00+00:00",
        record=RECORD,
        report=contents,
    )


def run(sink: str, folder: Path, **params: Any) -> dict[str, bytes]:
    files = SINKS[sink].run(work(sink, folder, **params))
    return {name: bytes(content) for name, content in files if isinstance(content, bytes)}


# --- Weights & Biases -----------------------------------------------------------------------------


def test_wandb_is_given_spec_findings_tables_measures_and_charts(stand_in, tmp_path) -> None:
    wandb = stand_in("wandb")
    files = run("wandb", tmp_path, project="p", tags=["a"])
    (logged,) = wandb.runs
    settings = logged.arguments
    assert (settings["project"], settings["id"], settings["name"]) == (
        "p",
        "two-groups-1",
        "two groups",
    )
    assert (settings["mode"], settings["resume"], settings["tags"]) == ("offline", None, ["a"])
    assert settings["notes"] == "**Do they differ?**\n\n- Nothing is causal."
    assert settings["config"]["spec"] == RECORD["spec"]
    assert settings["config"]["model"] == {
        "uses": "toy",
        "name": "m",
        "revision": "r",
        "digest": "d",
    }
    assert set(logged.logged) == {
        "findings",
        "tables/verdicts",
        "tables/measures",
        "figures/01-a",
    }
    assert logged.logged["findings"].data == [["Nothing is causal.", 0.1, 0.0, 0.2, 40, ""]]
    verdicts = logged.logged["tables/verdicts"]
    assert [row[verdicts.columns.index("feature")] for row in verdicts.data] == [3, 9]
    assert logged.summary == {
        "rows/measures": 3.0,
        "rows/verdicts": 2.0,
        "measures/bankrupt_rate": 0.25,
    }
    assert logged.exit_code == 0
    name = "wandb/offline-run-20251017_120000-two-groups-1"
    assert set(files) == {
        f"{name}/run-two-groups-1.wandb",
        f"{name}/files/media/table.json",
        "wandb.json",
    }
    assert json.loads(files[f"{name}/run-two-groups-1.wandb"]) == sorted(logged.logged)
    assert run("wandb", tmp_path, project="p", tags=["a"]) == files


def test_trackers_are_given_nothing_of_this_machine(stand_in, tmp_path) -> None:
    wandb, mlflow = stand_in("wandb"), stand_in("mlflow")
    run("wandb", tmp_path)
    run("mlflow", tmp_path)
    assert wandb.runs[0].arguments["settings"].values["host"] == "-"
    sent = [repr({**wandb.runs[0].arguments, "dir": ""}), repr(vars(mlflow.runs["run-0"]))]
    for text in sent:
        assert "my-machine" not in text
        assert "/home/me" not in text


def test_a_table_is_cut_at_its_limit(stand_in, tmp_path) -> None:
    wandb = stand_in("wandb")
    run("wandb", tmp_path, max_rows=1, tables=["verdicts"])
    assert [len(wandb.runs[0].logged["tables/verdicts"].data)] == [1]
    assert wandb.runs[0].summary == {"rows/verdicts": 2.0}


def test_online_nothing_is_written_but_where_it_went(stand_in, tmp_path) -> None:
    wandb = stand_in("wandb")
    files = run("wandb", tmp_path, mode="online", entity="me")
    assert list(files) == ["wandb.json"]
    assert json.loads(files["wandb.json"]) == {
        "run": "two-groups-1",
        "project": "sae-toolkit",
        "entity": "me",
        "mode": "online",
    }
    assert wandb.runs[0].arguments["resume"] == "allow"


def test_what_wandb_raises_is_one_sentence_without_the_key(
    stand_in, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = stand_in("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb.FAILS = RuntimeError(f"403 for key {KEY}\nmore")
    with pytest.raises(DataError) as caught:
        run("wandb", tmp_path)
    assert str(caught.value) == (
        "Weights & Biases did not take the run: 403 for key ${env:WANDB_API_KEY}. Every step is "
        "safe: log in (`wandb login`) or set `mode: offline`, then continue with the same command."
    )


def test_an_active_run_of_wandb_is_left_alone(stand_in, tmp_path) -> None:
    stand_in("wandb").run = object()
    with pytest.raises(DataError, match=r"is active in this process. End it: wandb.finish\(\)"):
        run("wandb", tmp_path)


def test_online_needs_a_login(stand_in, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("wandb")
    params = SINKS["wandb"].params.model_validate({"mode": "online"})
    check = SINKS["wandb"].check
    assert check is not None
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert check(params) == (
        "mode: online needs a login, and there is none. Run `wandb login`, set WANDB_API_KEY, or "
        "leave `mode` out."
    )
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert check(params) is None
    assert check(SINKS["wandb"].params()) is None


# --- MLflow ---------------------------------------------------------------------------------------


def test_mlflow_is_given_the_run_and_its_repetition_makes_no_second_one(stand_in, tmp_path) -> None:
    mlflow = stand_in("mlflow")
    files = run("mlflow", tmp_path)
    assert run("mlflow", tmp_path) == files
    (logged,) = mlflow.runs.values()
    assert json.loads(files["mlflow.json"]) == {
        "run": "two-groups-1",
        "experiment": "1",
        "mlflow_run": "run-0",
    }
    assert (logged.name, logged.status) == ("two groups", "FINISHED")
    assert logged.tags["mlflow.note.content"].endswith("- Nothing is causal.")
    assert logged.params["spec.model.with.token"] == "${env:HF_TOKEN}"
    assert {(metric.key, metric.value) for metric in logged.metrics} == {
        ("rows/measures", 3.0),
        ("rows/verdicts", 2.0),
        ("measures/bankrupt_rate", 0.25),
    }
    assert len(logged.metrics) == 3
    assert set(logged.files) == {
        "spec.json",
        "findings.csv",
        "tables/verdicts.csv",
        "tables/measures.csv",
        "figures/01-a.svg",
        "figures/01-a.csv",
    }
    assert mlflow.experiments["sae-toolkit"].artifacts == (tmp_path / "mlruns").as_uri()


def test_a_run_of_an_older_version_is_replaced(
    stand_in, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = stand_in("mlflow")
    run("mlflow", tmp_path)
    monkeypatch.setitem(RECORD, "toolkit", "0.2.0")
    run("mlflow", tmp_path)
    first, second = mlflow.runs.values()
    assert (first.tags["toolkit.run"], first.params["toolkit"]) == ("deleted", "0.1.0")
    assert (second.tags["toolkit.run"], second.params["toolkit"]) == ("two-groups-1", "0.2.0")


def test_what_mlflow_raises_is_one_sentence_without_the_token(
    stand_in, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = stand_in("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", KEY)
    mlflow.FAILS = ConnectionError(f"refused {KEY}.")
    with pytest.raises(DataError, match=r"refused \$\{env:MLFLOW_TRACKING_TOKEN\}. Every step"):
        run("mlflow", tmp_path)


def test_a_uri_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError, match="a name or password in the URI") as caught:
        SINKS["mlflow"].params.model_validate({"uri": f"https://me:{KEY}@host/"})
    assert "MLFLOW_TRACKING_PASSWORD" in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("sink", "params", "absent", "sentence"),
    [
        ("wandb", {}, "wandb", "wandb is not installed. Install it: pip install 'sae-toolkit["),
        ("mlflow", {}, "mlflow", "mlflow is not installed. Install it: pip install 'sae-toolkit["),
        ("mlflow", {}, "alembic", "alembic is not installed. Install it: pip install 'sae-toolk"),
        ("mlflow", {"uri": "https://server"}, "alembic", None),
    ],
)
def test_a_missing_package_is_said_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, sink: str, params: dict, absent: str, sentence: str | None
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == absent else object()
    )
    check = SINKS[sink].check
    assert check is not None
    message = check(SINKS[sink].params.model_validate(params))
    assert (
        message is None
        if sentence is None
        else message is not None and message.startswith(sentence)
    )
