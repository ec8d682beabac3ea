"""The observed range of features: the model never had values outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

    if "activations" not in work.inputs.tables():
        return None
    rows = work.inputs.read("activations")
    maxima = np.zeros(len(features))
    names = rows["space"].to_numpy(zero_copy_only=False)
    for space in np.unique(features.space).tolist():
        members = features.of_space(space)
        space_rows = rows.filter(names == features.spaces[space])
        listed = space_rows["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = space_rows["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        largest = np.zeros(int(max(listed.max(initial=0), features.feature[members].max())) + 1)
        np.maximum.at(largest, listed.astype(np.int64), values)
        maxima[members] = largest[features.feature[members]]
    return maxima


def warn_out_of_range(work: Work, features: ComparedFeatures, values: Array) -> None:
    """Warn about features that are set to more than their largest observed value."""
    maxima = observed_maxima(work, features)
    if maxima is None:
        return
    above = (values > maxima * (1 + 1e-6)).nonzero()[0].tolist()
    if above:
        example = above[0]
        work.report.event(
            "warning",
            text=f"{len(above)} of {len(features)} features are set to values outside of the "
            f"observed range: feature {int(features.feature[example])} of space "
            f"{features.spaces[int(features.space[example])]} to {values[example]:.4g}, "
            f"where at most {maxima[example]:.4g} was seen. The model never had such values; read "
            "these effects with care.",
        )
