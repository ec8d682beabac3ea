"""Dense archives as two published pipelines write them: one a configuration of SAEs, and one a layer of each sample.

`configuration`: `layer_20_l0_71_activations.npz` with `activations` (fragments by features), a fragment being the text up to and
with its token. `layer`: `SAMPLE/layer_15.npz` with `features` (tokens by features), `positions` (the tokens that were looked at; the
rows of others are not a number) and, beside them, `metadata_L1_31.json` with each sample's tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.saes import average_l0s

from ._archive import archive, dense, whole

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.records import Inputs

LABEL = "concept_strength_label"
_FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._ -]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9_-]")

Files = Iterator[tuple[str, bytes | Iterable[bytes]]]


class Entries:
    """The rows of one space, in order of sample and position."""

    def __init__(self, rows: pa.Table) -> None:
        import numpy as np
        import pyarrow.compute as pc

        rows = rows.sort_by([("sample", "ascending"), ("position", "ascending")]).combine_chunks()
        self.samples: list[str] = rows["sample"].to_pylist()
        self.positions = rows["position"].to_numpy()
        counts = pc.list_value_length(rows["features"]).to_numpy(zero_copy_only=False)
        self.ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.row = np.repeat(np.arange(len(rows)), counts)
        self.feature = _flat(rows["features"])
        self.value = _flat(rows["values"])

    def fill(self, first: int, last: int, block: Any, place: Any = None) -> None:
        """Write rows `first` to `last` into a block of zeros, each at its place (as it stands, by itself)."""
        part = slice(self.ends[first], self.ends[last])
        row = self.row[part] - first
        block[row if place is None else place[row], self.feature[part]] = self.value[part]


def _flat(column: pa.ChunkedArray) -> Any:
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)


# --- one archive a configuration ------------------------------------------------------------------------------------------


def configurations(inputs: Inputs, heads: Sequence[Mapping[str, Any]], rows_of: Callable[[Mapping[str, Any]], Entries]) -> Files:
    """An archive a space, with the text and label of each row."""
    samples = _samples(inputs)
    labels = _labels(inputs)
    average = average_l0s(inputs)
    stems = Counter(_stem(space, average) for space in heads)
    for space in heads:
        stem = _stem(space, average)
        name = stem if stems[stem] == 1 else f"{stem}_{space['space']}"
        yield f"{name}_activations.npz", archive(_rows(space, rows_of(space), samples, labels, average))


def _rows(
    space: Mapping[str, Any],
    entries: Entries,
    samples: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, float],
    average: Mapping[str, float],
) -> Iterator[Any]:
    import numpy as np

    rows = [(_known(samples, name), int(at)) for name, at in zip(entries.samples, entries.positions, strict=True)]
    fragments = ["".join(sample["pieces"][: at + 1]) for sample, at in rows]
    order = {name: number for number, name in enumerate(sorted(samples))}
    yield dense("activations", len(rows), space["width"], entries.fill)
    yield whole("fragments", _texts(fragments))
    yield whole("original_sentences", _texts([sample["text"] for sample, _ in rows]))
    yield whole("concept_strength_labels", np.array([labels.get(name, math.nan) for name in entries.samples], dtype=np.float64))
    yield whole("sentence_indices", np.array([order[name] for name in entries.samples], dtype=np.int64))
    yield whole("token_positions", entries.positions.astype(np.int64))
    yield whole("is_final_token", np.array([at == len(sample["token_ids"]) - 1 for sample, at in rows], dtype=np.bool_))
    yield whole("fragment_lengths", np.array([len(text.split()) for text in fragments], dtype=np.int64))
    yield whole("layer", np.int64(_layer(space)))
    yield whole("average_l0", np.float64(average.get(space["space"], math.nan)))
    yield whole("num_features", np.int64(space["width"]))


def _texts(texts: Sequence[str]) -> Any:
    import numpy as np

    return np.array(texts, dtype=np.str_) if texts else np.zeros(0, dtype="U1")


def _stem(space: Mapping[str, Any], average: Mapping[str, float]) -> str:
    return f"layer_{_layer(space)}_l0_{average.get(space['space'], math.nan):g}"


def _labels(inputs: Inputs) -> dict[str, float]:
    rows = inputs.read("sample_meta").to_pylist() if "sample_meta" in inputs.tables() else []
    return {row["sample"]: row["number"] for row in rows if row["key"] == LABEL and row["number"] is not None}


# --- one archive a sample and layer ---------------------------------------------------------------------------------------


def layers(inputs: Inputs, heads: Sequence[Mapping[str, Any]], rows_of: Callable[[Mapping[str, Any]], Entries]) -> Files:
    """A folder a sample, a file a layer (with the space's id where a layer has several), then what the tokens are."""
    samples = _samples(inputs)
    names: set[str] = set()
    folders = _folders(sorted(samples))
    shared = Counter(_layer(space) for space in heads)
    files: dict[str, dict[str, Any]] = {}
    for space in heads:
        entries = rows_of(space)
        names.update(entries.samples)
        own = f"_{space['space']}" if shared[_layer(space)] > 1 else ""
        file = f"layer_{_layer(space)}{own}.npz"
        files[file] = dict(space)
        for name, first, last in _runs(entries.samples):
            tokens = len(_known(samples, name)["token_ids"])
            yield f"{folders[name]}/{file}", archive(_tokens(entries, first, last, tokens, space["width"]))
    scenarios = [_scenario(folders[name], _known(samples, name)) for name in sorted(names)]
    found = sorted({_layer(space) for space in heads})
    metadata = {"n_scenarios": len(names), "layer_range": found[:1] + found[-1:], "scenarios": scenarios, "spaces": files}
    yield (
        "metadata_L" + "_".join(map(str, found[:1] + found[-1:])) + ".json",
        (json.dumps(metadata, indent=1, sort_keys=True) + "\n").encode(),
    )


def _tokens(entries: Entries, first: int, last: int, tokens: int, width: int) -> Iterator[Any]:
    import numpy as np

    positions = entries.positions[first:last]

    def fill(start: int, end: int, block: Any) -> None:
        lo, hi = first + np.searchsorted(positions, [start, end])
        there = entries.positions[lo:hi] - start
        block[:] = np.nan
        block[there] = 0
        entries.fill(int(lo), int(hi), block, there)

    yield dense("features", tokens, width, fill)
    yield whole("positions", positions.astype(np.int64))


def _runs(samples: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Each sample's range of rows, in rows sorted by sample."""
    first = 0
    for at in range(1, len(samples) + 1):
        if at == len(samples) or samples[at] != samples[first]:
            yield samples[first], first, at
            first = at


def _folders(names: Sequence[str]) -> dict[str, str]:
    """A sample's own name where that is one folder's, told apart also where upper case counts for nothing."""
    seen = Counter(name.lower() for name in names)
    return {name: name if _FOLDER.fullmatch(name) and seen[name.lower()] == 1 else f"sample-{_hash(name)}" for name in names}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _scenario(folder: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    positions: dict[str, list[int]] = {}
    for span in sample["spans"]:
        positions.setdefault(span["name"], []).extend(range(span["start"], span["end"]))
    return {
        "scenario": folder,
        "sample": sample["sample"],
        "tokens": sample["pieces"],
        "token_ids": sample["token_ids"],
        "seq_len": len(sample["token_ids"]),
        "key_positions": positions,
    }


# --- both -----------------------------------------------------------------------------------------------------------------


def _samples(inputs: Inputs) -> dict[str, dict[str, Any]]:
    return {row["sample"]: row for row in inputs.read("samples").to_pylist()}


def _known(samples: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    if name not in samples:
        raise DataError(f"sample '{name}' has activations, but table 'samples' of the run lacks it: its tokens are unknown.")
    return samples[name]


def _layer(space: Mapping[str, Any]) -> int:
    found = str(space["hookpoint"]).rpartition(".")[2]
    if not found.isdigit():
        raise DataError(
            f"space {space['space']} ({space['address']}) is at no layer, which this layout names files by. Use `layout: space`."
        )
    return int(found)
