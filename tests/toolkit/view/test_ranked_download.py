"""Files of ranked features: all of them, in the order of the page, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tests.toolkit.query.asked import commit, space
from tests.toolkit.view.conftest import Get, asked
from tests.toolkit.view.seen import _begin
from toolkit._query import answers, ranked_files
from toolkit._query.run import Run
from toolkit._view.app import make_app
from toolkit._view.library import Library
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store

RUN = "/run/full-1"
FEATURES = 130_000
CONTRAST = "lost vs won"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A run with tests of more than 100,000 features in two layers."""
    store = open_store(tmp_path_factory.mktemp("ranked") / "store", create=True)
    width = FEATURES // 2
    spaces = [space("s1", 2, "sae") | {"width": width}, space("s2", 9, "sae") | {"width": width}]
    with store.writer():
        commit(store, "k1", "extract", "many-1", {"spaces": spaces})
        for key, stage, rows in (
            ("k2", "groups", statistics(width)),
            ("k3", "labels", [labels(width)]),
        ):
            store.commit(make_step(key, run="many-1", stage=stage), {"features": rows})
        _begin(store, "many-1", "2026-01-01", "done", ["k1", "k2", "k3"])
    return Library(Path(store.folder))


def statistics(width: int) -> Iterator[pa.Table]:
    rng = np.random.default_rng(0)
    for name in ("s1", "s2"):
        numbers = {
            "d": rng.normal(size=width),
            "q": rng.integers(0, 1_000, width) / 1_000,  # many are equal
            "significant": rng.integers(0, 2, width).astype(float),
        }
        for stat, values in numbers.items():
            yield block(name, stat, CONTRAST, pa.array(np.arange(width)), pa.array(values))
        mean = pa.array(rng.normal(size=width))
        yield block(name, "mean", "lost", pa.array(np.arange(width)), mean)


def labels(width: int) -> pa.Table:
    chosen = pa.array(np.arange(0, width, 1_000))
    table = block("s1", "label", "", chosen, pa.nulls(len(chosen), pa.float64()))
    texts = pa.array([f"label {index}" for index in chosen.to_pylist()])
    return table.set_column(table.column_names.index("text"), "text", texts)


def block(name: str, stat: str, group: str, features: Any, numbers: Any) -> pa.Table:
    words = {"space": name, "stat": stat, "group": group}
    columns = {
        **{key: pa.repeat(pa.scalar(word), len(features)) for key, word in words.items()},
        "feature": features.cast(pa.uint32()),
        "number": numbers,
        "text": pa.nulls(len(features), pa.string()),
        "comparison": pa.nulls(len(features), pa.string()),
    }
    schema = arrow_schema("features")
    return pa.table({key: columns[key] for key in schema.names}, schema=schema)


@pytest.mark.slow
def test_a_file_has_more_than_100_000_features_in_the_order_of_the_page(
    library: Library,
) -> None:
    app = make_app(library)
    path = "/run/many-1/features?table=features&as="
    whole = pl.read_parquet(io.BytesIO(asked(app, f"{path}parquet").body))
    assert whole.height == FEATURES
    page = library.features(library.run("many-1"), None, None, None, False)
    assert whole["address"].head(100).to_list() == page["address"].to_list()
    order = whole.select(pl.col("q"), -pl.col("d").abs())
    assert order.equals(order.sort(["q", "d"]))
    assert whole["address"].n_unique() == FEATURES
    assert whole.select(pl.col("mean[lost]").null_count()).item() == 0
    assert whole["label"].drop_nulls().len() == FEATURES // 2 // 1_000
    few = pl.read_csv(io.BytesIO(asked(app, f"{path}csv&significant=1&layer=9").body))
    wanted = whole.filter(pl.col("significant") == 1, pl.col("address").str.starts_with("9/"))
    assert few["address"].to_list() == wanted["address"].to_list()
    assert few["d"].to_list() == pytest.approx(wanted["d"].to_list())


@pytest.mark.parametrize("lines", [1, 2, 4_000])
def test_a_file_has_what_the_frame_of_all_features_has(
    seen_store: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    monkeypatch.setattr(ranked_files, "BLOCK_LINES", lines)
    monkeypatch.setattr(ranked_files, "BATCH_ROWS", 5)
    run = Library(seen_store).run("full-1")
    whole = answers.features(run, every_stat=True, k=1_000)
    assert parts_of(run).equals(pl.DataFrame(whole))


def parts_of(run: Run) -> pl.DataFrame:
    ranked = answers.ranked_lines(run, None, None, None)
    return pl.concat(ranked_files.ranked_parts(run, ranked, ranked, None))


def test_temporary_files_are_gone_even_when_a_reader_stops(
    seen_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = Library(seen_store).run("full-1")
    ranked = answers.ranked_lines(run, None, None, None)
    parts = ranked_files.ranked_parts(run, ranked, ranked, None)
    next(parts)
    assert list(tmp_path.iterdir()) != []
    parts.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_run_without_features_has_only_columns(get: Get) -> None:
    text = get("/run/other-1/features?table=features&as=csv").text
    assert text.splitlines() == ["address,stage,contrast"]
