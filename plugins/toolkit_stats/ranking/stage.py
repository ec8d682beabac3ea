"""The stage `compare.ranking`: which features rise with an ordinal label, ranked as published and
ranked soundly.

The published score is computed on all samples and its threshold on the very samples that it judges;
nothing is corrected. The sound one chooses on one half of the units, measures on the other, bounds
the separation and corrects over every feature of every space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.activations.kept_positions import recorded
from toolkit.errors import DataError
from toolkit.features.comparisons import Comparison
from toolkit.statistics.randomness import half
from toolkit.tables import arrow_schema, written
from toolkit.work import Rows, Work
from toolkit_stats.ranking.params import Ranking
from toolkit_stats.samples.ordinal_scale import OrdinalScale, read_scale, reader

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from toolkit_stats.math.duplicates import Twin
    from toolkit_stats.math.ordinal import Ordinal


@dataclass(frozen=True)
class _RankedSpace:
    """The features of a space that fired and vary, with their statistics on all samples and on both
    halves.

    `columns` are the values of those that may pass; `candidates` are their indices.
    """

    facts: Mapping[str, Any]
    features: npt.NDArray[np.int64]
    every: Ordinal
    select: Ordinal
    confirm: Ordinal
    p: npt.NDArray[np.float64]
    candidates: npt.NDArray[np.int64]
    columns: Any


def compare_ranking(work: Work) -> Rows:
    """Rows of `features`; their group is the label's key, that of a mean the label's value."""
    import numpy as np

    from toolkit.statistics.corrections import benjamini_hochberg

    scale = read_scale(work)
    halves = _halves(work, scale)
    spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    results = list(_measured(work, scale, halves, spaces))
    family = sum(int(row["width"]) for row in spaces.values())
    if not results:
        return
    ends = np.cumsum([len(result.features) for result in results])[:-1]
    q = np.split(benjamini_hochberg(np.concatenate([result.p for result in results]), family), ends)
    passes = [_passes(result.every, work.params) for result in results]
    sound = [
        _sound(result, q_values, work.params) for result, q_values in zip(results, q, strict=True)
    ]
    scores, sound_scores = (
        [result.every.score() for result in results],
        [_sound_score(result.confirm) for result in results],
    )
    ranks, sound_ranks = _ranks(scores, passes, ends), _ranks(sound_scores, sound, ends)
    written = _chosen_for_writing(
        scores,
        sound_scores,
        [a | b for a, b in zip(passes, sound, strict=True)],
        ends,
        work.params.rows,
    )
    twins = {
        "same_as": _twins(results, passes, ranks),
        "same_as_sound": _twins(results, sound, sound_ranks),
    }
    comparison = _recorded(work, scale, halves, spaces)
    yield "comparisons", comparison.table()
    for index, result in enumerate(results):
        columns = {
            **_published(result.every, scores[index], passes[index], ranks[index]),
            **_confirmed(result, sound_scores[index], sound[index], sound_ranks[index]),
            "p": result.p,
            "q": q[index],
        }
        yield "features", _rows(result, columns, comparison, work.params, written[index])
        for stat, alike in twins.items():
            yield from _twin_rows(result, stat, alike[index], comparison)


def _recorded(
    work: Work,
    scale: OrdinalScale,
    halves: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    spaces: Mapping[str, Mapping[str, Any]],
) -> Comparison:
    """The row of table `comparisons`; samples of the confirm half are `shared` if the select half
    has their prompts.
    """
    import numpy as np

    used = np.zeros(len(scale.samples), dtype=bool)
    used[np.concatenate(halves)] = True
    return Comparison(
        part="compare.ranking",
        test="ranking",
        by=work.params.by,
        effect="score_sound",
        groups=tuple(scale.group(float(value), used) for value in scale.labels),
        half="confirm",
        positions=recorded(work.params.at),
        unit="unit",
        cluster="prompt",
        family="all",
        tested={space: int(row["width"]) for space, row in spaces.items()},
        addresses={space: str(row["address"]) for space, row in spaces.items()},
        correction="bh",
        alpha=work.params.alpha,
        seed=work.seed,
    ).with_id(work.step)


def _halves(work: Work, scale: OrdinalScale) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The samples of each half of the units; prompts that both halves have are used only in the
    select half.
    """
    import numpy as np

    from toolkit_stats.samples.labelled import FEWEST

    halves = np.array([half(work.seed, unit) for unit in scale.units])
    seen = {prompt for prompt, part in zip(scale.prompts, halves, strict=True) if part == "select"}
    fresh = np.array([prompt not in seen for prompt in scale.prompts])
    parts = np.flatnonzero(halves == "select"), np.flatnonzero((halves == "confirm") & fresh)
    present = [value for value in scale.labels if value in scale.label]
    for name, rows in zip(("select", "confirm"), parts, strict=True):
        for value in present:
            count = len(set(scale.cluster[rows][scale.label[rows] == value].tolist()))
            least = FEWEST if value in (scale.labels[0], scale.labels[-1]) else 1
            if count < least:
                raise DataError(
                    f"by: the {name} half of the units has {count} clusters with {work.params.by} "
                    f"{written(value)} ({scale.describe()}); at least {least} "
                    f"{'are' if least > 1 else 'is'} needed in each half. Give more samples of "
                    "this label."
                )
    _check_spread(work, scale, parts[1])
    return parts


