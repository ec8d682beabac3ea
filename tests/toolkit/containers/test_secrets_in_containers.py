"""Secrets in containers that have a network: a token arrives as a file, a value of the spec over
the worker's pipe. Neither is in the environment, in what the engine shows, or in the record.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from toolkit_docker._leftovers import WORKER

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

TOKEN = "hf_FileTokenValue7301"
VALUE = "PipeValue4432-xyz"
PLUGIN = """
import json
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
from pydantic import Field
from toolkit import hookimpl
from toolkit.files.hub import Download, Snapshot
from toolkit.identity import Identity
from toolkit.parts import ModelPart, NoParams, Params, StagePart
from toolkit.tables import arrow_schema


class Value(Params):
    value: str = Field(description="A value of the environment.")


def report(work):
    path = Path(os.environ["HF_TOKEN_PATH"])
    facts = {
        "token": len(path.read_text()),
        "value": len(work.params.value),
        "readable by others": bool(path.stat().st_mode & 0o077),
        "networks": sorted(os.listdir("/sys/class/net")),
        "environment": dict(os.environ),
    }
    Path(os.environ["HF_HUB_CACHE"], "downloaded").touch()
    print("FACTS", json.dumps(facts), file=sys.stderr, flush=True)
    time.sleep(3)
    row = {"contrast": "c", "kind": "k", "name": "n", "metric": "m", "text": "done"}
    yield "baselines", pa.Table.from_pylist([row], schema=arrow_schema("baselines"))


def missing(params):
    return [Download(Snapshot("nobody/nothing", "0" * 40, None), ("*",))]


@hookimpl
def toolkit_parts():
    yield ModelPart(
        name="private", help="A model that the cache lacks.", params=NoParams,
        identify=lambda params: Identity("private", "1", "0" * 64),
        load=lambda params, reporter: 1, downloads=missing,
    )
    yield StagePart(
        name="compare.token", help="Says how long its secrets are.", params=Value, run=report,
        reads=("samples",), writes=("baselines",), uses_model=True,
    )
"""
SPEC = """
version: 1
name: secret
model: {uses: private}
saes: {uses: toy}
samples: {uses: count, with: {n: 2}}
stages:
  - {id: ask, uses: compare.token, with: {value: "${env:VALUE}"}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    path = tmp_path / "secret.yaml"
    path.write_text(SPEC)
    return path


def started(engine: Any) -> Any:
    """What the engine shows of the container of the run, as soon as there is one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if containers := engine.containers.list(filters={"label": WORKER}):
            return containers[0].attrs
        time.sleep(0.05)
    raise AssertionError("no container in a minute")


def test_a_token_reaches_a_container_as_a_file_and_is_written_nowhere(
    engine: Any, image: Path, toolkit: Any, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", spec, "--on", "docker", "--plugin", spec.parent / "plugin.py")
    secrets = {"HF_TOKEN": TOKEN, "VALUE": VALUE}
    process = toolkit.start(*words, TOOLKIT_IMAGES=str(image), HF_HUB_OFFLINE="0", **secrets)
    shown = started(engine)
    output = "".join(process.communicate(timeout=300))
    assert process.returncode == 0, output
    (log,) = toolkit.store.glob("runs/*/workers/docker-0.log")
    (line,) = (text for text in log.read_text().splitlines() if text.startswith("FACTS"))
    facts = json.loads(line.removeprefix("FACTS"))
    assert (facts["token"], facts["value"]) == (len(TOKEN), len(VALUE))
    assert facts["networks"] == ["eth0", "lo"]
    assert not facts["readable by others"]
    assert "HF_TOKEN" not in facts["environment"]
    assert Path(os.environ["HF_HOME"], "hub", "downloaded").exists(), "what it downloads is kept"
    written = [path.read_bytes() for path in toolkit.store.rglob("*") if path.is_file()]
    texts = [*written, json.dumps(shown).encode(), output.encode()]
    for secret in (TOKEN, VALUE):
        assert not [text for text in texts if secret.encode() in text]
