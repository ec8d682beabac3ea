"""The contexts with the largest activations: the token and the text around it, each prompt once.

Stage `words.contexts` gives those of every described feature; `words.replies` those of features
with words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.activations.rows import BySpace
from toolkit.errors import DataError
from toolkit.features.labels import LABEL
from toolkit.parts import Params
from toolkit.tables import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Inputs, Rows, Work

BEFORE, AFTER = 24, 12
"""Tokens shown before and after the token."""
BLOCK = 4096
"""Features whose rows are in memory at once."""
DESCRIBED_BY = ("promoted_tokens", "feature_words", "features")
"""Tables that describe features."""


class FeatureContexts(Params):
    """How many contexts are kept."""

    top: int = Field(
        3,
        ge=1,
        description="Maximum number of contexts of a feature: the positions where it fires most "
        "strongly.",
    )


def feature_contexts(work: Work) -> Rows:
    """Rows of `feature_contexts` for every feature that a needed stage describes; for every feature
    that fires if none describes any.
    """
    samples = work.inputs.read("samples").to_pylist()
    described = _described(work.inputs)
    by_space = BySpace(work.inputs.read("activations"))
    if not by_space.spaces:
        raise DataError(
            "words.contexts: the needed stages have no activations, so there are no contexts. Need "
            "a stage that keeps them, such as track.tokens."
        )
    work.report.phase("compute")
    for number, space in enumerate(by_space.spaces, 1):
        features = sorted(
            _firing(by_space.of(space)) if described is None else described.get(space, ())
        )
        for start in range(0, len(features), BLOCK):
            keys = [(space, feature) for feature in features[start : start + BLOCK]]
            yield "feature_contexts", contexts(by_space, samples, keys, work.params.top)
        work.report.progress(number, len(by_space.spaces))


def _described(inputs: Inputs) -> Mapping[str, set[int]] | None:
    """By space, the features that have promoted tokens, words or a label; None without any such
    table.
    """
    import pyarrow.compute as pc

    tables = [name for name in DESCRIBED_BY if name in inputs.tables()]
    if not tables:
        return None
    features: dict[str, set[int]] = {}
    for name in tables:
        rows = inputs.read(name)
        if name == "features":
            rows = rows.filter(pc.equal(rows["stat"], LABEL))
        pairs = rows.select(["space", "feature"]).group_by(["space", "feature"]).aggregate([])
        for row in pairs.to_pylist():
            features.setdefault(row["space"], set()).add(row["feature"])
    return features


def _firing(rows: pa.Table) -> Iterable[int]:
    import pyarrow.compute as pc

    firing: list[int] = pc.unique(pc.list_flatten(rows["features"])).to_pylist()
    return firing


def contexts(
    by_space: BySpace,
    samples: Sequence[Mapping[str, Any]],
    features: Sequence[tuple[str, int]],
    k: int,
) -> pa.Table:
    """The k contexts with the largest activations of each (space, feature)."""
    import pyarrow as pa

    texts = {row["sample"]: row for row in samples}
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
