"""The published archives: their names, arrays and numbers, what is in memory meanwhile, and what a
plan says of their size.
"""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.plugins.toolkit_sinks.conftest import (
    ACTIVATIONS,
    SAMPLES,
    SINKS,
    active,
    loaded,
    sample,
    sink_files,
    space,
    table,
    written,
)
from toolkit._plan.texts import workload
from toolkit.activations.dense_layouts import folder_names, scenario
from toolkit.costs import Cost
from toolkit.errors import DataError
from toolkit.files import archives
from toolkit.identity import Identity
from toolkit_saes.extract.costs import extraction
from toolkit_saes.extract.stage import Extract
from toolkit_sinks._dense import ALIASES
from toolkit_sinks._sentences import _reading

CONFIGURATION, LAYER = ({"dense": True, "layout": layout} for layout in ("configuration", "layer"))

SCOPE = (
    space("s1", "m/resid_post.20/x")
    | {"hookpoint": "resid_post.20", "sae": "layer_20/width_16k/average_l0_71"},
    space("s2", "m/resid_post.3/x")
    | {"hookpoint": "resid_post.3", "sae": "layer_3/width_16k/average_l0_12"},
)


def test_npz_by_configuration_has_the_arrays_of_the_published_pipeline() -> None:
    files = written("npz", {"dense": True, "layout": "configuration"}, SCOPE)
    assert list(files) == ["layer_20_l0_71_activations.npz", "layer_3_l0_12_activations.npz"]
    arrays = loaded(files["layer_20_l0_71_activations.npz"])
    assert list(arrays) == [
        "activations", "fragments", "original_sentences", "concept_strength_labels",
        "sentence_indices", "token_positions",
        "is_final_token", "fragment_lengths", "layer", "average_l0", "num_features",
    ]  # fmt: skip
    expected = np.zeros((3, 6), dtype=np.float32)
    expected[1, [2, 5]], expected[2, 0] = [1.5, 2.5], 0.25
    np.testing.assert_array_equal(arrays["activations"], expected)
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
    assert list(files) == [
        "a/layer_20.npz",
        "b/layer_20.npz",
        "a/layer_3.npz",
        "metadata_L3_20.json",
    ]
    arrays = loaded(files["a/layer_20.npz"])
    assert arrays["features"].shape == (3, 6)
    assert arrays["positions"].tolist() == [0, 1]
    np.testing.assert_array_equal(arrays["features"][:2], [[0] * 6, [0, 0, 1.5, 0, 0, 2.5]])
    assert np.isnan(arrays["features"][2]).all(), (
        "a token that nobody looked at is not a row of zeros"
    )
    metadata = json.loads(files["metadata_L3_20.json"])
    assert [row["scenario"] for row in metadata["scenarios"]] == ["a", "b"]
    assert (
        metadata["scenarios"][0]
        | {"tokens": ["Bal", "ance:", " $9"], "seq_len": 3, "key_positions": {"balance": [0]}}
        == metadata["scenarios"][0]
    )
    names = ("timestamp", "layer_range", "save_features", "save_attention")
    assert [metadata[name] for name in names] == [
        "20251017_120000", [3, 20], True, False
    ]  # fmt: skip
    assert sorted(arrays) == ["features", "positions"]


def test_npz_layers_with_several_saes_and_samples_with_odd_names() -> None:
    spaces = (SCOPE[0], {**SCOPE[1], "hookpoint": "resid_post.20"})
    files = written("npz", {"dense": True, "layout": "layer"}, spaces)
    assert list(files)[:3] == ["a/layer_20_s1.npz", "b/layer_20_s1.npz", "a/layer_20_s2.npz"]
    odd = pa.table({"sample": ["../x", "A", "a"]})["sample"].to_pylist()
    folders = folder_names(odd)
    assert [name.startswith("sample-") for name in folders.values()] == [True, True, True]
    assert len(set(folders.values())) == 3


