"""What parts are handed: rows that overlapping extractions have both kept are there once."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from toolkit._run.inputs import StoreInputs
from toolkit.ledger import StepRow
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, open_store

Place = tuple[str, str, int]


def activations(places: Sequence[Place], value: float) -> pa.Table:
    rows = [
        {
            "space": space,
            "sample": sample,
            "position": position,
            "features": [position],
            "values": [value],
        }
        for space, sample, position in places
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("activations"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create=True)


def committed(store: Store, **places: Sequence[Place]) -> list[StepRow]:
    """A step of each name, whose values are 1.0, 2.0 and so on."""
    for number, (key, rows) in enumerate(places.items()):
        store.commit(make_step(key), {"activations": activations(rows, number + 1.0)})
    return store.steps(places)


def test_a_row_that_two_extractions_have_kept_is_read_once(store: Store) -> None:
    rows = committed(
        store,
        a=[("s", "x", 2), ("s", "y", 1)],
        b=[("s", "x", 1), ("s", "x", 2), ("s", "y", 1), ("t", "y", 1)],
    )
    result = StoreInputs(store, {"stage": rows}).read("activations").to_pylist()
    places = [(row["space"], row["sample"], row["position"], row["values"]) for row in result]
    assert places == [
        ("s", "x", 1, [2.0]),
        ("s", "x", 2, [1.0]),
        ("s", "y", 1, [1.0]),
        ("t", "y", 1, [2.0]),
    ]


def test_a_stream_that_two_extractions_have_kept_is_read_once(store: Store) -> None:
    for key in ("a", "b"):
        row = {
            "space": "raw",
            "sample": "x",
            "position": 2,
            "hookpoint": "resid_post.1",
            "values": [1.0, 2.0],
        }
        store.commit(
            make_step(key), {"streams": pa.Table.from_pylist([row], schema=arrow_schema("streams"))}
        )
    assert StoreInputs(store, {"stage": store.steps(["a", "b"])}).read("streams").num_rows == 1


def test_large_tables_are_mapped_from_a_file_that_is_made_once(
    store: Store, tmp_path: Path
) -> None:
    rows = committed(store, a=[("t", "x", 2), ("s", "y", 1)], b=[("s", "x", 1), ("t", "x", 2)])
    inputs, folder = StoreInputs(store, {"stage": rows}, tmp_path / "inputs"), tmp_path / "inputs"
    before = pa.total_allocated_bytes()
    result = inputs.read("activations")
    (path,) = folder.iterdir()
    assert pa.total_allocated_bytes() - before < result.nbytes
    assert result.equals(StoreInputs(store, {"stage": rows}).read("activations"))
    made = path.stat().st_mtime_ns
    assert inputs.read("activations").equals(result)
    assert path.stat().st_mtime_ns == made


def test_rows_that_no_two_extractions_share_stay_as_they_are(store: Store) -> None:
    rows = committed(store, a=[("s", "x", 2)], b=[("s", "x", 1)])
    assert [
        row["position"]
        for row in StoreInputs(store, {"stage": rows}).read("activations").to_pylist()
    ] == [1, 2]
    assert StoreInputs(store, {"stage": []}).read("activations").num_rows == 0


def two_extractions(path: Path, *stages: dict[str, Any], needs: Sequence[str]) -> Path:
    """The toy spec with several extractions of the same places, which a comparison and the sinks
    read together.
    """
    spec = yaml.safe_load(path.read_text())
    spec["stages"] = [*stages, {"id": "groups", "uses": "compare.means", "needs": [*needs]}]
    spec["sinks"] = [
        {"uses": "npz", "with": {"path": "npz"}},
        {"uses": "json", "with": {"path": "json"}},
    ]
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@pytest.mark.slow
def test_two_extractions_of_the_same_places_export_and_compare_as_one(
    toy: Callable[..., Path], toolkit: Any, tmp_path: Path
) -> None:
    extraction = {
        "id": "one",
        "uses": "extract.hash",
        "with": {"width": 32, "active": 3, "batch": 6},
    }
    other = {
        "id": "other",
        "uses": "extract.hash",
        "with": {"width": 32, "active": 3, "batch": 6, "hang_seconds": 1e-6},
    }
    made = {}
    for name, stages in (("single", [extraction]), ("twice", [extraction, other])):
        spec = two_extractions(
            toy("toy.yaml", n=12), *stages, needs=[stage["id"] for stage in stages]
        )
        done = toolkit.run("run", spec)
        assert done.returncode == 0, done.stderr
        archives = sorted((tmp_path / "npz").glob("*.npz"))
        lines = (tmp_path / "json" / "features.jsonl").read_text().splitlines()
        made[name] = (
            [dict(np.load(io.BytesIO(path.read_bytes()))) for path in archives],
            [json.loads(line) for line in lines],
        )
    (single,), means = made["single"]
    (twice,), means_twice = made["twice"]
    assert len(set(single["samples"].tolist())) == len(single["samples"]) == 12
    for array in single:
        np.testing.assert_array_equal(twice[array], single[array])
    assert means_twice == means
