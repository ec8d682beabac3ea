"""A value of `${env:NAME}` is used and written nowhere: not in the store, a report or an export."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.secrets import HidingFile, Secrets, keyed_hash

TOKEN = "hf_S3cretValue900150983"
ODD = 'p"w\\d é%&+ /-' + "-----BEGIN\nline 2\n'-----END"
"""A value that every kind of quoting writes in another way, on several lines."""
PLUGIN = (
    f"LENGTHS = {{{len(TOKEN)}, {len(ODD)}}}"
    + """
import json
import logging
import os
import subprocess
import sys
from urllib.parse import quote

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
    crash: bool = Field(False, description="End the worker.")


def use(work):
    token = work.params.token
    assert len(token) in LENGTHS, "the part gets the value itself"
    print("logging in with", token)
    print("headers", work.params.nested, file=sys.stderr)
    sys.stdout.writelines([token])
    sys.__stderr__.write(repr([token]) + json.dumps(token) + quote(token, safe=""))
    sys.stdout.buffer.write(token.encode())
    logging.warning("token %s", token)
    os.write(1, token[:9].encode())
    os.write(1, token[9:].encode())
    code = "import sys; print(sys.argv[1], file=sys.stderr)"
    subprocess.run([sys.executable, "-c", code, token], check=True)
    print("all is said")
    if work.params.fail:
        raise DataError(f"the service refused {token}. Ask for another token.")
    if work.params.crash:
        os.write(2, b"last words: " + token.encode())
        os.kill(os.getpid(), 9)
    row = {"contrast": "c", "kind": "k", "name": "n", "metric": "m", "text": "done"}
    yield "baselines", pa.Table.from_pylist([row], schema=arrow_schema("baselines"))


@hookimpl
def toolkit_parts():
    yield StagePart(
        name="compare.secret", help="x", params=Token, run=use, reads=("samples",),
        writes=("baselines",),
    )
"""
)
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


def forms(token: str) -> list[bytes]:
    """How a text may show the value, or a line of it."""
    quoted = (repr(token)[1:-1], json.dumps(token)[1:-1], quote(token, safe=""))
    return [text.encode() for text in (*token.splitlines(), *quoted)]


def leaks(folder: Path, token: str = TOKEN) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        str(path.relative_to(folder))
        for path in files
        if path.suffix not in (".py", ".pyc")
        and any(form in data for data in contents(path) for form in forms(token))
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
    results = [planned, done, toolkit.run("show", run), toolkit.run("status", run)]
    sql = toolkit.run("query", "sql", "SELECT * FROM steps", "--run", run, "--json")
    for answer in (*results, sql):
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


@pytest.mark.parametrize(
    "change",
    [
        'stages.groups.needs=["${env:TOKEN}"]',
        "stages.groups.uses=${env:TOKEN}",
        "stages.features.with.width=${env:TOKEN}",
        "model={uses: huggingface, with: {path: '/tmp/${env:TOKEN}'}}",
        "saes={uses: auto, with: {path: '/tmp/${env:TOKEN}'}}",
        "samples={uses: jsonl, with: {path: '${env:TOKEN}'}}",
        "samples={from: {stage: '${env:TOKEN}'}, uses: games}",
        "sinks=[{uses: '${env:TOKEN}'}]",
        "limit={units: '${env:TOKEN}'}",
        "executors={local: {workers: '${env:TOKEN}'}}",
        "executors={'${env:TOKEN}': {}}",
    ],
)
@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_a_refusal_does_not_quote_it(toolkit, spec, tmp_path, command: str, change: str) -> None:
    plugin = ("--plugin", tmp_path / "plugin.py")
    refused = toolkit.run(command, spec, *plugin, "--set", change, TOKEN=TOKEN)
    assert refused.returncode == 2, refused.stdout
    assert TOKEN not in refused.stdout + refused.stderr


@pytest.mark.slow
def test_an_error_of_a_sink_does_not_quote_it(toolkit, spec, tmp_path) -> None:
    plugin = ("--plugin", tmp_path / "plugin.py")
    sinks = "sinks=[{uses: json, with: {path: '/proc/${env:TOKEN}/x'}}]"
    failed = toolkit.run("run", spec, *plugin, "--set", sinks, TOKEN=TOKEN)
    assert failed.returncode != 0
    assert "/proc/${env:TOKEN}/x" in failed.stderr
    assert TOKEN not in failed.stdout + failed.stderr
    assert leaks(toolkit.store) == []


@pytest.mark.slow
@pytest.mark.parametrize("token", [TOKEN, ODD], ids=["plain", "odd"])
def test_the_log_of_a_worker_that_crashes_does_not_hold_it(toolkit, spec, tmp_path, token) -> None:
    plugin = ("--plugin", tmp_path / "plugin.py")
    failed = toolkit.run("run", spec, *plugin, "--set", "stages.ask.with.crash=true", TOKEN=token)
    assert failed.returncode == 3
    assert not any(form.decode() in failed.stdout + failed.stderr for form in forms(token))
    logs = "".join(path.read_text() for path in (toolkit.store / "runs").rglob("*.log"))
    assert "all is said" in logs
    assert "last words: ${env:TOKEN}" in logs
    assert logs.count("${env:TOKEN}") >= 11
    assert leaks(toolkit.store, token) == []


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


@given(st.text(min_size=4, max_size=9), st.lists(st.integers(0, 40), max_size=6))
def test_a_value_in_pieces_is_hidden(value: str, cuts: list[int]) -> None:
    text = f"a{value}b{value}".encode(errors="surrogatepass")
    written = io.BytesIO()
    written.close, kept = (lambda: None), written  # type: ignore[method-assign]
    file = HidingFile(kept)
    file.secrets = Secrets({"A": value})
    for start, end in pairwise([0, *sorted(cuts), len(text)]):
        file.write(text[start:end])
    file.close()
    assert kept.getvalue() == text.replace(value.encode(errors="surrogatepass"), b"${env:A}")


def test_the_hash_does_not_show_the_value() -> None:
    assert keyed_hash("value") == keyed_hash("value") != keyed_hash("valuf")
    assert len(keyed_hash("value")) == 36
