"""The stage `trace.pathway`: features followed through layers, for each unit and decision, and
correlations between layers.

It gives effect sizes with intervals. Where a group is small it withholds p-values and says so: see
`Pathway.p_from`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.work import Rows, Work
from toolkit_stats.pathway.links import link_rows
from toolkit_stats.pathway.spaces import (
    FollowedFeature,
    PathwaySpace,
    followed_features,
    pathway_spaces,
)
from toolkit_stats.samples.labelled import Labelled, blocks, two_groups

if TYPE_CHECKING:
    pass


def trace_pathway(work: Work) -> Rows:
    """Rows of `traces`, `trajectories`, `links` and `signatures`."""
    data = two_groups(work)
    spaces = list(pathway_spaces(work, data))
    if not spaces:
        return
    tracked = followed_features(work, spaces)
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
        yield "links", blocks(list(link_rows(work, data, spaces, withheld)), "links")


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


# --- each unit and decision -----------------------------------------------------------------------


def _traces(
    work: Work, data: Labelled, tracked: Sequence[FollowedFeature], values: Sequence[Any]
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
    spaces: Sequence[PathwaySpace],
    tracked: Sequence[FollowedFeature],
    withheld: str | None,
) -> Iterator[dict[str, Any]]:
    """The mean in each group and the difference between them, with intervals over clusters."""
    import numpy as np

    from toolkit.statistics.corrections import benjamini_hochberg

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
            for name in data.names:
                yield _trajectory(feature, name, "mean", (0.0, 0.0, 0.0), "never fired")
            continue
        yield from _means(data, feature, feature.column)
        q_value = float(q[start[feature.space.id] + feature.column])
        yield _difference(data, feature, feature.column, q_value, family, withheld)


def _means(data: Labelled, feature: FollowedFeature, column: int) -> Iterator[dict[str, Any]]:
    """A feature's mean in each group."""
    for name, side in zip(data.names, feature.space.sides, strict=True):
        interval = _around(side.mean[column], side.variance[column], side.clusters - 1)
        size = f"{side.samples} samples in {side.clusters} clusters"
        yield _trajectory(feature, name, "mean", interval, size)


def _difference(
    data: Labelled,
    feature: FollowedFeature,
    column: int,
    q: float,
    family: int,
    withheld: str | None,
) -> dict[str, Any]:
    """The difference between both groups, with p and q unless they are withheld."""
    sizes, test = feature.space.sizes, feature.space.test
    interval = (sizes.d[column], sizes.d_low[column], sizes.d_high[column])
    text = "" if withheld else f"bh over {family}"
    return {
        **_trajectory(feature, data.names[0], "d", interval, text),
        "against": data.names[1],
        "chosen": feature.chosen,
        "withheld": withheld,
        **({} if withheld else {"p": float(test.p[column]), "q": q}),
    }


def _trajectory(
    tracked: FollowedFeature, group: str, stat: str, numbers: tuple[float, float, float], text: str
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


# --- decisions as few numbers ---------------------------------------------------------------------


def _signature(
    data: Labelled, tracked: Sequence[FollowedFeature], values: Sequence[Any], count: int
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
