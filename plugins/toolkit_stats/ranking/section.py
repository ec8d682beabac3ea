"""The report section `ranking`: how many features pass the published and the sound ranking, and the
best of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.features.addresses import prefixes
from toolkit.features.comparisons import Comparison, distinct_labels, rows_of
from toolkit.work import Figure, Finding, Inputs
from toolkit_stats.compare.findings import baseline_of
from toolkit_stats.ranking.sink import rankings

if TYPE_CHECKING:
    import pyarrow as pa

LISTED = 15
PUBLISHED = ("score", "pearson", "spearman", "separation", "tpr", "fpr")
SOUND = ("score_sound", "pearson_confirm", "separation_confirm", "tpr_confirm", "fpr_confirm", "q")


def figures(inputs: Inputs) -> Iterator[Figure]:
    """Two tables for each label that was ranked by."""
    if not {"features", "spaces"} <= set(inputs.tables()):
        return
    ranked = rankings(inputs)
    titles = distinct_labels(ranked)
    features = inputs.read("features")
    names = prefixes(inputs.read("spaces").to_pylist())
    for comparison in ranked:
        rows, by = rows_of(features, comparison), comparison.by
        title = by if len(ranked) == 1 else titles[comparison.id].removeprefix("trend of ")
        counts = _counts_text(rows)
        shown = f'<p class="faint">{draw.escaped(counts)}.</p>'
        yield Figure(
            f"{title}: ranked on held-out units",
            shown + _table(rows, "rank_sound", SOUND, names),
            counts,
        )
        yield Figure(
            f"{title}: ranked as published", shown + _table(rows, "rank", PUBLISHED, names), counts
        )


def findings(inputs: Inputs) -> Iterator[Finding]:
    """How many features rise with each label, and the best of the sound ranking."""
    features = inputs.read("features")
    names = prefixes(inputs.read("spaces").to_pylist())
    for number, comparison in enumerate(rankings(inputs)):
        rows = rows_of(features, comparison)
        ranked = sorted(_of(rows, "rank_sound"), key=lambda row: float(row["number"]))
        tested = sum(comparison.tested.values())
        start = f"{len(ranked):,} of {tested:,} features rise with {comparison.by}"
        clusters = sum(group.clusters for group in comparison.groups)
        if not ranked:
            yield Finding(
                sentence=f"{start} on held-out units.",
                n=clusters,
                baseline=_baseline(inputs, comparison),
                rank=40 + number,
            )
            continue
        best = ranked[0]
        score = next(
            row["number"]
            for row in _of(rows, "score_sound")
            if (row["space"], row["feature"]) == (best["space"], best["feature"])
        )
        address = f"{names[best['space']]}{best['feature']}"
        yield Finding(
            sentence=f"{start} on held-out units; the first is {address}, score {score:.2f}.",
            number=float(score),
            n=clusters,
            baseline=_baseline(inputs, comparison),
            rank=40 + number,
        )


def _baseline(inputs: Inputs, comparison: Comparison) -> str:
    """What metadata, a probe and the best feature reach between two values of the label."""
    values = [group.name for group in comparison.groups]
    for contrast in (f"{a} vs {b}" for a in values for b in values if a != b):
        if baseline := baseline_of(inputs, contrast):
            return f"{contrast}: {baseline}"
    return ""


def _counts_text(rows: pa.Table) -> str:
    """How many pass; where several SAEs of a site have the same feature, also with each such set
    counted once.
    """
    sound, published = (
        sum(row["number"] == 1 for row in _of(rows, stat)) for stat in ("passes_sound", "passes")
    )
    sound_twins, twins = (len(_of(rows, stat)) for stat in ("same_as_sound", "same_as"))
    counts = f"{sound} pass the sound filters, {published} the published ones"
    if not sound_twins + twins:
        return counts
    once = f"{sound - sound_twins} and {published - twins}"
    return (
        f"{counts}; with features that do the same in several SAEs of one site counted once: {once}"
    )


def _of(rows: pa.Table, stat: str) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    return [
        row
        for row in rows.filter(pc.equal(rows["stat"], stat)).to_pylist()
        if row["number"] is not None
    ]


def _table(rows: pa.Table, rank: str, stats: Sequence[str], names: Mapping[str, str]) -> str:
    ranked = sorted(_of(rows, rank), key=lambda row: float(row["number"]))
    if not ranked:
        return "<p>No feature passes.</p>"
    listed = [(row["space"], row["feature"]) for row in ranked[:LISTED]]
    numbers = {
        stat: {(row["space"], row["feature"]): row["number"] for row in _of(rows, stat)}
        for stat in stats
    }
    cells = [
        (
            draw.escaped(f"{names[space]}{feature}"),
            *(_cell(stat, numbers[stat].get((space, feature))) for stat in stats),
        )
        for space, feature in listed
    ]
    caption = (
        f"The first {len(listed)} of {len(ranked)} that pass; the sink ranking writes all of them "
        "with examples"
    )
    return draw.table(caption, ("feature", *(stat.replace("_", " ") for stat in stats)), cells)


def _cell(stat: str, value: float | None) -> str:
    if value is None:
        return ""
    return draw.small(value) if stat == "q" else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
