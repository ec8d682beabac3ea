"""A value of `${env:NAME}` is used and written nowhere: not in the store, a report or an export."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.secrets import Secrets, keyed_hash

TOKEN = "hf_S3cretValue900150983"
PLUGIN = """
import sys
import pyarrow as pa
from pydantic import Field
from toolkit import hookimpl
from toolkit.errors import DataError
from toolkit.parts import Params, StagePart
from toolkit.tables import arrow_schema


class Token(Params):
    token: str = Field(description="A token.")
    nested: dict[str, str] = Field({}, description="More of them.")
    fail: bool = Field(False, description="Fail, and say why.")


def use(work):
    assert len(work.params.token) == 23, "the part gets the value itself"
    print("logging in with", work.params.token)
    print("headers", work.params.nested, file=sys.stderr)
    if work.params.fail:
        raise DataError(f"the service refused {work.params.token}. Ask for another token.")
    row = {"contrast": "c", "kind": "k", "name": "n", "metric": "m", "text": "done"}
    yield "baselines", pa.Table.from_pylist([row], schema=arrow_schema("baselines"))


@hookimpl
def toolkit_parts():
    yield StagePart(
        name="compare.secret", help="x", params=Token, run=use, reads=("samples",),
        writes=("baselines",),
    )
"""
SPEC = """version: 1
name: secret
model: {uses: toy}
saes: {uses: toy}
samples: {uses: count, with: {n: 4}}
stages:
  - {id: features, uses: extract.hash}
  - {id: groups, uses: compare.means, needs: [features]}
  - id: ask
    uses: compare.secret
    with: {token: "${env:TOKEN}", nested: {header: "Bearer ${env:TOKEN}"}}
sinks:
  - {uses: json, with: {path: exports}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    path = tmp_path / "secret.yaml"
    path.write_text(SPEC)
    return path


def contents(path: Path) -> Iterator[bytes]:
    """What a file holds, compressed parts unpacked."""
    data = path.read_bytes()
    yield data
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if path.suffix == ".parquet":
        import polars as pl

        yield str(pl.read_parquet(path).to_dicts()).encode()


def leaks(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        str(path.relative_to(folder))
        for path in files
        if path.suffix not in (".py", ".pyc")
        and any(TOKEN.encode() in data for data in contents(path))
    ]


@pytest.mark.slow
def test_nothing_that_a_run_writes_holds_it(toolkit, spec: Path, tmp_path: Path) -> None:
    plugin = ("--plugin", tmp_path / "plugin.py")
    planned = toolkit.run("plan", spec, *plugin, "--json", TOKEN=TOKEN)
    done = toolkit.run("run", spec, *plugin, "--json", TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    run = json.loads(planned.stdout)["run"]
    for form in ("parquet", "safetensors", "rows", "tokens", "neuronpedia", "lists"):
        exported = toolkit.run("store", "export", form, tmp_path / form, "--run", run)
        assert exported.returncode == 0, f"{form}: {exported.stderr}"
    toolkit.run("lock", spec, *plugin, TOKEN=TOKEN)
    said = [planned, done, toolkit.run("show", run), toolkit.run("status", run)]
    sql = toolkit.run("query", "sql", "SELECT * FROM steps", "--run", run, "--json")
    for answer in (*said, sql):
        assert TOKEN not in answer.stdout + answer.stderr
    assert leaks(tmp_path) == []
    assert leaks(toolkit.store) == []


@pytest.mark.slow
def test_an_error_that_quotes_it_is_recorded_without_it(toolkit, spec: Path, tmp_path) -> None:
    plugin = ("--plugin", tmp_path / "plugin.py")
    failed = toolkit.run("run", spec, *plugin, "--set", "stages.ask.with.fail=true", TOKEN=TOKEN)
    assert failed.returncode == 3
    assert "the service refused ${env:TOKEN}." in failed.stderr
    assert TOKEN not in failed.stdout + failed.stderr
    assert leaks(toolkit.store) == []


@pytest.mark.slow
def test_another_value_is_another_key_and_the_same_is_the_same(toolkit, spec, tmp_path) -> None:
    plugin = ("--plugin", tmp_path / "plugin.py")
    first, again, other = (
        json.loads(toolkit.run("plan", spec, *plugin, "--json", TOKEN=value).stdout)["run"]
        for value in (TOKEN, TOKEN, TOKEN[::-1])
    )
    assert first == again != other
    toolkit.run("run", spec, *plugin, TOKEN=TOKEN)
    repeated = toolkit.run("run", first, *plugin, TOKEN=TOKEN)
    assert repeated.returncode == 0, repeated.stderr


def test_hiding() -> None:
    secrets = Secrets({"A": "long-value", "B": "long-value-longer", "C": "abc"})
    assert secrets.hide("x long-value-longer y long-value abc") == "x ${env:B} y ${env:A} abc"
    assert secrets.hide_in({"long-value": ["long-value", 3]}) == {"${env:A}": ["${env:A}", 3]}
    assert "long-value" not in repr(secrets)


def test_the_hash_does_not_show_the_value() -> None:
    assert keyed_hash("value") == keyed_hash("value") != keyed_hash("valuf")
    assert len(keyed_hash("value")) == 36
