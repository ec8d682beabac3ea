"""`toolkit query features`, `verdicts` and `effects`: what was measured and concluded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from toolkit._cli._text import MAX_NUMBER
from toolkit._cli.query.answers import Answer, QueryOptions, answered, of_spaces, open_run
from toolkit._query.feature_rows import PLACE, pivoted, stat_heads
from toolkit._query.ranking import check_stats, rank, why_none
from toolkit._query.run import Run, first_rows, listing, sorted_by

VERDICTS = ("contrast", "outcome", "verdict", "effect", "low", "high", "p", "q", "reason")
EFFECTS = ("arm", "outcome", "probability", "effect", "low", "high", "p", "q", "kl")
SUMMARY = "*"
"""The `sample` of a row that summarises all samples."""


@click.command("features")
@of_spaces
@click.option("--stage", metavar="ID", help="Only rows of this stage.")
@click.option(
    "--stat",
    "stats",
    multiple=True,
    metavar="STAT",
    help="Show only this statistic; may be repeated. Default: the main ones of each test, and "
    "all with --json.",
)
@click.option(
    "--by",
    metavar="STAT",
    help="Sort by this statistic. Default: the sound rank of a ranking, else q and the size of "
    "the effect.",
)
@click.option("--significant", is_flag=True, help="Only significant differences.")
@answered
def features(
    options: QueryOptions,
    space: str | None,
    layer: int | None,
    stage: str | None,
    stats: tuple[str, ...],
    by: str | None,
    significant: bool,
) -> Answer:
    """Show the statistics of features. One line per feature and comparison: statistics, tests,
    verdicts.
    """
    run = open_run(options)
    spaces = run.spaces_of(space, layer)
    where = {} if spaces is None else {"space": spaces}
    ranked = rank(run, stage, where, by)
    check_stats(run, stage, where, stats)
    chosen = ranked.significant() if significant else ranked
    why = "" if chosen.height else why_none(run, ranked, stage, spaces is not None)
    if not ranked.height:
        return Answer(("address", "stage"), [], 0, why)
    rows = pivoted(run, ranked.compared, chosen.rows(0, options.k), stage)
    heads = stat_heads(rows, stats, options.form, by)
    return Answer(heads, rows, chosen.height, why, shared=("stage", "contrast"))


@click.command("verdicts")
@click.option("--verdict", metavar="VERDICT", help="Only this verdict, such as causal.")
@click.option(
    "--layer", type=click.IntRange(0, MAX_NUMBER), metavar="N", help="Only features of this layer."
)
@click.option("--feature", metavar="ADDRESS", help="Only this feature.")
@click.option("--stage", metavar="ID", help="Only rows of this stage.")
@click.option(
    "--control",
    is_flag=True,
    help="Show the verdicts on the same features with random decoder rows instead.",
)
@answered
def verdicts(
    options: QueryOptions,
    verdict: str | None,
    layer: int | None,
    feature: str | None,
    stage: str | None,
    control: bool,
) -> Answer:
    """Show what was concluded about screened features, most certain first."""
    import pyarrow.compute as pc

    run = open_run(options)
    heads = ("address", "stage", *VERDICTS)
    where = _of_layer(run, layer) | _of_feature(run, feature)
    table = "control_verdicts" if control else "verdicts"
    chosen = run.read_stages(table, stage, where)
    known = chosen["verdict"].unique().to_pylist()
    if verdict is not None:
        chosen = chosen.filter(pc.equal(chosen["verdict"], verdict))
    if not chosen.num_rows:
        there = f" Verdicts: {listing(sorted(known))}." if known else ""
        why = f"No feature has this verdict.{there}" if known else run.why(table, stage)
        return Answer(heads, [], 0, why)
    sized = run.placed(chosen).append_column("size", pc.abs(chosen["effect"]))
    ordered = sorted_by(sized, [("q", True), ("size", False), *PLACE, ("outcome", True)])
    rows = [
        {**row, "address": run.label(row["space"], row["feature"])}
        for row in first_rows(ordered, options.k)
    ]
    return Answer(heads, rows, chosen.num_rows, "", shared=("stage", "contrast", "outcome"))


@click.command("effects")
@click.option("--feature", metavar="ADDRESS", help="Only this feature.")
@click.option(
    "--layer", type=click.IntRange(0, MAX_NUMBER), metavar="N", help="Only features of this layer."
)
@click.option("--verdict", metavar="VERDICT", help="Only features with this verdict.")
@click.option("--arm", metavar="ARM", help="Only this arm.")
@click.option("--stage", metavar="ID", help="Only rows of this stage.")
@click.option(
    "--samples", is_flag=True, help="Show one row per sample instead of the summary over samples."
)
@answered
def effects(
    options: QueryOptions,
    feature: str | None,
    layer: int | None,
    verdict: str | None,
    arm: str | None,
    stage: str | None,
    samples: bool,
) -> Answer:
    """Show what interventions did, most certain first."""
    import pyarrow.compute as pc

    run = open_run(options)
    heads = ("address", "stage", *(("sample",) if samples else ()), *EFFECTS)
    where = (
        _of_layer(run, layer)
        | _of_feature(run, feature)
        | ({} if arm is None else {"arm": [arm]})
        | ({} if samples else {"sample": [SUMMARY]})
    )
    chosen = run.read_stages("effects", stage, where)
    chosen = chosen if verdict is None else _with_verdict(run, chosen, verdict)
    chosen = chosen.filter(pc.not_equal(chosen["sample"], SUMMARY)) if samples else chosen
    if not chosen.num_rows:
        return Answer(heads, [], 0, _why_no_effects(run, stage, feature, arm, samples))
    sized = run.placed(chosen).append_column("size", pc.abs(chosen["effect"]))
    ordered = sorted_by(
        sized,
        [("q", True), ("size", False), *PLACE, ("arm", True), ("outcome", True), ("sample", True)],
    )
    rows = [
        {**row, "address": run.label(row["space"], row["feature"])}
        for row in first_rows(ordered, options.k)
    ]
    return Answer(heads, rows, chosen.num_rows, "", shared=("stage",))


def _of_feature(run: Run, address: str | None) -> dict[str, Sequence[Any]]:
    if address is None:
        return {}
    space, index = run.feature(address)
    return {"space": [space], "feature": [index]}


def _of_layer(run: Run, layer: int | None) -> dict[str, Sequence[Any]]:
    spaces = run.spaces_of(None, layer)
    return {} if spaces is None else {"space": list(spaces)}


def _with_verdict(run: Run, effects: Any, verdict: str) -> Any:
    """The rows of features that have this verdict in any comparison."""
    import pyarrow.compute as pc

    judged = run.read_stages("verdicts", None, None)
    named = judged.filter(pc.equal(judged["verdict"], verdict)).select(["space", "feature"])
    keys = named.group_by(["space", "feature"]).aggregate([])
    return effects.join(keys, keys=["space", "feature"], join_type="inner")


def _check_arm(known: Sequence[str], arm: str | None) -> None:
    from toolkit.errors import BadInput, choices, nearest

    if arm is not None and known and arm not in known:
        raise BadInput(
            f"The effects have no arm '{arm}'.{nearest(arm, known)} Arms: {choices(known)}."
        )


def _why_no_effects(
    run: Run, stage: str | None, feature: str | None, arm: str | None, samples: bool
) -> str:
    everything = run.read_stages("effects", stage, None, ["space", "feature"])
    if not everything.num_rows:
        return run.why("effects", stage)
    of_feature = run.read_stages("effects", stage, _of_feature(run, feature), ["arm"])
    if not of_feature.num_rows:
        pairs = run.placed(everything.group_by(["space", "feature", "stage"]).aggregate([]))
        known = dict.fromkeys(
            run.label(row["space"], row["feature"]) for row in sorted_by(pairs, PLACE).to_pylist()
        )
        return (
            f"Run {run.id} has no effects of this feature. It has effects of {len(known):,} "
            f"features: {listing(list(known))}."
        )
    _check_arm(of_feature["arm"].unique().to_pylist(), arm)
    if samples:
        return "The effects are only stored as summaries over samples: leave out --samples."
    return "The effects are only stored for single samples: add --samples."
