"""Which features a stage takes that follows a screen: named ones, or those with some verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit_patch.screen.candidates import ComparedFeatures, family, read_features
from toolkit_patch.screen.params import Candidates

if TYPE_CHECKING:
    from toolkit.work import Work


def chosen_features(work: Work, least: int) -> tuple[ComparedFeatures | None, Any]:
    """The features by space and index, and the sizes of their screened effects (None for named
    ones). No features where fewer than `least` qualify.
    """
    params = work.params
    everything = read_features(work.inputs, params.between, "confirm")
    if params.features:
        spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
        rule = Candidates.model_validate({"features": params.features})
        rows, sizes = family(everything, rule, spaces), None
    else:
        rows, sizes = _judged(work, everything)
    return (None, None) if len(rows) < least else (everything.take(rows), sizes)


def _judged(work: Work, everything: ComparedFeatures) -> tuple[Any, Any]:
    """Rows of the features with the requested verdicts, and the sizes of their effects."""
    import numpy as np

    params = work.params
    keys = (everything.space.astype(np.int64) << 32) | everything.feature
    found: dict[int, float] = {}
    for row in work.inputs.read("verdicts").to_pylist():
        requested = row["verdict"] in params.verdicts and row["outcome"] == params.about
        if requested and row["space"] in everything.spaces:
            key = (everything.spaces.index(row["space"]) << 32) | row["feature"]
            found[int(np.searchsorted(keys, key))] = abs(row["effect"])
    strongest = sorted(found, key=lambda place: -found[place])[: params.top]
    rows = np.array(sorted(strongest), dtype=np.int64)
    return rows, np.array([found[row] for row in rows.tolist()])
