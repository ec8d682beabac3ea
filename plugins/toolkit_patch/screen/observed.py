"""Features that a screen sets to values outside of their observed range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.activations.observed import is_outside, largest_activations, outside_warning

if TYPE_CHECKING:
    import numpy as np

    from toolkit.work import Work

    from .candidates import ComparedFeatures

    Array = np.ndarray[Any, Any]


def observed_maxima(work: Work, features: ComparedFeatures) -> Array | None:
    """(K,): the largest activation of each feature in the data of the needed stages; None if no
    stage kept activations.
    """
    import numpy as np

    maxima = np.zeros(len(features))
    for space in np.unique(features.space).tolist():
        members = features.of_space(space)
        largest = largest_activations(
            work.inputs, features.spaces[space], features.feature[members].tolist()
        )
        if largest is None:
            return None
        maxima[members] = largest
    return maxima


def warn_out_of_range(work: Work, features: ComparedFeatures, values: Array) -> None:
    """Warn about features that are set to more than their largest observed value."""
    maxima = observed_maxima(work, features)
    if maxima is None:
        return
    pairs = zip(values.tolist(), maxima.tolist(), strict=True)
    above = [row for row, (value, largest) in enumerate(pairs) if is_outside(value, largest)]
    if above:
        row = above[0]
        space = features.spaces[int(features.space[row])]
        name = f"feature {int(features.feature[row])} of space {space}"
        text = outside_warning(
            len(above), len(features), name, float(values[row]), float(maxima[row])
        )
        work.report.event("warning", text=text)