def attended(sample: str, layer: int, head: int, query: int, weights: list[float]) -> Any:
    row = {"model": "m", "sample": sample, "layer": layer, "head": head, "query": query}
    return {**row, "keys": None, "weights": weights, "rest": 0.0}


ATTENDED = [
    attended("a", 20, 0, 0, [1.0]),
    attended("a", 20, 0, 2, [0.25, 0.25, 0.5]),
    attended("a", 20, 1, 2, [0.5, 0.5, 0.0]),
    {**attended("a", 3, 0, 2, [0.75]), "keys": [1], "rest": 0.25},
]


def test_npz_by_layer_has_the_attention_that_was_kept() -> None:
    files = written("npz", LAYER, SCOPE, attention=ATTENDED)
    arrays = loaded(files["a/layer_20.npz"])
    attention = arrays["attention"]
    assert (attention.dtype, attention.shape) == (np.float16, (2, 3, 3))
    np.testing.assert_array_equal(attention[0, [0, 2]], [[1, 0, 0], [0.25, 0.25, 0.5]])
    assert np.isnan(attention[0, 1]).all(), "a query that was not kept is no row of zeros"
    top = loaded(files["a/layer_3.npz"])["attention"][0, 2]
    assert top[1] == np.float16(0.75)
    assert np.isnan(top[[0, 2]]).all(), "a weight that was not kept is no zero"
    assert "attention" not in loaded(files["b/layer_20.npz"])
    metadata = json.loads(files["metadata_L3_20.json"])
    assert (metadata["save_features"], metadata["save_attention"]) == (True, True)


def test_npz_by_layer_of_attention_alone() -> None:
    files = written("npz", LAYER, (), attention=ATTENDED)
    assert list(files) == ["a/layer_3.npz", "a/layer_20.npz", "metadata_L3_20.json"]
    assert list(loaded(files["a/layer_20.npz"])) == ["attention"]
    metadata = json.loads(files["metadata_L3_20.json"])
    assert (metadata["save_features"], metadata["n_scenarios"]) == (False, 1)


def test_key_positions_have_the_published_names_too() -> None:
    spans = [{"name": "win_rate", "start": 1, "end": 2}, {"name": "goal", "start": 0, "end": 1}]
    (result,) = {
        json.dumps(scenario("a", {**SAMPLES[0], "spans": spans}, ALIASES)["key_positions"])
    }
    assert json.loads(result) == {"win_rate": [1], "probability": [1], "goal": [0]}


def test_a_store_reads_the_published_layers_back(tmp_path: Path) -> None:
    from toolkit_store import open_store
    from toolkit_store.interchange import import_run, run_tables

    for name, data in written("npz", LAYER, SCOPE).items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    store = open_store(tmp_path / "store", create=True)
    results = run_tables(store, import_run(store, "tokens", tmp_path / "files"))
    assert list(results.samples.values()) == list(SAMPLES)
    keys = ("space", "sample", "position")
    expected = sorted(ACTIVATIONS, key=lambda row: [row[key] for key in keys])
    assert results.read("activations").select(list(ACTIVATIONS[0])).to_pylist() == expected
    assert results.read("spaces").select(list(SCOPE[0])).to_pylist() == list(SCOPE)


# --- the other columns ----------------------------------------------------------------------------


def test_fragments_have_no_blanks_around_them() -> None:
    pieces = ["", " Bet", " ", " \n", "$", "9 "]
    files = written(
        "npz",
        CONFIGURATION,
        SCOPE[:1],
        [active("s1", "a", index, f1=1.0) for index in range(6)],
        [sample("a", pieces)],
    )
    arrays = loaded(files["layer_20_l0_71_activations.npz"])
    assert arrays["fragments"].tolist() == ["", "Bet", "Bet", "Bet", "Bet  \n$", "Bet  \n$9"]
    assert arrays["fragment_lengths"].tolist() == [0, 1, 1, 1, 2, 2]
    assert arrays["original_sentences"].tolist() == [" Bet  \n$9 "] * 6
    assert arrays["is_final_token"].tolist() == [False] * 5 + [True]


