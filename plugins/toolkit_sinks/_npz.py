"""The sink `npz`: the activations of each space as one NumPy archive, in coordinates or dense."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import DataError, choices
from toolkit.records import Params, SinkWork

if TYPE_CHECKING:
    import pyarrow as pa


class Npz(Params):
    """Where to, and whether every zero is written too."""

    path: str = Field("out", min_length=1, description="Folder, relative to the spec.")
    dense: bool = Field(False, description="Write the array `features` (rows by width) as well.")
    max_bytes: int = Field(2**30, ge=1, description="Refuse a dense array larger than this.")


def write_npz(work: SinkWork) -> Iterator[tuple[str, bytes]]:
    """One archive a space: row i is `samples[i]` at `positions[i]`; entry j says that `feature[j]` is `value[j]` in `row[j]`."""
    import pyarrow.compute as pc

    activations = work.inputs.read("activations")
    ids = sorted(pc.unique(activations["space"]).to_pylist())
    spaces = _spaces(work.inputs.read("spaces"), ids)
    for space, name in zip(ids, _names(spaces, ids), strict=True):
        rows = activations.filter(pc.equal(activations["space"], space))
        rows = rows.sort_by([("sample", "ascending"), ("position", "ascending")])
        yield f"{name}.npz", _archive(_arrays(rows, spaces[space], work.params))


def _spaces(table: pa.Table, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = {row["space"]: row for row in table.to_pylist()}
    for space in wanted:
        if space not in rows:
            raise DataError(
                f"space {space}: it has activations, but table 'spaces' does not describe it, so its width is unknown. "
                f"Let the stage that writes the activations write 'spaces' too. Spaces described: {choices(rows) if rows else 'none'}."
            )
    return rows


def _names(spaces: Mapping[str, Mapping[str, Any]], ids: Sequence[str]) -> list[str]:
    """Addresses as file names; those that would be equal (also where upper case counts for nothing) get the space's id too."""
    safe = [re.sub(r"[^A-Za-z0-9._-]+", "-", spaces[space]["address"]).strip(".-") or space for space in ids]
    seen = Counter(name.lower() for name in safe)
    return [name if seen[name.lower()] == 1 else f"{name}-{space}" for name, space in zip(safe, ids, strict=True)]


def _arrays(rows: pa.Table, space: Mapping[str, Any], params: Npz) -> dict[str, Any]:
    import numpy as np
    import pyarrow.compute as pc

    lists = rows["features"].combine_chunks()
    row = np.repeat(np.arange(len(rows)), pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    feature = lists.flatten().to_numpy(zero_copy_only=False)
    value = rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    arrays = {
        "samples": np.array(rows["sample"].to_pylist(), dtype=np.str_),
        "positions": rows["position"].to_numpy(),
        "row": row.astype(np.int64),
        "feature": feature,
        "value": value,
        "width": np.int64(space["width"]),
    }
    if params.dense:
        _check_size(len(rows), space, params.max_bytes)
        arrays["features"] = np.zeros((len(rows), space["width"]), dtype=np.float32)
        arrays["features"][row, feature] = value
    return arrays


def _check_size(rows: int, space: Mapping[str, Any], most: int) -> None:
    size = rows * int(space["width"]) * 4
    if size > most:
        raise DataError(
            f"space {space['space']} ({space['address']}): {rows:,} rows of {space['width']:,} features are {size:,} bytes dense; "
            f"max_bytes allows {most:,}. Leave out `dense` (the sparse arrays hold the same numbers), or raise `max_bytes`."
        )


def _archive(arrays: Mapping[str, Any]) -> bytes:
    """NumPy dates every member 1980-01-01, so that equal arrays are equal bytes."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
