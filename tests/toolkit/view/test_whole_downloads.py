"""Files of the explorer have all rows: more than a page shows, and than are read at a time."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tests.toolkit.query.asked import commit, fired, space, text
from tests.toolkit.view.conftest import asked
from tests.toolkit.view.seen import ATTENTION, ATTRIBUTIONS, _begin
from toolkit._query import answers
from toolkit._view import grid
from toolkit._view.app import make_app
from toolkit._view.library import Library
from toolkit._view.pages import feature, search
from toolkit._view.request import Query
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store
from toolkit_store.index.projections import project
from toolkit_store.query.similar import slices

LABELS = 100_100
TOKENS = 1_200
FEATURES = 30
SAMPLE = "/run/wide-1/sample?sample=long"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A run with more labels, tokens, features at a token, attention weights and attributions than
    any page shows.
    """
    store = open_store(tmp_path_factory.mktemp("wide") / "store", create=True)
    words = [f" w{at}" for at in range(TOKENS)]
    samples = [text("long", "".join(words), words)]
    active = {f"f{index}": 1.0 + index for index in range(FEATURES)}
    rows = [fired("s2", "long", at, **{**active, "f0": 1.0 + at / 4}) for at in range(TOKENS)]
    spaces = [
        space("s1", 2, "wide") | {"width": LABELS},
        space("s2", 9, "thin") | {"width": FEATURES, "sae_hash": "thin"},
    ]
    weights = np.random.default_rng(0).permutation(400) / 512  # exact as 16-bit floats
    attention = [
        row | {"sample": "long", "query": 4, "weights": weights.tolist()} for row in ATTENTION
    ]
    attribution = {**ATTRIBUTIONS[0], "sample": "long"}
    attributions = [attribution | {"position": at, "value": at - 300.0} for at in range(500)]
    tokens = {"attention": attention, "attributions": attributions}
    with store.writer():
        commit(store, "k1", "prompts", "wide-1", {"samples": samples})
        commit(store, "k2", "extract", "wide-1", {"activations": rows, "spaces": spaces})
        commit(store, "k3", "tokens", "wide-1", tokens)
        labelled = make_step("k4", run="wide-1", stage="labels")
        store.commit(labelled, {"features": [labels()]})
        _begin(store, "wide-1", "2026-01-01", "done", ["k1", "k2", "k3", "k4"])
        directions = np.random.default_rng(1).normal(size=(FEATURES, 8)).astype(np.float32)
        project(store, "s2", "thin", FEATURES, slices(directions))
    return Library(Path(store.folder))


def labels() -> pa.Table:
    texts = [f"money {index}" for index in range(LABELS)]
    columns = {
        "space": pa.repeat(pa.scalar("s1"), LABELS),
        "feature": pa.array(range(LABELS), pa.uint32()),
        "stat": pa.repeat(pa.scalar("label"), LABELS),
        "group": pa.repeat(pa.scalar(""), LABELS),
        "text": pa.array(texts),
    }
    schema = arrow_schema("features")
    missing = {
        field.name: pa.nulls(LABELS, field.type) for field in schema if field.name not in columns
    }
    filled = columns | missing
    return pa.table({name: filled[name] for name in schema.names}, schema=schema)