def test_a_character_of_several_tokens_stands_once_in_a_fragment() -> None:
    """A tokeniser of bytes says of each of them that it is the whole character; these pieces are
    the packaged model's.
    """
    pieces = [
        "",
        "n",
        "a",
        "\u00ef",
        "\u00ef",
        "ve",
        " ",
        *"\U0001f600" * 8,
        " c",
        "af",
        "\u00e9",
        "\u00e9",
    ]
    text = "na\u00efve \U0001f600\U0001f600 caf\u00e9"
    read = _reading(text, pieces)
    assert [text[:end] for end in read.ends] == [
        "", "n", "na", "na\u00ef", "na\u00ef", "na\u00efve", "na\u00efve ",
        *["na\u00efve \U0001f600"] * 4,
        *["na\u00efve \U0001f600\U0001f600"] * 4, text[:-3], text[:-1], text, text,
    ]  # fmt: skip
    assert read.words.tolist() == [0, 1, 1, 1, 1, 1, 1, *[2] * 8, 3, 3, 3, 3]


WORDS = st.text(st.sampled_from("ab \n"), min_size=1, max_size=4)
BYTES = st.sampled_from(["\u00e9", "\u4e2d", "\U0001f600"])


@given(st.lists(WORDS | BYTES, max_size=12))
def test_tokens_end_where_the_tokeniser_says(words: list[str]) -> None:
    """Each word a token, each character outside of ASCII a token a byte; the text is cut where a
    tokeniser's offsets cut it.
    """
    cut = [(word, 1 if word.isascii() else len(word.encode())) for word in words]
    pieces = [piece for word, count in cut for piece in [word] * count]
    ends = [
        end
        for (_, count), end in zip(cut, itertools.accumulate(map(len, words)), strict=True)
        for _ in range(count)
    ]
    text = "".join(words)
    read = _reading(text, pieces)
    assert read.ends.tolist() == ends
    assert read.words.tolist() == [len(text[:end].split()) for end in ends]


def test_a_text_may_have_more_between_its_tokens_than_they_say() -> None:
    assert _reading("one  banana a x", ["one", "banana", "a", "?", "x"]).ends.tolist() == [
        3,
        11,
        13,
        13,
        15,
    ]


def test_sentences_are_numbered_by_a_metadata_key_when_asked() -> None:
    meta = [
        {"sample": name, "key": "row", "number": number, "string": None}
        for name, number in (("a", 7.0), ("b", 2.0))
    ]
    files = written("npz", {**CONFIGURATION, "index": "row"}, SCOPE, meta=meta)
    assert loaded(files["layer_20_l0_71_activations.npz"])["sentence_indices"].tolist() == [7, 7, 2]
    for bad in (meta[:1], [meta[0], {**meta[1], "number": 2.5}]):
        with pytest.raises(DataError) as caught:
            written("npz", {**CONFIGURATION, "index": "row"}, SCOPE, meta=bad)
        assert str(caught.value) == (
            "index: sample 'b' has no whole number under the metadata key 'row'. Keys: row. "
            "Sources of texts keep a row's number with `row: row`."
        )
    with pytest.raises(
        ValidationError,
        match="only `layout: configuration` numbers sentences, and this is `layout: layer`",
    ):
        written("npz", {**LAYER, "index": "row"}, SCOPE)


@pytest.mark.parametrize("params", [CONFIGURATION, LAYER])
def test_a_row_beyond_the_samples_tokens_is_refused(params: Mapping[str, Any]) -> None:
    with pytest.raises(
        DataError,
        match="sample 'b' has activations at position 2, but 2 tokens in table 'samples', which "
        "this",
    ):
        written("npz", params, SCOPE, [*ACTIVATIONS, active("s1", "b", 2, f1=1.0)])
    with pytest.raises(
        DataError, match="sample 'c' has activations, but table 'samples' of the run lacks it"
    ):
        written("npz", params, SCOPE, [*ACTIVATIONS, active("s1", "c", 0, f1=1.0)])


