"""NumPy archives of fragments by features, one per space, as read and written by scripts that keep
one dense matrix per SAE.

    layer_20_l0_71_activations.npz
        activations [n, width]    fragments [n]    original_sentences [n]    concept_strength_labels
        [n]
        sentence_indices [n]    token_positions [n]    is_final_token [n]    fragment_lengths [n],
        in words
        layer    average_l0    num_features

A fragment is the text up to and including its token. The toolkit's archives also hold `samples`
(ids) and `space` (JSON), so that they are read back unchanged; for archives of other programs the
model must be named. Zeros are not entries: a value of exactly 0 is not read back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.activations.dense_layouts import Fragments, SparseRows, fragment_members
from toolkit.errors import BadInput, DataError
from toolkit.files.archives import Member, archive, whole
from toolkit_store.interchange._commit import digest_of, id_of, land
from toolkit_store.interchange._files import activation_rows, arrow, flat
from toolkit_store.interchange._incoming import (
    arrays,
    check_layer,
    foreign_space,
    real_numbers,
    whole_numbers,
)
from toolkit_store.interchange._run_tables import RunTables

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from toolkit_store.store import Store

LABEL = "concept_strength_label"
MAX_BYTES = 4 << 30
_NEEDED = (
    "activations",
    "original_sentences",
    "sentence_indices",
    "token_positions",
    "layer",
    "num_features",
)
_L0 = re.compile(r"average_l0_(\d+)")
_ROWS_AT_ONCE = 512


def write(
    run: RunTables,
    folder: Path,
    *,
    spaces: Sequence[str] | None = None,
    label: str = LABEL,
    max_bytes: int = MAX_BYTES,
) -> list[Path]:
    """Write an archive per space."""
    labels = _labels(run, label)
    declared = {
        row["space"]: row["declared_l0"]
        for row in run.read("saes").to_pylist()
        if row["declared_l0"] is not None
    }
    files: dict[str, Path] = {}
    for space, rows in run.activations(spaces):
        check_size(space, len(rows), max_bytes)
        name = _name(space, declared.get(space["space"]))
        name = name if name not in files else f"{name}_{space['space']}"
        files[name] = folder / f"{name}_activations.npz"
        save(files[name], _members(run, space, rows, labels, declared.get(space["space"])))
    return list(files.values())


def check_size(space: Mapping[str, Any], rows: int, max_bytes: int) -> None:
    """Refuse a dense matrix that would fill the memory."""
    size = rows * int(space["width"]) * 4
    if size > max_bytes:
        raise DataError(
            f"space {space['space']} ({space['address']}): {rows:,} rows of {space['width']:,} "
            f"features are {size:,} bytes dense; at most {max_bytes:,} are written. Export as "
            "safetensors or parquet, which hold the same numbers sparse, or raise --max-bytes."
        )


def save(path: Path, members: Iterable[Member]) -> None:
    """Write one compressed archive atomically."""
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("wb") as file:
        file.writelines(archive(members))
    unfinished.replace(path)


def sparse_rows(rows: pl.DataFrame) -> SparseRows:
    """Rows of `activations` as flat arrays."""
    import numpy as np

    counts, features, values = flat(rows)
    return SparseRows(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), features, values)


def _labels(run: RunTables, label: str) -> dict[str, float]:
    rows = run.read("sample_meta").to_pylist()
    return {
        row["sample"]: row["number"]
        for row in rows
        if row["key"] == label and row["number"] is not None
    }


def _name(space: Mapping[str, Any], declared: float | None) -> str:
    layer = str(space["hookpoint"]).rpartition(".")[2]
    return f"layer_{layer}_l0_{_average_l0(space, declared):g}"


def _average_l0(space: Mapping[str, Any], declared: float | None) -> float:
    """The declared average L0, else the one in the SAE's name; NaN without either."""
    match = _L0.search(str(space["sae"]))
    return declared if declared is not None else float(match[1]) if match else math.nan


def _members(
    run: RunTables,
    space: Mapping[str, Any],
    rows: pl.DataFrame,
    labels: Mapping[str, float],
    declared: float | None,
) -> Iterator[Member]:
    """The arrays of the layout, then the toolkit's own, by which an archive is read back."""
    yield from fragment_members(
        sparse_rows(rows), space["width"], _fragments(run, space, rows, labels, declared)
    )
    names = rows["sample"].to_list()
    described = {name: run.samples[name] for name in dict.fromkeys(names) if name in run.samples}
    yield whole("samples", _texts(names))
    yield whole("space", _texts([json.dumps(dict(space))]))
    yield whole("described", _texts([json.dumps(described)]))


def _fragments(
    run: RunTables,
    space: Mapping[str, Any],
    rows: pl.DataFrame,
    labels: Mapping[str, float],
    declared: float | None,
) -> Fragments:
    numbers = {name: n for n, name in enumerate(sorted({*run.samples, *rows["sample"]}))}
    names, positions = rows["sample"].to_list(), rows["position"].to_list()
    samples = [run.samples.get(name) for name in names]
    fragments = [_fragment(*pair) for pair in zip(samples, positions, strict=True)]
    sentences = ["" if sample is None else sample["text"] for sample in samples]
    layer = str(space["hookpoint"]).rpartition(".")[2]
    return Fragments(
        text=fragments.__getitem__,
        longest=max(map(len, fragments), default=0),
        sentence=sentences.__getitem__,
        longest_sentence=max(map(len, sentences), default=0),
        labels=[labels.get(name, math.nan) for name in names],
        numbers=[numbers[name] for name in names],
        positions=positions,
        is_final=[_is_final(*pair) for pair in zip(samples, positions, strict=True)],
        words=[len(text.split()) for text in fragments],
        layer=int(layer) if layer.isdigit() else -1,
        average_l0=_average_l0(space, declared),
    )


