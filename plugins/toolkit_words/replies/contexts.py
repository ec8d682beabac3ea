"""The contexts with the largest activations: the token and the text around it, each prompt once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.activation_rows import BySpace
from toolkit.tables import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Inputs

BEFORE, AFTER = 24, 12
"""Tokens shown before and after the token."""


def contexts(
    inputs: Inputs,
    samples: Sequence[Mapping[str, Any]],
    features: Sequence[tuple[str, int]],
    k: int,
) -> pa.Table:
    """The k contexts with the largest activations of each (space, feature)."""
    import pyarrow as pa

    texts = {row["sample"]: row for row in samples}
    by_space = BySpace(inputs.read("activations"))
    by_feature_space: dict[str, list[int]] = {}
    for space, feature in features:
        by_feature_space.setdefault(space, []).append(feature)
    rows = [
        row
        for space, indices in by_feature_space.items()
        for row in _of_space(space, indices, by_space.of(space), texts, k)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("feature_contexts"))


def _of_space(
    space: str, features: Sequence[int], rows: pa.Table, texts: Mapping[str, Any], k: int
) -> list[dict[str, Any]]:
    import numpy as np

    lists = rows["features"].combine_chunks()
    row = np.repeat(np.arange(len(rows)), np.diff(lists.offsets.to_numpy()))
    feature = lists.flatten().to_numpy(zero_copy_only=False)
    value = rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    listed = np.flatnonzero(np.isin(feature, features))
    order = listed[np.lexsort((row[listed], -value[listed], feature[listed]))]
    sample, position = rows["sample"], rows["position"].to_numpy()
    results: list[dict[str, Any]] = []
    starts = np.searchsorted(feature[order], features)
    ends = np.searchsorted(feature[order], features, side="right")
    for index, start, end in zip(features, starts, ends, strict=True):
        seen: set[str] = set()
        for entry in order[start:end]:
            text = texts.get(sample[int(row[entry])].as_py())
            if text is None or text["prompt_hash"] in seen:
                continue
            seen.add(text["prompt_hash"])
            token = int(position[row[entry]])
            results.append(_context(space, index, len(seen), text, token, float(value[entry])))
            if len(seen) == k:
                break
    return results


def _context(
    space: str, feature: int, rank: int, text: Mapping[str, Any], position: int, value: float
) -> dict[str, Any]:
    pieces = text["pieces"]
    return {
        "space": space,
        "feature": feature,
        "rank": rank,
        "sample": text["sample"],
        "position": position,
        "value": value,
        "before": "".join(pieces[max(0, position - BEFORE) : position]),
        "piece": pieces[position],
        "after": "".join(pieces[position + 1 : position + 1 + AFTER]),
    }
