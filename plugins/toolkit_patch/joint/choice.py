"""Chooses features for a stage that follows a screen: named ones, or those with given verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit_patch.one_screen import of_one_screen
from toolkit_patch.screen.candidates import ComparedFeatures, family, read_features
from toolkit_patch.screen.params import Candidates

if TYPE_CHECKING:
    from toolkit.work import Work


def chosen_features(work: Work, min_count: int) -> tuple[ComparedFeatures | None, Any]:
    """The features by space and index, and the sizes of their screened effects (None for named
    ones); (None, None) if fewer than `min_count` qualify.
    """
    params = work.params
    compared = read_features(work.inputs, params.between, "confirm", work.seed)
    if params.features:
        spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
        rule = Candidates.model_validate({"features": params.features})
        rows, sizes = family(compared, rule, spaces), None
    else:
        rows, sizes = _judged(work, compared)
    return (None, None) if len(rows) < min_count else (compared.take(rows), sizes)


def _judged(work: Work, compared: ComparedFeatures) -> tuple[Any, Any]:
    """Rows of the features with the requested verdicts, and the sizes of their effects."""
    import numpy as np

    params = work.params
    keys = (compared.space.astype(np.int64) << 32) | compared.feature
    sizes: dict[int, float] = {}
    judged = [
        row
        for row in work.inputs.read("verdicts").to_pylist()
        if row["comparison"] == compared.comparison.id and row["outcome"] == params.about
    ]
    for row in of_one_screen(judged):
        if row["verdict"] in params.verdicts and row["space"] in compared.spaces:
            key = (compared.spaces.index(row["space"]) << 32) | row["feature"]
            sizes[int(np.searchsorted(keys, key))] = abs(row["effect"])
    strongest = sorted(sizes, key=lambda row: -sizes[row])[: params.top]
    rows = np.array(sorted(strongest), dtype=np.int64)
    return rows, np.array([sizes[row] for row in rows.tolist()])
