"""Small tables for comparisons, and what a comparison made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from toolkit.features.comparisons import Comparison, comparisons_of
from toolkit.parts import StagePart
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_work
from toolkit.testing.nulls import Groups
from toolkit.work import Rows
from toolkit_stats import toolkit_parts

TESTS = (
    "welch",
    "student",
    "mann_whitney",
    "auroc",
    "permutation",
    "correlation",
    "anova",
    "kruskal",
)
PARTS = {
    part.name: part
    for part in toolkit_parts()
    if isinstance(part, StagePart) and part.name.removeprefix("compare.") in TESTS
}
RowsByKey = dict[tuple[str, int, str, str], dict[str, Any]]


def sample(name: str, unit: str = "", prompt: str = "") -> dict[str, Any]:
    """A row of `samples`; by itself unless a unit or prompt is given."""
    row = {
        "sample": name,
        "unit": unit or name,
        "cluster": prompt or name,
        "text": name,
        "prompt_hash": prompt or name,
    }
    return {**row, "token_ids": [], "pieces": [], "spans": [], "bos": False}


def space(name: str = "s1", width: int = 8, layer: int = 1) -> dict[str, Any]:
    """A row of `spaces`."""
    where = {
        "hookpoint": f"resid_post.{layer}",
        "address": f"m/resid_post.{layer}/{name}",
        "recipe": "jumprelu",
    }
    return {
        "space": name,
        "model": "m",
        "revision": "1",
        "sae": name,
        "sae_hash": "x",
        "width": width,
        **where,
    }


def tables(
    samples: Sequence[Mapping[str, Any]],
    groups: Sequence[str | float],
    activations: Sequence[tuple[str, str, int, dict[int, float]]],
    spaces: Sequence[Mapping[str, Any]] = (space(),),
    **more: Sequence[str | float],
) -> dict[str, pa.Table]:
    """Input tables; an activation is (space, sample, position, values by feature), a keyword more
    metadata.
    """
    keys = {"group": groups, **more}
    meta = [
        _meta(row["sample"], key, value)
        for key, values in keys.items()
        for row, value in zip(samples, values, strict=True)
    ]
    entries = [
        {
            "space": s,
            "sample": n,
            "position": index,
            "features": list(result),
            "values": list(result.values()),
        }
        for s, n, index, result in activations
    ]
    made = {"samples": samples, "sample_meta": meta, "activations": entries, "spaces": spaces}
    return {
        name: pa.Table.from_pylist(list(rows), schema=arrow_schema(name))
        for name, rows in made.items()
    }


def _meta(name: str, key: str, value: str | float) -> dict[str, Any]:
    text = isinstance(value, str)
    return {
        "sample": name,
        "key": key,
        "number": None if text else value,
        "string": value if text else None,
    }


def of_dense(
    dense: np.ndarray,
    groups: Sequence[str | float],
    units: Sequence[str] | None = None,
    **more: Sequence[str | float],
) -> dict[str, pa.Table]:
    """A dense array of samples by features as tables; units, if any, and more metadata."""
    names = [f"n{index:04d}" for index in range(len(dense))]
    samples = [sample(name, unit) for name, unit in zip(names, units or names, strict=True)]
    rows = [
        ("s1", name, 0, {int(index): float(row[index]) for index in np.flatnonzero(row)})
        for name, row in zip(names, dense, strict=True)
    ]
    return tables(samples, groups, rows, [space(width=dense.shape[1])], **more)


def of_groups(data: Groups) -> dict[str, pa.Table]:
    """Made-up groups as tables: a game is a unit, prompts are all different, the label is group a
    or b.
    """
    names = [f"r{row:05d}" for row in data.sample]
    units, labels, empty = (
        [f"g{game}" for game in data.game],
        ["a" if label else "b" for label in data.label],
        [[]] * len(names),
    )
    lists = [
        pa.ListArray.from_arrays(
            pa.array(data.indptr, pa.int32()),
            pa.array(values),
            type=arrow_schema("activations").field(name).type,
        )
        for name, values in (("features", data.features), ("values", data.values))
    ]
    columns = {
        "samples": [names, units, names, names, empty, empty, empty, names, [False] * len(names)],
        "sample_meta": [names, ["group"] * len(names), [None] * len(names), labels],
        "activations": [["s1"] * len(names), names, pa.array([0] * len(names), pa.int32()), *lists],
    }
    made = {name: pa.table(rows, schema=arrow_schema(name)) for name, rows in columns.items()}
    return {**made, "spaces": tables([], [], [], [space(width=data.n_features)])["spaces"]}


def run(part: str, inputs: Mapping[str, pa.Table], seed: int = 0, **params: Any) -> RowsByKey:
    """A comparison's rows by (space, feature, stat, group)."""
    rows = written(part, inputs, seed, **params).to_pylist()
    by_key = {(row["space"], row["feature"], row["stat"], row["group"]): row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def numbers(
    part: str, inputs: Mapping[str, pa.Table], seed: int = 0, **params: Any
) -> dict[str, dict[int, float]]:
    """By statistic of the comparison itself (not of its groups), the number of each feature of one
    space; NaN where there is none.
    """
    result = written(part, inputs, seed, **params)
    made: dict[str, dict[int, float]] = {}
    for stat, feature, number in zip(
        *(result[name].to_pylist() for name in ("stat", "feature", "number")), strict=True
    ):
        if stat not in ("mean", "density"):
            made.setdefault(stat, {})[feature] = np.nan if number is None else number
    return made


def written(part: str, inputs: Mapping[str, pa.Table], seed: int = 0, **params: Any) -> pa.Table:
    """A comparison's rows of `features` as it writes them."""
    return outputs(part, inputs, seed, **params)["features"]


def outputs(
    part: str, inputs: Mapping[str, pa.Table], seed: int = 0, **params: Any
) -> dict[str, pa.Table]:
    """What a comparison writes: `features` and `comparisons`."""
    return joined(*({name: rows} for name, rows in _rows(part, inputs, seed, params)))


def joined(*parts: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """`features` and `comparisons` of several stages as one that needs them reads them."""
    return {
        name: pa.concat_tables(
            [
                arrow_schema(name).empty_table(),
                *(tables[name] for tables in parts if name in tables),
            ]
        )
        for name in ("features", "comparisons")
    }


def compared(part: str, inputs: Mapping[str, pa.Table], seed: int = 0, **params: Any) -> Comparison:
    """What a comparison records of itself."""
    (result,) = comparisons_of(outputs(part, inputs, seed, **params)["comparisons"])
    return result


def sizes(
    part: str, inputs: Mapping[str, pa.Table], seed: int = 0, **params: Any
) -> dict[str, str]:
    """By group, what stands behind its numbers."""
    groups = compared(part, inputs, seed, **params).groups
    return {group.name: group.describe() for group in groups}


def _rows(part: str, inputs: Mapping[str, pa.Table], seed: int, params: Mapping[str, Any]) -> Rows:
    stage = PARTS[f"compare.{part}"]
    return stage.run(
        make_work(stage.params(**{"by": "group", "details": "all", **params}), inputs, seed=seed)
    )