# --- memory and disk ------------------------------------------------------------------------------


def test_the_text_up_to_every_token_of_a_long_sentence_is_never_there_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each of the two arrays of texts takes 16 MB; what is held at a time is a block."""
    monkeypatch.setattr(archives, "BLOCK_BYTES", 1 << 16)
    pieces = [f" {index:03d}" for index in range(1000)]
    rows = [active("s1", "a", index, f1=1.0) for index in range(1000)]
    result = sink_files("npz", CONFIGURATION, SCOPE[:1], rows, [sample("a", pieces)])
    _, data = next(result)
    assert not isinstance(data, bytes)
    tracemalloc.start()
    with (tmp_path / "archive.npz").open("wb") as file:
        file.writelines(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
    arrays = loaded((tmp_path / "archive.npz").read_bytes())
    assert arrays["fragments"].nbytes > 15 << 20
    assert arrays["fragments"].tolist() == [
        "".join(pieces[: index + 1]).strip() for index in range(1000)
    ]
    assert arrays["fragment_lengths"].tolist() == list(range(1, 1001))
    assert next(result, None) is None


def test_npz_writes_zeros_only_when_asked() -> None:
    with pytest.raises(ValidationError, match="Set `dense: true` as well"):
        written("npz", {"layout": "layer"})
    sink, cost = (
        SINKS["npz"],
        Cost(
            totals={"dense_bytes": 100, "dense_bytes_all_tokens": 20_000, "text_bytes": 3000},
            rows=2,
        ),
    )
    assert sink.disk is not None
    arguments = ({}, {"dense": True}, CONFIGURATION, LAYER)
    assert [sink.disk(sink.params.model_validate(params), cost) for params in arguments] == [
        0,
        100,
        100 + 6000 + 66,
        20_000,
    ]


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("params", [{"dense": True}, CONFIGURATION, LAYER])
def test_the_plan_knows_the_size_of_the_arrays(params: Mapping[str, Any], at: str) -> None:
    """Before they are compressed: for all tokens of texts where only the last is looked at, too,
    and with long texts.
    """
    texts = [
        sample(f"s{number}", ["word "] * 100) | {"token_ids": [number, *range(99)]}
        for number in range(5)
    ]
    rows = [
        active(name, text["sample"], position, f1=1.0)
        for name in ("s1", "s2")
        for text in texts
        for position in (range(99, 100) if at == "last" else range(100))
    ]
    loadable: Any = Identity("x", "1", "x", {"count": 2, "features": 12, "l0": 2})
    cost = extraction(
        Extract(at=at),
        workload(table("samples", texts), None, type("Saes", (), {"identity": loadable})),
    )
    disk = SINKS["npz"].disk
    assert disk is not None
    expected = disk(SINKS["npz"].params.model_validate(params), cost)
    dense = (
        "activations",
        "features",
        "fragments",
        "original_sentences",
        "concept_strength_labels",
        "sentence_indices",
    )
    counted = {*dense, "token_positions", "is_final_token", "fragment_lengths"}
    files = [
        loaded(data)
        for name, data in written("npz", params, SCOPE, rows, texts).items()
        if name.endswith(".npz")
    ]
    took = sum(
        array.nbytes for arrays in files for name, array in arrays.items() if name in counted
    )
    assert took <= expected <= 1.01 * took


def test_a_dense_matrix_is_written_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BLOCK_BYTES", 4 * 6)
    seen: list[tuple[int, int]] = []

    def fill(first: int, last: int, block: Any) -> None:
        seen.append((first, last))
        block[0, first] = first + 1

    pieces = list(archives.archive([archives.dense("features", 5, 6, fill)]))
    assert seen == [(index, index + 1) for index in range(5)]
    assert len(pieces) == 6
    np.testing.assert_array_equal(
        loaded(b"".join(pieces))["features"], np.eye(5, 6) * [1, 2, 3, 4, 5, 6]
    )
