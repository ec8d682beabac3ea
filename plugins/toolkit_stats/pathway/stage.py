"""The stage `trace.pathway`: features followed through layers, for each unit and decision, and
correlations between layers.

It gives effect sizes with intervals. Where a group is small it withholds p-values and says so: see
`Pathway.p_from`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.addresses import layer_of, locate
from toolkit.errors import DataError
from toolkit.kept_positions import Activations, AtKept
from toolkit.work import Rows, Work
from toolkit_stats.compare.params import Between
from toolkit_stats.samples.labelled import Labelled, blocks, two_groups

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from toolkit.activation_matrix import Fired
    from toolkit_stats.math.correlate import Columns
    from toolkit_stats.math.means import Contrast, Effects, Moments

HELD = 4
"""Spaces whose scaled features are in memory at a time."""


class Pathway(AtKept, Between):
    """Which groups, which features to follow, and which statistics to compute."""

    order: str | None = Field(
        None,
        min_length=1,
        description="The metadata key that orders a unit's decisions; else sample ids do.",
    )
    track: tuple[str, ...] = Field(
        (), description="Addresses of the features to follow; without any, the `top` of each space."
    )
    top: int = Field(
        5,
        ge=1,
        le=100,
        description="Features of each space that are followed, the largest |d| first.",
    )
    pool: Literal["max", "mean"] = Field(
        "max", description="How several positions of a sample become one value."
    )
    links: Literal["adjacent", "all", "none"] = Field(
        "adjacent",
        description="Correlations of features: between a layer and the next one there is, all "
        "layers, or none.",
    )
    method: Literal["spearman", "pearson"] = Field(
        "spearman",
        description="Of what correlations are made: ranks (a few strong cases cannot make one), or "
        "values.",
    )
    min_count: int = Field(
        5,
        ge=2,
        description="Clusters in which a feature has to be on for its pairs to be in the family.",
    )
    keep: int = Field(1000, ge=1, le=1_000_000, description="Strongest pairs that are written.")
    components: int = Field(
        3, ge=1, le=20, description="Principal components of the followed features."
    )
    p_from: int = Field(
        10, ge=3, description="Clusters that the smaller group needs before p-values are shown."
    )


@dataclass(frozen=True)
class _PathwaySpace:
    """One space: the activations in the samples, and the test of both groups."""

    id: str
    facts: Mapping[str, Any]
    fired: Fired
    sides: tuple[Moments, Moments]
    test: Contrast
    sizes: Effects


@dataclass(frozen=True)
class _Tracked:
    """A followed feature: its space, and its column there; None if it never fired."""

    space: _PathwaySpace
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


def trace_pathway(work: Work) -> Rows:
    """Rows of `traces`, `trajectories`, `links` and `signatures`."""
    data = two_groups(work)
    spaces = list(_spaces(work, data))
    if not spaces:
        return
    tracked = _tracked(work, spaces)
    values = [feature.values(len(data.samples)) for feature in tracked]
    withheld = _withheld(data, work.params.p_from)
    yield "traces", blocks(list(_traces(work, data, tracked, values)), "traces")
    scores, loadings = _signature(data, tracked, values, work.params.components)
    yield "signatures", blocks(scores, "signatures")
    yield (
        "trajectories",
        blocks([*_trajectories(data, spaces, tracked, withheld), *loadings], "trajectories"),
    )
    if work.params.links != "none":
        yield "links", blocks(list(_links(work, data, spaces, withheld)), "links")


def _withheld(data: Labelled, least: int) -> str | None:
    """Why p-values are withheld; None if they are given."""
    count, name = min((data.clusters(number), name) for number, name in enumerate(data.names))
    if count >= least:
        return None
    return (
        f"p-values withheld: group '{name}' has {count} independent clusters, fewer than {least}. "
        "With so few, a single unit can make a feature significant, and the spread inside the "
        "group cannot be judged"
    )


# --- spaces and what is followed ------------------------------------------------------------------


def _spaces(work: Work, data: Labelled) -> Iterator[_PathwaySpace]:
    """Every space, by layer."""
    import numpy as np

    from toolkit.activation_matrix import read_space
    from toolkit_stats.math.means import effects, moments, welch

    activations = Activations(work.inputs, work.params.at)
    activations.check_looked(data.samples)
    rows = sorted(
        work.inputs.read("spaces").to_pylist(),
        key=lambda row: (_layer(row), row["address"], row["space"]),
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
        yield _PathwaySpace(
            facts["space"],
            facts,
            fired,
            (sides[0], sides[1]),
            test,
            effects(sides[0], sides[1], test.variance),
        )
        work.report.progress(done + 1, len(rows))


def _layer(row: Mapping[str, Any]) -> int:
    layer = layer_of(row)
    return -1 if layer is None else layer


def _tracked(work: Work, spaces: Sequence[_PathwaySpace]) -> list[_Tracked]:
    """The features named by address, or those of each space with the largest |d|."""
    import numpy as np

    if not work.params.track:
        return [feature for space in spaces for feature in _largest(space, work.params.top)]
    results = {}
    for address in work.params.track:
        facts, index = locate(address, [space.facts for space in spaces])
        space = next(space for space in spaces if space.id == facts["space"])
        indices = np.flatnonzero(space.fired.features == index)
        results[space.id, index] = _Tracked(
            space, index, int(indices[0]) if len(indices) else None, chosen=False
        )
    return list(results.values())


def _largest(space: _PathwaySpace, top: int) -> list[_Tracked]:
    import numpy as np

    size = np.nan_to_num(np.abs(space.test.d), nan=-1.0)
    order = [index for index in np.argsort(-size, kind="stable")[:top] if size[index] > 0]
    return [
        _Tracked(space, int(space.fired.features[index]), int(index), chosen=True)
        for index in order
    ]


# --- each unit and decision -----------------------------------------------------------------------


def _traces(
    work: Work, data: Labelled, tracked: Sequence[_Tracked], values: Sequence[Any]
) -> Iterator[dict[str, Any]]:
    decision = _decisions(work, data)
    for feature, numbers in zip(tracked, values, strict=True):
        named = {"space": feature.space.id, "feature": feature.feature}
        for index, (sample, unit) in enumerate(zip(data.samples, data.units, strict=True)):
            yield {
                **named,
                "sample": sample,
                "unit": unit,
                "decision": decision[sample],
                "value": float(numbers[index]),
            }


def _decisions(work: Work, data: Labelled) -> dict[str, int]:
    """The number of each sample within its unit, from 0."""
    key: dict[str, float] = dict.fromkeys(data.samples, 0.0)
    if work.params.order is not None:
        from toolkit_stats.samples.metadata import read_keys

        results = {
            metadata.name: metadata
            for metadata in read_keys(work.inputs.read("sample_meta"), data.samples, ())
        }
        if (
            work.params.order not in results
            or not results[work.params.order].numeric
            or None in results[work.params.order].values
        ):
            known = (
                ", ".join(
                    name
                    for name, metadata in results.items()
                    if metadata.numeric and None not in metadata.values
                )
                or "none"
            )
            raise DataError(
                f"order: not every sample has a number '{work.params.order}'. Keys with a number "
                f"for each sample: {known}."
            )
        key = {
            sample: float(value or 0.0)
            for sample, value in zip(data.samples, results[work.params.order].values, strict=True)
        }
    units: dict[str, list[str]] = {}
    for sample, unit in zip(data.samples, data.units, strict=True):
        units.setdefault(unit, []).append(sample)
    ordered = [
        sorted(samples, key=lambda sample: (key[sample], sample)) for samples in units.values()
    ]
    return {sample: number for samples in ordered for number, sample in enumerate(samples)}


# --- groups ---------------------------------------------------------------------------------------


def _trajectories(
    data: Labelled,
    spaces: Sequence[_PathwaySpace],
    tracked: Sequence[_Tracked],
    withheld: str | None,
) -> Iterator[dict[str, Any]]:
    """The mean in each group and the difference between them, with intervals over clusters."""
    import numpy as np

    from toolkit.corrections import benjamini_hochberg

    family = sum(int(space.facts["width"]) for space in spaces)
    q = benjamini_hochberg(np.concatenate([space.test.p for space in spaces]), family)
    start = dict(
        zip(
            (space.id for space in spaces),
            np.cumsum([0, *(len(space.test.p) for space in spaces)]),
            strict=False,
        )
    )
    for feature in tracked:
        if feature.column is None:
            yield from (
                _trajectory(feature, name, "mean", (0.0, 0.0, 0.0), "never fired")
                for name in data.names
            )
            continue
        index = feature.column
        for name, side in zip(data.names, feature.space.sides, strict=True):
            size = f"{side.samples} samples in {side.clusters} clusters"
            yield _trajectory(
                feature,
                name,
                "mean",
                _around(side.mean[index], side.variance[index], side.clusters - 1),
                size,
            )
        test, sizes = feature.space.test, feature.space.sizes
        p = (
            {}
            if withheld
            else {"p": float(test.p[index]), "q": float(q[start[feature.space.id] + index])}
        )
        yield {
            **_trajectory(
                feature,
                data.names[0],
                "d",
                (sizes.d[index], sizes.d_low[index], sizes.d_high[index]),
                "" if withheld else f"bh over {family}",
            ),
            "against": data.names[1],
            "chosen": feature.chosen,
            "withheld": withheld,
            **p,
        }


def _trajectory(
    tracked: _Tracked, group: str, stat: str, numbers: tuple[float, float, float], text: str
) -> dict[str, Any]:
    named = {
        "space": tracked.space.id,
        "feature": tracked.feature,
        "group": group,
        "against": None,
        "stat": stat,
        "chosen": None,
        "withheld": None,
        "text": text or None,
        "p": None,
        "q": None,
    }
    known = [None if number != number else float(number) for number in numbers]
    return {**named, **dict(zip(("value", "low", "high"), known, strict=True))}


def _around(value: float, variance: float, df: float) -> tuple[float, float, float]:
    """A t interval."""
    from scipy.special import stdtrit

    reach = -float(stdtrit(df, 0.025)) * float(variance) ** 0.5
    return value, value - reach, value + reach


# --- features that go together --------------------------------------------------------------------


def _links(
    work: Work, data: Labelled, spaces: Sequence[_PathwaySpace], withheld: str | None
) -> Iterator[dict[str, Any]]:
    """The strongest correlations between features of different layers, over clusters."""
    from toolkit_stats.math.correlate import Strongest, columns, interval, means

    params, strongest = work.params, Strongest(work.params.keep)
    space_pairs = _pairs(spaces, params.links)
    scaled: dict[str, Columns] = {}
    features: dict[str, Any] = {}
    for number, pair in enumerate(space_pairs):
        for space in pair:
            if space.id not in scaled:
                while len(scaled) >= HELD:  # drop the oldest space that is not in this pair
                    del scaled[next(id for id in scaled if id not in (pair[0].id, pair[1].id))]
                observed = means(space.fired.matrix, data.cluster)
                scaled[space.id] = columns(
                    observed, space.fired.features, params.method, params.min_count
                )
                features[space.id] = scaled[space.id].features
        strongest.add(number, scaled[pair[0].id], scaled[pair[1].id])
        work.report.progress(number + 1, len(space_pairs))
    observations = int(data.cluster.max()) + 1
    pairs, p, q = strongest.strongest(observations, max(strongest.tested, 1))
    low, high = interval(pairs.r, observations, params.method)
    method = f"{params.method} over {observations} clusters; " + (
        withheld or f"bh over {strongest.tested} pairs"
    )
    for index in range(len(pairs.r)):
        a, b = space_pairs[int(pairs.spaces[index])]
        yield {
            "space": a.id,
            "feature": int(features[a.id][pairs.first[index]]),
            "other_space": b.id,
            "other_feature": int(features[b.id][pairs.second[index]]),
            "r": float(pairs.r[index]),
            "low": float(low[index]),
            "high": float(high[index]),
            "p": None if withheld else float(p[index]),
            "q": None if withheld else float(q[index]),
            "units": observations,
            "text": method,
        }


def _pairs(
    spaces: Sequence[_PathwaySpace], which: str
) -> list[tuple[_PathwaySpace, _PathwaySpace]]:
    """Pairs of spaces of different layers, the lower first; `adjacent`: of a layer and the next one
    that there is.
    """
    layers = sorted({_layer(space.facts) for space in spaces})
    following = dict(itertools.pairwise(layers))
    return [
        (a, b)
        for a in spaces
        for b in spaces
        if (
            _layer(a.facts) < _layer(b.facts)
            if which == "all"
            else following.get(_layer(a.facts)) == _layer(b.facts)
        )
    ]


# --- decisions as few numbers ---------------------------------------------------------------------


def _signature(
    data: Labelled, tracked: Sequence[_Tracked], values: Sequence[Any], count: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The scores of each decision on the principal components of the followed features, and their
    loadings.
    """
    import numpy as np

    from toolkit_stats.math.correlate import components

    if not tracked:
        return [], []
    scores, loadings, share = components(np.column_stack(values), count)
    placed = [
        {
            "sample": sample,
            "unit": unit,
            "component": index,
            "score": float(scores[row, index]),
            "share": float(share[index]),
        }
        for row, (sample, unit) in enumerate(zip(data.samples, data.units, strict=True))
        for index in range(len(share))
    ]
    made = [
        {
            **_trajectory(
                feature,
                f"pc{index + 1}",
                "loading",
                (float(loadings[index, number]),) * 3,
                f"share {share[index]:.4f}",
            ),
            "low": None,
            "high": None,
        }
        for index in range(len(share))
        for number, feature in enumerate(tracked)
    ]
    return placed, made
