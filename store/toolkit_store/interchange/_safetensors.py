"""Activations as coordinates (COO): `run.json`, `samples.jsonl`, and one safetensors file per
space.

Each file holds `indices` (2, entries) and `values` (entries), which make a sparse matrix of rows by
features, and for each row `sample` (the line of `samples.jsonl`, from 0) and `position`. In torch:
`torch.sparse_coo_tensor(indices, values, shape)`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.files.json_lines import read_lines
from toolkit_store.interchange._commit import digest_of, land
from toolkit_store.interchange._files import (
    activation_rows,
    arrow,
    flat,
    read_index,
    safe_names,
    write_json,
)
from toolkit_store.interchange._incoming import real_numbers, whole_numbers
from toolkit_store.interchange._run_tables import RunTables

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from toolkit_store.store import Store

VERSION = 1
INDEX = "run.json"
_TENSORS = ("indices", "values", "sample", "position")


def write(run: RunTables, folder: Path, *, spaces: Sequence[str] | None = None) -> list[Path]:
    """Write a file per space, then the samples, then the index."""
    from safetensors.numpy import save_file

    names = safe_names(list(run.spaces.values()))
    ordinals: dict[str, int] = {name: i for i, name in enumerate(run.samples)}
    files, described = [], []
    for space, rows in run.activations(spaces):
        for name in rows["sample"].unique().sort():
            ordinals.setdefault(name, len(ordinals))
        files.append(folder / f"{names[space['space']]}.safetensors")
        shape = {"format": "toolkit-coo", "shape": [len(rows), space["width"]]}
        save_file(
            _tensors(rows, ordinals), files[-1], {"toolkit": json.dumps(shape)}
        )  # of several entries the order would vary
        described.append({"file": files[-1].name, "rows": len(rows), **space})
    lines = "".join(
        json.dumps(run.samples.get(name, {"sample": name}), ensure_ascii=False) + "\n"
        for name in ordinals
    )
    (folder / "samples.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    index = {
        "format": "safetensors",
        "version": VERSION,
        "run": run.id,
        "name": run.row.name,
        "spaces": described,
    }
    return [*files, folder / "samples.jsonl", write_json(folder / INDEX, index)]


def _tensors(rows: pl.DataFrame, ordinals: dict[str, int]) -> dict[str, Any]:
    import numpy as np

    counts, features, values = flat(rows)
    row = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
    return {
        "indices": np.stack([row, features.astype(np.int64)]),
        "values": values,
        "sample": np.array([ordinals[name] for name in rows["sample"]], np.uint32),
        "position": rows["position"].to_numpy().astype(np.int32),
    }


def read(store: Store, folder: Path) -> str:
    """Import samples, spaces and activations as a run."""
    index = read_index(folder, INDEX, "safetensors", VERSION)
    lines = _lines(folder / "samples.jsonl")
    files = [folder / space["file"] for space in index["spaces"]]
    for path in files:
        if path.parent != folder or path.is_symlink() or not path.is_file():
            raise DataError(
                f"{path} is missing, though {folder / INDEX} names it. Copy or export the folder "
                "again."
            )
    spaces = [
        {name: value for name, value in space.items() if name not in ("file", "rows")}
        for space in index["spaces"]
    ]
    names = [str(line["sample"]) for line in lines]
    tables = {
        "samples": arrow("samples", [line for line in lines if "text" in line]),
        "spaces": arrow("spaces", spaces),
        "activations": (
            _rows(path, space, names) for path, space in zip(files, spaces, strict=True)
        ),
    }
    return land(
        store,
        index["name"],
        "import.safetensors",
        digest_of([*files, folder / "samples.jsonl", folder / INDEX]),
        tables,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return [line for _, line in read_lines(path, file)]


def _rows(path: Path, space: dict[str, Any], samples: Sequence[str]) -> pa.Table:
    import numpy as np

    tensors = _load(path)
    row, feature = whole_numbers(tensors["indices"], "int64", f"{path}, `indices`")
    owners_of = whole_numbers(tensors["sample"], "int64", f"{path}, `sample`")
    positions = whole_numbers(tensors["position"], "int32", f"{path}, `position`")
    values = real_numbers(tensors["values"], f"{path}, `values`")
    rows = len(tensors["sample"])
    if len(feature) and (
        feature.max() >= space["width"] or row.max() >= rows or min(feature.min(), row.min()) < 0
    ):
        raise DataError(
            f"{path}: an index is outside the matrix of {rows} rows by {space['width']} features."
        )
    if rows and not 0 <= owners_of.min() <= owners_of.max() < len(samples):
        raise DataError(
            f"{path}: sample {owners_of.max()} is beyond the {len(samples)} lines of samples.jsonl."
        )
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=rows)
    owners = [samples[number] for number in owners_of]
    return activation_rows(space["space"], owners, positions, counts, feature[order], values[order])


def _load(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is not a complete safetensors file ({error}). Copy or export it again."
        ) from None
    missing = [name for name in _TENSORS if name not in tensors]
    if missing:
        raise DataError(f"{path} has no tensor '{missing[0]}'. Required: {', '.join(_TENSORS)}.")
    if tensors["indices"].shape != (2, len(tensors["values"])) or len(tensors["sample"]) != len(
        tensors["position"]
    ):
        raise DataError(
            f"{path}: `indices` must be (2, entries) and `values` (entries); `sample` and "
            "`position` have one per row."
        )
    return tensors
