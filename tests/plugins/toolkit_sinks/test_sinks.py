"""The sinks: what they write is what the tables hold, in one order and in the same bytes each
time.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from tests.plugins.toolkit_sinks.conftest import (
    ACTIVATIONS,
    FEATURES,
    SINKS,
    SPACES,
    loaded,
    space,
    table,
    written,
)
from toolkit.errors import DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work


@pytest.mark.parametrize("name", ["json", "npz"])
def test_each_sink_keeps_the_contract(name: str) -> None:
    tables = {"activations": table("activations", ACTIVATIONS), "spaces": table("spaces", SPACES)}
    more = {name: table(name, []) for name in ("samples", "sample_meta", "saes")}
    work = make_work(tables={**tables, **more, "features": table("features", FEATURES)})
    check_part(SINKS[name], params={"path": "out"}, work=work)


# --- json -----------------------------------------------------------------------------------------


def test_json_writes_the_asked_tables_sorted_by_their_keys() -> None:
    files = written("json", {"tables": ["features", "spaces"]})
    assert set(files) == {"features.jsonl", "spaces.jsonl"}
    rows = [json.loads(line) for line in files["features.jsonl"].splitlines()]
    assert [(row["feature"], row["group"]) for row in rows] == [(2, "a"), (2, "b"), (10, "a")]
    assert sorted(rows[0]) == list(rows[0]) == sorted(FEATURES[0])


def test_json_of_a_table_without_rows_is_an_empty_file() -> None:
    assert written("json", {"tables": ["activations"]}, activations=()) == {
        "activations.jsonl": b""
    }


def test_json_refuses_an_unknown_table() -> None:
    with pytest.raises(
        ValidationError, match=r"there is no table 'featuers'. Did you mean 'features'\?"
    ):
        written("json", {"tables": ["featuers"]})


# --- npz ------------------------------------------------------------------------------------------


def test_npz_holds_the_entries_of_each_space_by_sample_and_position() -> None:
    files = written("npz", {})
    assert list(files) == ["org-m-resid_post.1-sae-x.npz", "org-m-resid_post.2-x.npz"]
    arrays = loaded(files["org-m-resid_post.1-sae-x.npz"])
    assert set(arrays) == {"samples", "positions", "row", "feature", "value", "width"}
    assert arrays["samples"].tolist() == ["a", "a", "b"]
    assert arrays["positions"].tolist() == [0, 1, 0]
    assert arrays["row"].tolist() == [1, 1, 2]
    assert arrays["feature"].tolist() == [2, 5, 0]
    assert arrays["value"].tolist() == [1.5, 2.5, 0.25]
    assert arrays["width"] == 6


def test_npz_dense_holds_the_same_numbers() -> None:
    arrays = loaded(written("npz", {"dense": True})["org-m-resid_post.1-sae-x.npz"])
    expected = np.zeros((3, 6), dtype=np.float32)
    expected[arrays["row"], arrays["feature"]] = arrays["value"]
    assert arrays["features"].dtype == np.float32
    np.testing.assert_array_equal(arrays["features"], expected)
    assert expected.any()


def test_npz_is_the_same_bytes_whatever_the_order_of_rows() -> None:
    assert written("npz", {"dense": True}) == written(
        "npz", {"dense": True}, activations=ACTIVATIONS[::-1]
    )


def test_npz_of_no_activations_is_no_file() -> None:
    assert written("npz", {}, activations=()) == {}


def test_npz_gives_spaces_of_one_name_files_of_their_own() -> None:
    spaces = (space("s1", "org/M/x"), space("s2", "org-m-x"))
    assert list(written("npz", {}, spaces=spaces)) == ["org-M-x-s1.npz", "org-m-x-s2.npz"]


def test_npz_names_a_space_without_usable_letters_by_its_id() -> None:
    spaces = (space("s1", "../.."), space("s2", "x"))
    assert list(written("npz", {}, spaces=spaces)) == ["s1.npz", "x.npz"]


def test_npz_refuses_a_space_that_nobody_described() -> None:
    with pytest.raises(DataError) as caught:
        written("npz", {}, spaces=SPACES[1:])
    assert str(caught.value) == (
        "space s1: it has activations, but table 'spaces' does not describe it, so its width is "
        "unknown. Let the stage that writes the activations write 'spaces' too. Spaces described: "
        "s2."
    )