def _texts(texts: Sequence[str]) -> Any:
    """A NumPy array of texts."""
    import numpy as np

    return np.array(list(texts), np.str_)


def _fragment(sample: Mapping[str, Any] | None, position: int) -> str:
    if sample is None:
        return ""
    return "".join(sample["pieces"][: position + 1])


def _is_final(sample: Mapping[str, Any] | None, position: int) -> bool:
    return sample is not None and position == len(sample["pieces"]) - 1


# --- import ---


def read(
    store: Store,
    folder: Path,
    *,
    model: str | None = None,
    site: str = "resid_post",
    label: str = LABEL,
) -> str:
    """Import every archive in the folder as one run. `model` and `site` describe archives of other
    programs.
    """
    files = sorted(path for path in folder.glob("*.npz") if not path.name.startswith("."))
    if not files:
        raise BadInput(
            f"{folder} holds no .npz files. Name the folder with files such as "
            "layer_20_l0_71_activations.npz."
        )
    heads = [_head(path, model, site, label) for path in files]
    samples = {row["sample"]: row for _, rows, _ in heads for row in rows}
    meta = {(row["sample"], row["key"]): row for _, _, rows in heads for row in rows}
    tables: dict[str, Any] = {
        "spaces": arrow("spaces", list({space["space"]: space for space, _, _ in heads}.values())),
        "samples": arrow("samples", list(samples.values())),
        "sample_meta": arrow("sample_meta", list(meta.values())),
        "activations": (
            part
            for path, (space, _, _) in zip(files, heads, strict=True)
            for part in _activations(path, space)
        ),
    }
    return land(
        store, folder.name, "import.rows", digest_of(files) + f" {model} {site} {label}", tables
    )


def load(path: Path, needed: Sequence[str], skip: Sequence[str] = ()) -> dict[str, Any]:
    """The arrays of an archive, without pickles."""
    import zipfile

    try:
        members = arrays(path, skip)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(
            f"{path} cannot be read as a NumPy archive: {str(error)[:300]}. Copy it again."
        ) from None
    missing = [name for name in needed if name not in members and name not in skip]
    if missing:
        raise DataError(
            f"{path} has no array '{missing[0]}'. Required: {', '.join(needed)}. It holds: "
            f"{', '.join(sorted(members))}."
        )
    return members


def _head(
    path: Path, model: str | None, site: str, label: str
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The space, the samples and the labels of one archive."""
    members = load(path, _NEEDED, skip=("activations",))
    names = _names(members)
    if "space" in members:
        space = json.loads(str(members["space"][0]))
        described = json.loads(str(members["described"][0]))
    else:
        space, described = _foreign_space(path, members, model, site), {}
    texts = dict(zip(names, map(str, members["original_sentences"]), strict=True))
    samples = [described.get(name) or _foreign_sample(name, text) for name, text in texts.items()]
    numbers = zip(names, map(float, members.get("concept_strength_labels", ())), strict=False)
    known = {name: number for name, number in numbers if not math.isnan(number)}
    return (
        space,
        samples,
        [
            {"sample": name, "key": label, "number": number, "string": None}
            for name, number in known.items()
        ],
    )


def _names(members: Mapping[str, Any]) -> list[str]:
    if "samples" in members:
        return [str(name) for name in members["samples"]]
    numbers = whole_numbers(members["sentence_indices"], "int64", "`sentence_indices`")
    return [f"sentence-{number:06d}" for number in numbers.tolist()]


def _foreign_sample(name: str, text: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"token_ids": [], "pieces": [], "spans": []}
    return {
        "sample": name,
        "unit": name,
        "cluster": name,
        "text": text,
        **empty,
        "prompt_hash": id_of("text", text),
    }


def _foreign_space(
    path: Path, results: Mapping[str, Any], model: str | None, site: str
) -> dict[str, Any]:
    if model is None:
        raise BadInput(
            f"{path} does not say which model it is from. Name it: --model google/gemma-2-2b."
        )
    layer = check_layer(int(whole_numbers(results["layer"], "int64", f"{path}, `layer`")), path)
    l0 = float(results.get("average_l0", math.nan))
    sae = f"imported/layer_{layer}/average_l0_{l0:g}"
    width = int(results["num_features"])
    space = id_of("space", model, site, sae, str(width))
    return foreign_space(space[:16], model, f"{site}.{layer}", sae, width)


def _activations(path: Path, space: Mapping[str, Any]) -> Iterator[pa.Table]:
    members = load(path, _NEEDED)
    names, matrix = _names(members), members["activations"]
    if matrix.shape != (len(names), space["width"]):
        raise DataError(
            f"{path}: `activations` has the shape {matrix.shape}; it must be ({len(names)}, "
            f"{space['width']})."
        )
    for start in range(0, len(names), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield sparse(
            str(space["space"]), names[part], members["token_positions"][part], matrix[part]
        )


def sparse(space: str, samples: Sequence[str], positions: Any, matrix: Any) -> pa.Table:
    """Rows of `activations` from a dense matrix."""
    import numpy as np

    row, feature = np.nonzero(matrix)
    counts = np.bincount(row, minlength=len(samples))
    values = real_numbers(matrix[row, feature], f"space {space}").astype(np.float32)
    places = whole_numbers(positions, "int32", f"space {space}, the positions")
    return activation_rows(space, samples, places, counts, feature.astype(np.uint32), values)
