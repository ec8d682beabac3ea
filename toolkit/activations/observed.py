"""The observed range of features: the largest activation of each in the data of the needed stages.
The model never produced values outside it, so interventions warn when they set one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.statistics.arrays import Floats
    from toolkit.work import Inputs

ROUNDING = 1e-6
"""The relative excess that counts as rounding."""


def largest_activations(inputs: Inputs, space: str, features: Sequence[int]) -> Floats | None:
    """The largest observed activation of each feature of a space, 0 for those that never fired;
    None if no needed stage kept activations of the space.
    """
    import numpy as np
    import pyarrow.compute as pc

    if "activations" not in inputs.tables():
        return None
    activations = inputs.read("activations")
    rows = activations.filter(pc.equal(activations["space"], space))
    if not rows.num_rows:
        return None
    listed, values = (
        rows[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        for column in ("features", "values")
    )
    feature_ids = np.asarray(features, dtype=np.int64)
    largest = np.zeros(int(max(listed.max(initial=0), feature_ids.max(initial=0))) + 1)
    np.maximum.at(largest, listed.astype(np.int64), values)
    return np.asarray(largest[feature_ids])


def is_outside(value: float, largest: float) -> bool:
    """Whether a value is above the largest observed one, by more than rounding."""
    return value > largest * (1 + ROUNDING)


def outside_warning(count: int, total: int, feature: str, value: float, largest: float) -> str:
    """The warning about features that are set to values outside the observed range, with an
    example.
    """
    return (
        f"{count} of {total} features are set to values outside of the observed range: {feature} "
        f"to {value:.4g}, where at most {largest:.4g} was seen. The model never had such values; "
        "read these effects with care."
    )
