"""Projections of decoders kept in the store: near the exact answers, shared by runs, and only when
asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import toolkit_store
from toolkit.errors import BadInput
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import RunView, Store, open_store
from toolkit_store.index.projections import project
from toolkit_store.query.similar import slices

FEATURES, INPUTS, DIMS = 2_500, 768, 256


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create=True)


def viewed(store: Store, width: int = FEATURES) -> RunView:
    fixed = {
        "model": "m",
        "revision": "1",
        "hookpoint": "resid_post.1",
        "sae": "s",
        "recipe": "relu",
        "width": width,
    }
    rows = [
        {**fixed, "space": name, "sae_hash": f"hash of {name}", "address": f"m/{name}"}
        for name in ("A", "B")
    ]
    store.commit(make_step("k"), {"spaces": pa.Table.from_pylist(rows, arrow_schema("spaces"))})
    store.record_run(run="r", name="n", state="done", steps=["k"])
    return toolkit_store.open(store.folder).run()


def decoder(seed: int) -> np.ndarray:
    """Rows in families of 10, as near to each other as the families of features in a trained SAE
    are.
    """
    rng = np.random.default_rng(seed)
    families = np.repeat(rng.normal(size=(FEATURES // 10, INPUTS)), 10, axis=0)
    rows: np.ndarray = (
        families + rng.uniform(0.5, 2, (FEATURES, 1)) * rng.normal(size=(FEATURES, INPUTS))
    ).astype(np.float32)
    return rows


@pytest.mark.slow
def test_answers_are_near_the_exact_ones(store: Store) -> None:
    view, rows = viewed(store), decoder(0)
    assert project(store, "A", "hash of A", FEATURES, slices(rows), DIMS)
    recalled, errors = [], []
    for feature in range(0, FEATURES, 75):
        exact, near = view.similar("A", feature, 9, rows), view.similar("A", feature, 9)
        recalled.append(len(set(exact["feature"]) & set(near["feature"])) / 9)
        both = exact.join(near, on="feature", suffix="_near")
        errors += (both["cosine"] - both["cosine_near"]).to_list()
    assert np.mean(recalled) > 0.9
    assert np.std(errors) < 1 / np.sqrt(DIMS)
    assert abs(np.mean(errors)) < 0.02
    assert store.sizes()["projections"] < 1.2 * FEATURES * DIMS


def test_narrow_decoders_lose_nothing_but_digits(store: Store) -> None:
    rows = np.array([[1, 0], [2, 0.1], [0, 3], [-1, 0], [0, 0]], np.float32)
    view = viewed(store, 5)
    project(store, "A", "hash of A", 5, slices(rows))
    exact, near = view.similar("A", 0, 5, rows), view.similar("A", 0, 5)
    assert near["feature"].to_list() == exact["feature"].to_list()
    assert near["cosine"].to_list() == pytest.approx(exact["cosine"].to_list(), abs=0.005)


def test_they_are_made_once_and_are_no_step_of_an_experiment(store: Store) -> None:
    view, rows = viewed(store), slices(decoder(1))
    assert [project(store, "A", "hash of A", FEATURES, rows, 16) for _ in range(2)] == [True, False]
    assert [row.key for row in store.steps()] == ["k"]
    kept = view.projections("A")
    assert kept is not None
    assert kept.shape == (FEATURES, 16)
    store.gc()
    assert store.check().problems == []
    again = toolkit_store.open(store.folder).run().projections("A")
    assert np.array_equal(again, kept)


def test_other_numbers_than_those_kept_are_refused(store: Store) -> None:
    rows = slices(np.eye(8, 40, dtype=np.float32))
    assert project(store, "A", "hash of A", 8, rows, 16)
    assert not project(store, "A", "hash of A", 8, rows)
    with pytest.raises(
        BadInput,
        match=r"has projections of this SAE with 16 numbers per feature, and 32 were requested. "
        r"Leave the",
    ):
        project(store, "A", "hash of A", 8, rows, 32)
    assert project(store, "B", "hash of B", 8, rows, 512)
    assert not project(store, "B", "hash of B", 8, rows, 1024)  # all 40 are kept


def test_nothing_is_kept_unasked(store: Store) -> None:
    view = viewed(store)
    assert view.projections("A") is None
    with pytest.raises(
        BadInput,
        match="or keep projections in the store, where the SAE files are: toolkit store project",
    ):
        view.similar("A", 0)
    with pytest.raises(BadInput, match="Projections have 8 to 4,096 numbers per feature, not 4"):
        project(store, "A", "hash of A", FEATURES, slices(decoder(0)), 4)
