"""The family `discovered`: features that a comparison of the select half discovered, tested on the
confirm half.

Imported when a step runs: it needs NumPy and pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toolkit.errors import DataError, choices, nearest
from toolkit.features.comparisons import read_comparisons, rows_of
from toolkit.statistics.arrays import Floats, Ints
from toolkit.work import Work


@dataclass(frozen=True, eq=False)
class SelectedFeatures:
    """By space, the features that the select half discovered, in ascending order, and their effects
    there.
    """

    features: Mapping[str, Ints]
    effects: Mapping[str, Floats]

    def of(self, space: str) -> Ints:
        """The features of a space."""
        return self.features.get(space, np.empty(0, dtype=np.int64))

    def effect(self, space: str, features: Ints) -> Floats:
        """The effects of some of them."""
        if not len(features):
            return np.empty(0)
        return self.effects[space][np.searchsorted(self.features[space], features)]


def candidates(work: Work, contrast: str, effect: str) -> SelectedFeatures | None:
    """The features that the needed stage discovered in the same comparison, by its q and its cut,
    with their effects; None for other families.
    """
    if work.params.family != "discovered":
        return None
    rows = _compared_before(work, contrast, effect)
    marks = rows.filter(pc.equal(rows["stat"], "significant"))
    discovered = marks.filter(pc.greater(marks["number"], 0))
    sizes = rows.filter(pc.equal(rows["stat"], effect))
    size = {
        (row["space"], row["feature"]): row["number"]
        for row in _among(sizes, discovered).to_pylist()
    }
    results: dict[str, list[int]] = {}
    for row in discovered.to_pylist():
        results.setdefault(row["space"], []).append(row["feature"])
    features = {
        space: np.array(sorted(indices), dtype=np.int64) for space, indices in results.items()
    }
    effects = {
        space: np.array([size[space, int(index)] for index in indices], dtype=np.float64)
        for space, indices in features.items()
    }
    return SelectedFeatures(features, effects)


def _compared_before(work: Work, contrast: str, effect: str) -> pa.Table:
    """The same comparison by a needed stage on the select half."""
    every = read_comparisons(work.inputs)
    same = [
        comparison
        for comparison in every
        if comparison.name == contrast and comparison.by == work.params.by
    ]
    if not same:
        known = sorted({comparison.name for comparison in every})
        compared = f" They compared: {choices(known)}." if known else ""
        raise DataError(
            "family: `discovered` tests what an earlier stage found, and no stage among the needs "
            f"compared '{contrast}'.{nearest(contrast, known)}{compared} Add to "
            f"the needs a "
            "stage that compares the same with `half: select`."
        )
    selecting = [comparison for comparison in same if comparison.half == "select"]
    if not selecting:
        confirmed = any(comparison.half == "confirm" for comparison in same)
        where = "on the confirm half" if confirmed else "on all units"
        raise DataError(
            f"family: the stage before compared '{contrast}' {where}; units that chose a "
            "feature cannot confirm it. Set `half: select` there: this stage tests on `half: "
            "confirm`, which shares no unit with it."
        )
    if len(selecting) > 1:
        labels = sorted(comparison.describe() for comparison in selecting)
        raise DataError(
            f"family: more than one stage among the needs compared '{contrast}' on the select "
            f"half ({choices(labels)}); need one of them only."
        )
    features = rows_of(work.inputs.read("features"), selecting[0])
    stats = pa.array(["significant", effect], pa.string())
    return features.filter(pc.is_in(features["stat"], value_set=stats))


def _among(rows: pa.Table, chosen: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows["feature"], value_set=pc.unique(chosen["feature"])))


def described_only(
    features: SelectedFeatures,
    spaces: Mapping[str, Mapping[str, Any]],
    addresses: Mapping[str, str],
) -> dict[str, Mapping[str, Any]]:
    """The spaces that have candidates; one that is not described here is an error, since its
    candidates would count as untested. `addresses` names spaces for people.
    """
    for space in features.features:
        if space not in spaces:
            known_addresses = [str(facts["address"]) for facts in spaces.values()]
            raise DataError(
                f"family: the select half found features in space {addresses.get(space, space)}, "
                "of which this stage has no activations. Need the same extraction in both. Spaces "
                f"here: {choices(known_addresses) if known_addresses else 'none'}."
            )
    return {space: facts for space, facts in spaces.items() if space in features.features}