def _check_spread(work: Work, scale: OrdinalScale, confirm: npt.NDArray[np.int64]) -> None:
    """Refuse clusters that all have the same mean label: nothing can correlate with it."""
    import numpy as np

    cluster = np.unique(scale.cluster[confirm], return_inverse=True)[1]
    means = np.bincount(cluster, weights=scale.label[confirm]) / np.bincount(cluster)
    if np.ptp(means) <= 1e-12 * np.abs(means).max():
        raise DataError(
            f"by: each of the {len(means)} clusters of the confirm half has the same mean "
            f"{work.params.by} ({written(means[0])}); a ranking follows the label from cluster to "
            "cluster. Give units (and prompts) that differ in it."
        )


def _measured(
    work: Work,
    scale: OrdinalScale,
    halves: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    spaces: Mapping[str, Mapping[str, Any]],
) -> Iterator[_RankedSpace]:
    import numpy as np

    from toolkit.activations.matrix import read_space
    from toolkit_stats.math.ordinal import describe, trend_test, varying

    rows_of = reader(work, scale)
    work.report.phase("compute")
    for done, (space, facts) in enumerate(sorted(spaces.items())):
        named = f"{space} ({facts['address']})"
        fired = read_space(rows_of(space, named), scale.samples, facts["width"], "max", named)
        varies = varying(fired.matrix)
        matrix, (select, confirm) = fired.matrix[:, varies], halves
        chosen = describe(matrix[select], scale.label[select], scale.labels)
        described = describe(matrix[confirm], scale.label[confirm], scale.labels, chosen.threshold)
        cluster = np.unique(scale.cluster[confirm], return_inverse=True)[1]
        p = trend_test(matrix[confirm], scale.label[confirm], cluster)
        every = describe(matrix, scale.label, scale.labels)
        maybe = np.flatnonzero(_passes(every, work.params) | _holds(chosen, described, work.params))
        yield _RankedSpace(
            facts, fired.features[varies], every, chosen, described, p, maybe, matrix[:, maybe]
        )
        work.report.progress(done + 1, len(spaces))


# --- filters and ranks ----------------------------------------------------------------------------


def _passes(ordinal: Ordinal, params: Ranking) -> npt.NDArray[np.bool_]:
    """The published filters."""
    r, tpr, fpr = params.filters()
    return ordinal.rising & (ordinal.pearson >= r) & (ordinal.tpr >= tpr) & (ordinal.fpr <= fpr)


def _sound(
    space: _RankedSpace, q: npt.NDArray[np.float64], params: Ranking
) -> npt.NDArray[np.bool_]:
    """Features that pass on both halves and survive the correction."""
    return _holds(space.select, space.confirm, params) & (q <= params.alpha)


def _holds(select: Ordinal, confirm: Ordinal, params: Ranking) -> npt.NDArray[np.bool_]:
    """Features that pass on the select half and hold on the confirm half, where the FPR filter is
    effective.
    """
    r, tpr, fpr = params.filters()
    return (
        _passes(select, params)
        & (confirm.pearson >= r)
        & (confirm.tpr >= tpr)
        & (confirm.fpr <= fpr)
    )


def _sound_score(ordinal: Ordinal) -> npt.NDArray[np.float64]:
    """The score with the published weights and a bounded separation, on the confirm half."""
    from toolkit_stats.math.ordinal import bounded

    return (
        0.4 * ordinal.pearson
        + 0.3 * bounded(ordinal.separation)
        + 0.3 * (ordinal.tpr - ordinal.fpr)
    )


