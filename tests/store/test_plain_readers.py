"""The tables as other programs read them: one row per space, and joins that double nothing.

The statements are those of the how-to, which says them for LanceDB, polars and DuckDB.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store
from toolkit_store.lance import lancedb

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ask-a-store.md"
STEPS = 3
EXPECTED = [("m/resid_post.1/s", 7, f"feature 7 of step {number}") for number in range(STEPS)]


def rows(name: str, *result: dict[str, Any]) -> pa.Table:
    full = [{column: None for column in arrow_schema(name).names} | row for row in result]
    return pa.Table.from_pylist(full, schema=arrow_schema(name))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps that each write the same space, and a label of their own."""
    folder = tmp_path_factory.mktemp("plain") / "toolkit-runs"
    store = open_store(folder, create=True)
    space = {
        "space": "A",
        "model": "m",
        "revision": "r",
        "hookpoint": "resid_post.1",
        "recipe": "j",
        "width": 16,
        "address": "m/resid_post.1/s",
    }
    for number in range(STEPS):
        label = {
            "space": "A",
            "feature": 7,
            "stat": "label",
            "group": f"g{number}",
            "text": f"feature 7 of step {number}",
        }
        tables = {"spaces": rows("spaces", space), "features": rows("features", label)}
        store.commit(make_step(f"k{number}"), tables)
    store.record_run(
        run="r", name="n", state="done", steps=[f"k{number}" for number in range(STEPS)]
    )
    return folder


def snippet(program: str) -> str:
    """The block of the page that imports the program."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [text for text in blocks if f"import {program}\n" in text and "join" in text.lower()]
    return str(block)


def run_snippet(program: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(store.parent)
    names: dict[str, Any] = {}
    exec(snippet(program), names)
    return names["joined"]


def test_keys_are_unique(store: Path) -> None:
    lancedb()
    database = lancedb().connect(str(store / "tables"))
    for name, key in (
        ("spaces", ["space"]),
        ("features", ["space", "feature", "stat", "group", "comparison", "step"]),
    ):
        frame = pl.DataFrame(database.open_table(name).to_arrow())
        assert frame.select(pl.struct(key).is_duplicated().any()).item() is False, name


def test_lancedb_and_polars_join(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = run_snippet("polars as pl", store, monkeypatch)
    assert sorted(joined.select("address", "feature", "text").iter_rows()) == EXPECTED


@pytest.mark.peer
def test_duckdb_joins(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("duckdb") is None:
        pytest.skip("needs DuckDB: pip install 'sae-toolkit[bench]'")
    joined = run_snippet("duckdb", store, monkeypatch)
    assert sorted((row[0], row[1], row[2]) for row in joined.fetchall()) == EXPECTED
