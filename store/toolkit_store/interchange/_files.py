"""Helpers of several formats: index files, file names, and rows as arrays."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput
from toolkit.tables import arrow_schema
from toolkit.version import VERSION
from toolkit_store.interchange._incoming import check_json_size

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Row = Mapping[str, Any]


def slug(name: str) -> str:
    """A name as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "import"


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    unfinished.replace(path)
    return path


def read_index(folder: Path, name: str, form: str, version: int) -> dict[str, Any]:
    """The index of an exported folder, of this version or an older one."""
    from toolkit.files.local import read_json

    path = folder / name
    if not path.is_file():
        raise BadInput(
            f"{folder} is not a finished export of format '{form}': it has no {name}. "
            f"Export it again."
        )
    check_json_size(path)
    content = read_json(path)
    if content.get("format") != form:
        raise BadInput(
            f"{path} has the format {content.get('format')!r}, not {form!r}. Give --format the "
            "one it was exported with."
        )
    if not isinstance(content.get("version"), int) or content["version"] > version:
        raise BadInput(
            f"{path} has version {content.get('version')!r}; this toolkit ({VERSION}) reads up "
            f"to version {version}. Upgrade: python -m pip install -U sae-toolkit"
        )
    return content


def safe_names(spaces: Sequence[Row]) -> dict[str, str]:
    """Space id -> its address as a file name; spaces whose names would be equal get their ids
    too.
    """
    plain = {str(row["space"]): slug(str(row["address"])) for row in spaces}
    seen = Counter(name.lower() for name in plain.values())
    return {
        space: name if seen[name.lower()] == 1 else f"{name}-{slug(space)}"
        for space, name in plain.items()
    }


def arrow(name: str, rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of the declared schema."""
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema(name))


def activation_rows(
    space: str, samples: Sequence[str], positions: Any, counts: Any, features: Any, values: Any
) -> pa.Table:
    """Rows of `activations` from flat arrays: row i has `counts[i]` entries of `features` and
    `values`, in order.
    """
    import numpy as np
    import pyarrow as pa

    schema = arrow_schema("activations")
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(flat, kind.value_type), type=kind)
        for flat, kind in (
            (features, schema.field("features").type),
            (values, schema.field("values").type),
        )
    ]
    columns = [
        pa.array([space] * len(samples), pa.string()),
        pa.array(list(samples), pa.string()),
        pa.array(positions, pa.int32()),
    ]
    return pa.Table.from_arrays([*columns, *lists], schema=schema)


def joined(parts: Iterable[pa.Table], max_rows: int = 50_000) -> Iterator[pa.Table]:
    """Join rows into fewer tables: each table costs time in a commit."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += part.num_rows
        if count >= max_rows:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def flat(rows: pl.DataFrame) -> tuple[Any, Any, Any]:
    """Counts per row, and features and values of all entries, as arrays."""
    import pyarrow.compute as pc

    features, values = (
        pc.list_flatten(rows[name].to_arrow()).to_numpy(zero_copy_only=False)
        for name in ("features", "values")
    )
    return rows["features"].list.len().to_numpy(), features, values
