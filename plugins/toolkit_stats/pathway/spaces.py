"""The spaces of a pathway with their tests, and the features that are followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.activations.kept_positions import Activations
from toolkit.features.addresses import layer_of, locate
from toolkit.work import Work
from toolkit_stats.samples.labelled import Labelled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from toolkit.activations.matrix import Fired
    from toolkit_stats.math.means import Contrast, Effects, Moments


@dataclass(frozen=True)
class PathwaySpace:
    """One space: the activations in the samples, and the test of both groups."""

    id: str
    facts: Mapping[str, Any]
    fired: Fired
    sides: tuple[Moments, Moments]
    test: Contrast
    sizes: Effects


@dataclass(frozen=True)
class FollowedFeature:
    """A followed feature: its space, and its column there; None if it never fired."""

    space: PathwaySpace
    feature: int
    column: int | None
    chosen: bool
    """Whether its |d| on these very units is why it is followed."""

    def values(self, samples: int) -> npt.NDArray[np.float64]:
        """Its activation in each sample."""
        import numpy as np

        if self.column is None:
            return np.zeros(samples)
        return np.asarray(self.space.fired.matrix[:, [self.column]].toarray()[:, 0])


def pathway_spaces(work: Work, data: Labelled) -> Iterator[PathwaySpace]:
    """Every space, by layer."""
    import numpy as np

    from toolkit.activations.matrix import read_space
    from toolkit_stats.math.means import effects, moments, welch

    activations = Activations(work.inputs, work.params.at)
    activations.check_looked(data.samples)
    rows = sorted(
        work.inputs.read("spaces").to_pylist(),
        key=lambda row: (layer_number(row), row["address"], row["space"]),
    )
    work.report.phase("compute")
    for done, facts in enumerate(rows):
        named = f"{facts['space']} ({facts['address']})"
        entries = activations.of(facts["space"], data.samples, named)
        fired = read_space(entries, data.samples, facts["width"], work.params.pool, named)
        sides = []
        for number in range(2):
            indices = np.flatnonzero(data.label == number)
            sides.append(
                moments(
                    fired.matrix[indices], np.unique(data.cluster[indices], return_inverse=True)[1]
                )
            )
        test = welch(sides[0], sides[1])
        yield PathwaySpace(
            facts["space"],
            facts,
            fired,
            (sides[0], sides[1]),
            test,
            effects(sides[0], sides[1], test.variance),
        )
        work.report.progress(done + 1, len(rows))


def layer_number(row: Mapping[str, Any]) -> int:
    layer = layer_of(row)
    return -1 if layer is None else layer


def followed_features(work: Work, spaces: Sequence[PathwaySpace]) -> list[FollowedFeature]:
    """The features named by address, or those of each space with the largest |d|."""
    import numpy as np

    if not work.params.track:
        return [feature for space in spaces for feature in _largest(space, work.params.top)]
    results = {}
    for address in work.params.track:
        facts, index = locate(address, [space.facts for space in spaces])
        space = next(space for space in spaces if space.id == facts["space"])
        indices = np.flatnonzero(space.fired.features == index)
        results[space.id, index] = FollowedFeature(
            space, index, int(indices[0]) if len(indices) else None, chosen=False
        )
    return list(results.values())


def _largest(space: PathwaySpace, top: int) -> list[FollowedFeature]:
    import numpy as np

    size = np.nan_to_num(np.abs(space.test.d), nan=-1.0)
    order = [index for index in np.argsort(-size, kind="stable")[:top] if size[index] > 0]
    return [
        FollowedFeature(space, int(space.fired.features[index]), int(index), chosen=True)
        for index in order
    ]
