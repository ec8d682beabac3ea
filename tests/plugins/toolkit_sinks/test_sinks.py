"""The sinks: what they write is what the tables hold, in one order and in the same bytes each time."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from toolkit.errors import DataError
from toolkit.pricing import Cost
from toolkit.records import SinkPart, SinkWork
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_work
from toolkit_sinks import _archive, _dense, toolkit_parts

SINKS = {part.name: part for part in toolkit_parts() if isinstance(part, SinkPart)}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=arrow_schema(name))


def space(name: str, address: str, width: int = 6) -> dict[str, Any]:
    """A row of `spaces`."""
    own = {"space": name, "address": address, "width": width, "hookpoint": "resid_post.1", "recipe": "relu"}
    return {**own, "model": "m", "revision": "1", "sae": "x", "sae_hash": "h"}


def sample(name: str, pieces: Sequence[str]) -> dict[str, Any]:
    """A row of `samples`, its first token a span."""
    own = {"sample": name, "unit": name, "cluster": name, "text": "".join(pieces), "prompt_hash": name}
    return {
        **own,
        "token_ids": list(range(len(pieces))),
        "pieces": list(pieces),
        "spans": [{"name": "balance", "start": 0, "end": 1}],
    }


def active(space: str, sample: str, position: int, **values: float) -> dict[str, Any]:
    """A row of `activations`; f3=1.5 says that feature 3 is 1.5."""
    features = [int(name[1:]) for name in values]
    return {"space": space, "sample": sample, "position": position, "features": features, "values": list(values.values())}


ACTIVATIONS = (
    active("s1", "b", 0, f0=0.25),
    active("s1", "a", 1, f2=1.5, f5=2.5),
    active("s1", "a", 0),
    active("s2", "a", 0, f1=4.0),
)
SPACES = (space("s1", "org/m/resid_post.1/sae: x"), space("s2", "org/m/resid_post.2/x"))
FEATURES = [
    {"space": "s", "feature": feature, "stat": "mean", "group": group, "number": 0.5, "text": None}
    for feature, group in ((10, "a"), (2, "b"), (2, "a"))
]


def written(
    sink: str, params: Mapping[str, Any], spaces: Sequence[Mapping[str, Any]] = SPACES, activations: Sequence[Any] = ACTIVATIONS
) -> dict[str, bytes]:
    tables = {
        "activations": table("activations", activations),
        "spaces": table("spaces", spaces),
        "features": table("features", FEATURES),
        "samples": table("samples", [sample("a", ["Bal", "ance:", " $9"]), sample("b", ["Stop", " it"])]),
        "sample_meta": table("sample_meta", [{"sample": "a", "key": "concept_strength_label", "number": 3.0, "string": None}]),
        "saes": table("saes", []),
    }
    given = SINKS[sink].params.model_validate(params)
    found = SINKS[sink].run(SinkWork(given, Path("nowhere"), "run-1", TableInputs(tables)))
    return {name: data if isinstance(data, bytes) else b"".join(data) for name, data in found}


def loaded(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


@pytest.mark.parametrize("name", ["json", "npz"])
def test_each_sink_keeps_the_contract(name: str) -> None:
    tables = {"activations": table("activations", ACTIVATIONS), "spaces": table("spaces", SPACES)}
    more = {name: table(name, []) for name in ("samples", "sample_meta", "saes")}
    work = make_work(tables={**tables, **more, "features": table("features", FEATURES)})
    check_part(SINKS[name], params={"path": "out"}, work=work)


# --- json ---------------------------------------------------------------------------------------------------------------


def test_json_writes_the_asked_tables_sorted_by_their_keys() -> None:
    files = written("json", {"tables": ["features", "spaces"]})
    assert set(files) == {"features.jsonl", "spaces.jsonl"}
    rows = [json.loads(line) for line in files["features.jsonl"].splitlines()]
    assert [(row["feature"], row["group"]) for row in rows] == [(2, "a"), (2, "b"), (10, "a")]
    assert sorted(rows[0]) == list(rows[0]) == sorted(FEATURES[0])


def test_json_of_a_table_without_rows_is_an_empty_file() -> None:
    assert written("json", {"tables": ["activations"]}, activations=()) == {"activations.jsonl": b""}


def test_json_refuses_an_unknown_table() -> None:
    with pytest.raises(ValidationError, match=r"there is no table 'featuers'. Did you mean 'features'\?"):
        written("json", {"tables": ["featuers"]})


# --- npz ----------------------------------------------------------------------------------------------------------------


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
    assert written("npz", {"dense": True}) == written("npz", {"dense": True}, activations=ACTIVATIONS[::-1])


def test_npz_of_no_activations_is_no_file() -> None:
    assert written("npz", {}, activations=()) == {}


def test_npz_gives_spaces_of_one_name_files_of_their_own() -> None:
    spaces = (space("s1", "org/M/x"), space("s2", "org-m-x"))
    assert list(written("npz", {}, spaces=spaces)) == ["org-M-x-s1.npz", "org-m-x-s2.npz"]


def test_npz_names_a_space_without_usable_letters_by_its_id() -> None:
    spaces = (space("s1", "../.."), space("s2", "x"))
    assert list(written("npz", {}, spaces=spaces)) == ["s1.npz", "x.npz"]


SCOPE = (
    space("s1", "m/resid_post.20/x") | {"hookpoint": "resid_post.20", "sae": "layer_20/width_16k/average_l0_71"},
    space("s2", "m/resid_post.3/x") | {"hookpoint": "resid_post.3", "sae": "layer_3/width_16k/average_l0_12"},
)


def test_npz_by_configuration_has_the_arrays_of_the_published_pipeline() -> None:
    files = written("npz", {"dense": True, "layout": "configuration"}, SCOPE)
    assert list(files) == ["layer_20_l0_71_activations.npz", "layer_3_l0_12_activations.npz"]
    arrays = loaded(files["layer_20_l0_71_activations.npz"])
    assert list(arrays) == [
        "activations", "fragments", "original_sentences", "concept_strength_labels", "sentence_indices", "token_positions",
        "is_final_token", "fragment_lengths", "layer", "average_l0", "num_features",
    ]  # fmt: skip
    wanted = np.zeros((3, 6), dtype=np.float32)
    wanted[1, [2, 5]], wanted[2, 0] = [1.5, 2.5], 0.25
    np.testing.assert_array_equal(arrays["activations"], wanted)
    assert arrays["fragments"].tolist() == ["Bal", "Balance:", "Stop"]
    assert arrays["original_sentences"].tolist() == ["Balance: $9", "Balance: $9", "Stop it"]
    np.testing.assert_array_equal(arrays["concept_strength_labels"], [3, 3, np.nan])
    assert arrays["sentence_indices"].tolist() == [0, 0, 1]
    assert arrays["token_positions"].tolist() == [0, 1, 0]
    assert arrays["is_final_token"].tolist() == [False, False, False]
    assert arrays["fragment_lengths"].tolist() == [1, 1, 1]
    assert (arrays["layer"], arrays["average_l0"], arrays["num_features"]) == (20, 71.0, 6)


def test_npz_by_layer_has_a_folder_a_sample() -> None:
    files = written("npz", {"dense": True, "layout": "layer"}, SCOPE)
    assert list(files) == ["a/layer_20.npz", "b/layer_20.npz", "a/layer_3.npz", "metadata_L3_20.json"]
    arrays = loaded(files["a/layer_20.npz"])
    assert arrays["features"].shape == (3, 6)
    assert arrays["positions"].tolist() == [0, 1]
    np.testing.assert_array_equal(arrays["features"][:2], [[0] * 6, [0, 0, 1.5, 0, 0, 2.5]])
    assert np.isnan(arrays["features"][2]).all(), "a token that nobody looked at is not a row of zeros"
    metadata = json.loads(files["metadata_L3_20.json"])
    assert [row["scenario"] for row in metadata["scenarios"]] == ["a", "b"]
    assert (
        metadata["scenarios"][0] | {"tokens": ["Bal", "ance:", " $9"], "seq_len": 3, "key_positions": {"balance": [0]}}
        == metadata["scenarios"][0]
    )


def test_npz_layers_with_several_saes_and_samples_with_odd_names() -> None:
    spaces = (SCOPE[0], {**SCOPE[1], "hookpoint": "resid_post.20"})
    files = written("npz", {"dense": True, "layout": "layer"}, spaces)
    assert list(files)[:3] == ["a/layer_20_s1.npz", "b/layer_20_s1.npz", "a/layer_20_s2.npz"]
    odd = pa.table({"sample": ["../x", "A", "a"]})["sample"].to_pylist()
    folders = _dense._folders(odd)
    assert [name.startswith("sample-") for name in folders.values()] == [True, True, True]
    assert len(set(folders.values())) == 3


def test_npz_writes_zeros_only_when_asked() -> None:
    with pytest.raises(ValidationError, match="Say `dense: true` as well"):
        written("npz", {"layout": "layer"})
    sink, cost = SINKS["npz"], Cost(dense=123)
    assert sink.disk is not None
    assert sink.disk(sink.params.model_validate({"dense": True}), cost) == 123
    assert sink.disk(sink.params.model_validate({}), cost) == 0


def test_a_dense_matrix_is_written_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "BLOCK_BYTES", 4 * 6)
    seen: list[tuple[int, int]] = []

    def fill(first: int, last: int, block: Any) -> None:
        seen.append((first, last))
        block[0, first] = first + 1

    pieces = list(_archive.archive([_archive.dense("features", 5, 6, fill)]))
    assert seen == [(at, at + 1) for at in range(5)]
    assert len(pieces) == 6
    np.testing.assert_array_equal(loaded(b"".join(pieces))["features"], np.eye(5, 6) * [1, 2, 3, 4, 5, 6])


def test_npz_refuses_a_space_that_nobody_described() -> None:
    with pytest.raises(DataError) as caught:
        written("npz", {}, spaces=SPACES[1:])
    assert str(caught.value) == (
        "space s1: it has activations, but table 'spaces' does not describe it, so its width is unknown. Let the stage that "
        "writes the activations write 'spaces' too. Spaces described: s2."
    )
