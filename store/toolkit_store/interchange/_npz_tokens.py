"""NumPy archives of tokens by features: a folder per sample, a file per layer, and what the samples
are in `metadata_*.json`.

    Bankruptcy_90_all_in/layer_15.npz
        features [tokens, width]    attention [heads, tokens, tokens]
    metadata_L1_31_RUN.json
        scenarios: scenario, tokens, token_ids, seq_len, key_positions

Exports of the toolkit also hold `positions`, the tokens whose features were kept; the rows of other
tokens are NaN. Where a layer has several SAEs the files are `layer_15_NAME.npz`. Zeros are not
entries: a value of exactly 0 is not read back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.activations.dense_layouts import folder_names, scenario, token_members
from toolkit.errors import BadInput, DataError
from toolkit.files.archives import whole
from toolkit.files.local import read_json
from toolkit_store.interchange._commit import digest_of, id_of, land
from toolkit_store.interchange._files import arrow, joined, safe_names, write_json
from toolkit_store.interchange._incoming import foreign_space, real_numbers, whole_numbers
from toolkit_store.interchange._npz_rows import (
    MAX_BYTES,
    check_size,
    load,
    save,
    sparse,
    sparse_rows,
)
from toolkit_store.interchange._run_tables import RunTables

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

    from toolkit_store.store import Store

_FILE = re.compile(r"layer_(\d+)(?:_(.+))?\.npz")


def write(
    run: RunTables, folder: Path, *, spaces: Sequence[str] | None = None, max_bytes: int = MAX_BYTES
) -> list[Path]:
    """Write a folder per sample with a file per layer, then the metadata."""
    import polars as pl

    parts = list(run.activations(spaces))
    attention = pl.DataFrame(run.read("attention"))
    files: list[Path] = []
    stems = _stems([space for space, _ in parts])
    folders = folder_names(sorted({name for _, rows in parts for name in rows["sample"].unique()}))
    for space, rows in parts:
        for (name,), mine in rows.group_by("sample", maintain_order=True):
            files.append(folder / folders[str(name)] / f"{stems[space['space']]}.npz")
            files[-1].parent.mkdir(exist_ok=True)
            weights = attention.filter(
                (pl.col("sample") == name)
                & (pl.col("layer") == _layer(space))
                & (pl.col("model") == space["model"])
            )
            _write_one(
                files[-1], space, mine, _length(run, str(name), mine, weights), weights, max_bytes
            )
    layers = sorted({_layer(space) for space, _ in parts})
    metadata = {
        "format": "tokens",
        "version": 1,
        "timestamp": run.row.at,
        "name": run.row.name,
        "n_scenarios": len(folders),
        "layer_range": [layers[0], layers[-1]],
        "save_features": True,
        "save_attention": bool(len(attention)),
        "scenarios": [
            scenario(folder_name, _sample_of(run, name)) for name, folder_name in folders.items()
        ],
        "spaces": {f"{stems[space['space']]}.npz": dict(space) for space, _ in parts},
    }
    return [
        *files,
        write_json(folder / f"metadata_L{layers[0]}_{layers[-1]}_{run.id}.json", metadata),
    ]


def _stems(spaces: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    shared = Counter(_layer(space) for space in spaces)
    names = safe_names(spaces)
    return {
        space["space"]: f"layer_{_layer(space)}"
        + ("" if shared[_layer(space)] == 1 else f"_{names[space['space']]}")
        for space in spaces
    }


def _layer(space: Mapping[str, Any]) -> int:
    layer = str(space["hookpoint"]).rpartition(".")[2]
    if not layer.isdigit():
        raise BadInput(
            f"space {space['space']} ({space['address']}) belongs to no layer; this format has "
            "one file per layer."
        )
    return int(layer)


def _length(run: RunTables, name: str, rows: pl.DataFrame, weights: pl.DataFrame) -> int:
    """The number of tokens of a sample, at least as many as its rows need."""
    pieces = len(run.samples[name]["pieces"]) if name in run.samples else 0
    seen = [int(rows["position"].max()) + 1]  # type: ignore[arg-type]
    if len(weights):
        queries: Any = weights["query"].max()
        keys: Any = weights["weights"].list.len().max()
        seen += [int(queries) + 1, int(keys)]
    return max(pieces, *seen)


def _write_one(
    path: Path,
    space: Mapping[str, Any],
    rows: pl.DataFrame,
    length: int,
    weights: pl.DataFrame,
    max_bytes: int,
) -> None:
    check_size(space, length, max_bytes)
    positions = rows["position"].to_numpy()
    members = [
        *token_members(sparse_rows(rows), space["width"], positions, length),
    ]
    if len(weights):
        members.append(whole("attention", _weights(weights, length)))
    save(path, members)


def _weights(rows: pl.DataFrame, length: int) -> np.ndarray[Any, Any]:
    """(heads, queries, keys); a key that was left out has 0."""
    import numpy as np

    heads = int(rows["head"].max()) + 1  # type: ignore[arg-type]
    attention = np.zeros((heads, length, length), np.float16)
    for row in rows.iter_rows(named=True):
        keys = slice(len(row["weights"])) if row["keys"] is None else row["keys"]
        attention[row["head"], row["query"], keys] = row["weights"]
    return attention


def _sample_of(run: RunTables, name: str) -> dict[str, Any]:
    """A row of `samples`; if there is none, a sample of which only the id is known."""
    known = run.samples.get(name) or {"pieces": [], "token_ids": [], "spans": []}
    return {"sample": name, **known}


# --- import ---


def read(store: Store, folder: Path, *, model: str | None = None, site: str = "resid_post") -> str:
    """Import the folder's samples as one run. `model` and `site` describe archives of other
    programs.
    """
    metadata = _metadata(folder)
    scenarios = {str(row["scenario"]): row for row in metadata["scenarios"]}
    files = sorted(path for path in folder.glob("*/layer_*.npz") if _FILE.fullmatch(path.name))
    if not files:
        raise BadInput(
            f"{folder} holds no files such as SAMPLE/layer_15.npz. Name the folder that holds the "
            "samples' folders."
        )
    spaces = _spaces(files, metadata, model, site)
    names = {
        path.parent.name: _sample(scenarios.get(path.parent.name), path.parent.name)
        for path in files
    }
    tables: dict[str, Any] = {
        "spaces": arrow(
            "spaces", list({row["space"]: row for row in spaces.values() if row["width"]}.values())
        ),
        "samples": arrow("samples", list(names.values())),
        "activations": joined(rows for path in files for rows in _activations(path, spaces, names)),
        "attention": joined(
            rows for path in _once(files) for rows in _attention(path, spaces, names)
        ),
    }
    digest = digest_of([*files, *folder.glob("metadata_*.json")]) + f" {model} {site}"
    return land(store, metadata.get("name") or folder.name, "import.tokens", digest, tables)


def _metadata(folder: Path) -> dict[str, Any]:
    results = sorted(folder.glob("metadata_*.json"))
    if len(results) != 1:
        some = ", ".join(path.name for path in results) or "none"
        raise BadInput(
            f"{folder} must hold one metadata_*.json, which says what the samples' tokens are; "
            f"it holds {some}."
        )
    metadata = read_json(results[0])
    rows = metadata.get("scenarios")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "scenario" in row for row in rows
    ):
        raise DataError(
            f"{results[0]} has no list `scenarios` of objects with a name under `scenario`."
        )
    return metadata


def _spaces(
    files: Sequence[Path], metadata: Mapping[str, Any], model: str | None, site: str
) -> dict[str, dict[str, Any]]:
    """File name -> the space of its features."""
    described = metadata.get("spaces") or {}
    out = {}
    for path in files:
        if path.name not in out:
            out[path.name] = described.get(path.name) or _foreign_space(path, model, site)
    return out


def _foreign_space(path: Path, model: str | None, site: str) -> dict[str, Any]:
    if model is None:
        raise BadInput(
            f"{path.parent.parent} does not say which model it is from. Name it: --model "
            "meta-llama/Llama-3.1-8B."
        )
    match = _FILE.fullmatch(path.name)
    layer, name = (match[1], match[2]) if match else ("0", None)
    features = load(path, (), skip=("attention",)).get("features")
    width = 0 if features is None else features.shape[-1]  # attention alone may have been kept
    sae = f"imported/{name or f'layer_{layer}'}"
    space = id_of("space", model, site, layer, sae, str(width))
    return foreign_space(space[:16], model, f"{site}.{layer}", sae, int(width))


def _sample(scenario: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    if scenario and "sample" in scenario and "text" in scenario["sample"]:
        return dict(scenario["sample"])
    known = scenario or {}
    pieces = [str(piece) for piece in known.get("tokens", ())]
    spans = [
        {"name": str(span), "start": min(index), "end": max(index) + 1}
        for span, index in known.get("key_positions", {}).items()
        if index
    ]
    sample = str(known.get("sample", {}).get("sample", name))
    text = "".join(pieces)
    row = {
        "sample": sample,
        "unit": sample,
        "cluster": sample,
        "text": text,
        "token_ids": list(known.get("token_ids", ())),
    }
    return row | {"pieces": pieces, "spans": spans, "prompt_hash": id_of("text", text)}


def _activations(
    path: Path, spaces: Mapping[str, Any], samples: Mapping[str, Any]
) -> Iterator[pa.Table]:
    import numpy as np

    members = load(path, (), skip=("attention",))
    if "features" not in members:
        return
    matrix, space = members["features"], spaces[path.name]
    if matrix.ndim != 2 or matrix.shape[1] != space["width"]:
        raise DataError(
            f"{path}: `features` has the shape {matrix.shape}; it must be (tokens, "
            f"{space['width']})."
        )
    positions = whole_numbers(
        members.get("positions", np.arange(len(matrix))), "int64", f"{path}, `positions`"
    )
    if len(positions) and not 0 <= positions.min() <= positions.max() < len(matrix):
        raise DataError(
            f"{path}: `positions` names a token beyond the {len(matrix)} rows of `features`."
        )
    yield sparse(
        space["space"],
        [samples[path.parent.name]["sample"]] * len(positions),
        positions,
        matrix[positions],
    )


def _once(files: Sequence[Path]) -> list[Path]:
    """One file per sample and layer: two SAEs of one layer have the same attention."""
    return list(
        {
            (path.parent, match[1]): path for path in files if (match := _FILE.fullmatch(path.name))
        }.values()
    )


def _attention(
    path: Path, spaces: Mapping[str, Any], samples: Mapping[str, Any]
) -> Iterator[pa.Table]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from toolkit.tables import arrow_schema

    weights = load(path, (), skip=("features", "positions")).get("attention")
    if weights is None:
        return
    if weights.ndim != 3 or weights.shape[1] != weights.shape[2]:
        raise DataError(
            f"{path}: `attention` has the shape {weights.shape}; it must be (heads, "
            "tokens, tokens)."
        )
    finite = ~np.isnan(weights) if weights.dtype.kind == "f" else np.ones(weights.shape, dtype=bool)
    weights = real_numbers(np.where(finite, weights, 0), f"{path}, `attention`")
    head, query = np.nonzero(finite.any(axis=2) & weights.any(axis=2))
    space, name = spaces[path.name], samples[path.parent.name]["sample"]
    chosen, rows = finite[head, query], weights[head, query].astype(np.float16)
    counts = chosen.sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    whole_rows = counts == rows.shape[1]
    columns_of_keys = np.nonzero(chosen)[1].astype(np.uint32)
    schema = arrow_schema("attention")
    kinds = [schema.field(column).type for column in ("keys", "weights")]
    keys = pa.ListArray.from_arrays(offsets, pa.array(columns_of_keys), type=kinds[0])
    values = pa.array(rows[chosen])
    rest = np.where(whole_rows, 0, np.clip(1 - rows.sum(axis=1, dtype=np.float64), 0, 1))
    columns: dict[str, Any] = {
        "model": pa.array([space["model"]] * len(head), pa.string()),
        "sample": pa.array([name] * len(head), pa.string()),
        "layer": pa.array(np.full(len(head), _layer(space)), pa.int32()),
        "head": pa.array(head, pa.int32()),
        "query": pa.array(query, pa.int32()),
        "keys": pc.if_else(pa.array(whole_rows), pa.nulls(len(head), kinds[0]), keys),
        "weights": pa.ListArray.from_arrays(offsets, values, type=kinds[1]),
        "rest": pa.array(rest, pa.float32()),
    }
    yield pa.table(columns, schema=schema)