def _ranks(scores: list[Any], passes: list[Any], ends: Any) -> list[npt.NDArray[np.float64]]:
    """Ranks from 1 of the features that pass, NaN for the others; ties are broken by space and
    feature.
    """
    import numpy as np

    score, passing = np.concatenate(scores), np.concatenate(passes)
    order = np.flatnonzero(passing)[np.argsort(-score[passing], kind="stable")]
    rank = np.full(len(score), np.nan)
    rank[order] = np.arange(1, len(order) + 1)
    return np.split(rank, ends)


def _chosen_for_writing(
    scores: list[Any], sound: list[Any], passing: list[Any], ends: Any, rows: int
) -> list[npt.NDArray[np.bool_]]:
    """Which features are written."""
    import numpy as np

    keep = np.concatenate(passing)
    for values in (scores, sound):
        known = np.nan_to_num(np.concatenate(values), nan=-np.inf)
        keep[np.argsort(-known, kind="stable")[:rows]] = True
    return np.split(keep, ends)


def _twins(results: list[_RankedSpace], passes: list[Any], ranks: list[Any]) -> list[list[Twin]]:
    """By space, the passing features that duplicate a better one in another SAE of the site."""
    import numpy as np

    from toolkit_stats.math.duplicates import twins

    def columns(index: int) -> Any:
        return results[index].columns[
            :, np.searchsorted(results[index].candidates, np.flatnonzero(passes[index]))
        ]

    features = [result.features[mask] for result, mask in zip(results, passes, strict=True)]
    order = [rank[mask][None, :] for rank, mask in zip(ranks, passes, strict=True)]
    return twins([result.facts for result in results], features, order, columns)


# --- rows -----------------------------------------------------------------------------------------


def _published(ordinal: Ordinal, score: Any, passes: Any, rank: Any) -> dict[str, Any]:
    names = ("pearson", "spearman", "separation", "threshold", "tpr", "fpr")
    values = {
        "score": score,
        "monotonic": ordinal.rising.astype(float),
        "passes": passes.astype(float),
        "rank": rank,
    }
    return {name: getattr(ordinal, name) for name in names} | values


def _confirmed(space: _RankedSpace, score: Any, passes: Any, rank: Any) -> dict[str, Any]:
    from toolkit_stats.math.ordinal import bounded

    return {
        "pearson_confirm": space.confirm.pearson,
        "spearman_confirm": space.confirm.spearman,
        "separation_confirm": bounded(space.confirm.separation),
        "threshold_select": space.select.threshold,
        "tpr_confirm": space.confirm.tpr,
        "fpr_confirm": space.confirm.fpr,
        "score_sound": score,
        "passes_sound": passes.astype(float),
        "rank_sound": rank,
    }


def _twin_rows(space: _RankedSpace, stat: str, alike: list[Twin], comparison: Comparison) -> Rows:
    """Rows `same_as`: the twin's feature as the number, its space as the text."""
    import pyarrow as pa

    fixed = {
        "space": space.facts["space"],
        "stat": stat,
        "group": comparison.by,
        "comparison": comparison.id,
    }
    rows = [
        {**fixed, "feature": feature, "number": float(number), "text": of}
        for feature, of, number in alike
    ]
    if rows:
        yield "features", pa.Table.from_pylist(rows, schema=arrow_schema("features"))


def _rows(
    ranked_space: _RankedSpace,
    columns: Mapping[str, Any],
    comparison: Comparison,
    params: Ranking,
    keep: Any,
) -> pa.Table:
    import pyarrow as pa

    features, space = ranked_space.features[keep], ranked_space.facts["space"]

    def block(stat: str, group: str, numbers: Any) -> pa.Table:
        return _block(space, features, stat, group, numbers[keep], comparison.id)

    blocks = [block(stat, params.by, numbers) for stat, numbers in columns.items()]
    for label, means in zip(params.labels, ranked_space.every.means, strict=True):
        blocks.append(block("mean", mean_group(params.by, written(label)), means))
    return pa.concat_tables(blocks)


def mean_group(by: str, label: str) -> str:
    """The group of the mean of a label's samples."""
    return f"{by} {label}"


def _block(
    space: str, features: Any, stat: str, group: str, numbers: Any, comparison: str
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    def repeated(word: str | None) -> pa.Array:
        return pa.repeat(pa.scalar(word, pa.string()), len(features))

    columns = {
        "space": repeated(space),
        "feature": pa.array(features.astype(np.uint32)),
        "stat": repeated(stat),
        "group": repeated(group),
        "number": pa.array(numbers, mask=np.isnan(numbers)),
        "text": repeated(None),
        "comparison": repeated(comparison),
    }
    return pa.table(columns, schema=arrow_schema("features"))