def downloaded(library: Library, path: str, table: str, kind: str = "parquet") -> pl.DataFrame:
    answer = asked(make_app(library), f"{path}&table={table}&as={kind}")
    assert answer.status == 200, answer.text
    read = pl.read_parquet if kind == "parquet" else pl.read_csv
    return read(io.BytesIO(answer.body))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_of_hits_has_all_of_them_in_the_order_of_the_page(
    library: Library, kind: str
) -> None:
    whole = downloaded(library, "/search?q=money", "hits", kind)
    assert whole["text"].to_list() == [f"money {index}" for index in range(LABELS)]
    assert whole["address"].to_list() == [f"2/{index}" for index in range(LABELS)]
    assert set(whole["run"]) == {"wide-1"}
    page = asked(make_app(library), "/search?q=money").text
    assert f"{LABELS - search.SEARCH_ROWS:,} more rows in the files" in page


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_of_values_has_every_token(library: Library, kind: str) -> None:
    whole = downloaded(library, "/run/wide-1/feature?address=9/0", "top", kind)
    assert whole["position"].to_list() == list(reversed(range(TOKENS)))
    assert whole["value"].to_list() == [1.0 + at / 4 for at in reversed(range(TOKENS))]
    assert whole["token"].to_list() == [f" w{at}" for at in reversed(range(TOKENS))]
    assert "[ w600]" in whole["text"][TOKENS - 601]
    page = asked(make_app(library), "/run/wide-1/feature?address=9/0").text
    assert f"{TOKENS - feature.TOP:,} more rows in the files" in page


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("table", ["coactive", "similar"])
def test_files_of_related_features_have_all_of_the_space(
    library: Library, monkeypatch: pytest.MonkeyPatch, table: str, kind: str
) -> None:
    monkeypatch.setattr(feature, "PART_ROWS", 7)
    whole = downloaded(library, "/run/wide-1/neighbours?address=9/5", table, kind)
    run = library.run("wide-1")
    first = feature.neighbours(library, Query({"address": "9/5"}), "wide-1").grids
    shown = next(each for each in first if each.name == table).frame
    others = {run.label("s2", index) for index in range(FEATURES)} - {"9/5"}
    assert set(whole["address"]) == others
    assert whole.height == FEATURES - 1
    assert whole["address"].head(feature.RELATED).to_list() == shown["address"].to_list()


def test_files_about_a_token_have_every_weight_part_and_feature(library: Library) -> None:
    weights = downloaded(library, f"{SAMPLE}&position=4", "attention")
    assert weights.height == 2 * 400
    assert weights["weight"].to_list() == [at / 512 for at in reversed(range(400)) for _ in "01"]
    assert weights["token"].to_list() == [f" w{key}" for key in weights["key"]]
    parts = downloaded(library, SAMPLE, "attributions")
    assert set(parts["position"]) == set(range(500))
    assert parts["value"].abs().to_list() == sorted(map(abs, range(-300, 200)), reverse=True)
    active = downloaded(library, SAMPLE, "active")
    assert active.height == FEATURES * TOKENS
    page = asked(make_app(library), f"{SAMPLE}&position=4").text
    assert f"{2 * 400 - grid.MAX_ROWS} more rows in the files" in page


def test_a_file_of_samples_has_whole_texts(library: Library) -> None:
    texts = downloaded(library, "/run/wide-1/samples?offset=0", "samples")["text"]
    assert texts.to_list() == ["".join(f" w{at}" for at in range(TOKENS))]


@pytest.mark.slow
def test_hits_and_values_are_read_a_few_at_a_time(
    seen_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, rows = Library(seen_store), 1
    paths = {f"/search?q={words}": "hits" for words in ("2/5", "o", "nothing has this")}
    paths["/run/full-1/feature?address=2/5"] = "top"
    wanted = {path: downloaded(library, path, table) for path, table in paths.items()}
    assert wanted["/search?q=o"]["match"].to_list() == ["label", "label", "word", "token"]
    described, sizes = answers.in_texts, []

    def watched(hits: pl.DataFrame, texts: Mapping[str, Any]) -> pl.DataFrame:
        sizes.append(hits.height)
        return described(hits, texts)

    monkeypatch.setattr(answers, "in_texts", watched)
    for module, name in ((search, "PART_ROWS"), (search, "SEARCH_ROWS"), (feature, "TEXT_ROWS")):
        monkeypatch.setattr(module, name, rows)
    monkeypatch.setattr(feature, "TOP", rows)
    for path, table in paths.items():
        assert downloaded(library, path, table).equals(wanted[path])
    assert max(sizes) == rows
