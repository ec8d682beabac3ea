"""`toolkit query`: what the committed tables of a run say about a feature, a sample, a comparison
or an intervention.

Rows are filtered and ordered as Arrow, a batch of steps at a time; only those that are shown become
Python objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from toolkit._cli import query_words
from toolkit._cli._answers import Answer, Asked, answered, answered_of_runs, open_run
from toolkit._cli._around import is_terminal, marked_in, places_asked, shaded, with_text
from toolkit._cli._query_tokens import attention, attribution, feature
from toolkit._cli._text import MAX_NUMBER
from toolkit._query.feature_rows import PLACE, pivoted, ranked_lines, ranking_entries, stat_heads
from toolkit._query.run import Run, first_rows, listing, sorted_by
from toolkit._query.text import Row, piece_at
from toolkit.terminal import echo

VERDICTS = ("contrast", "outcome", "verdict", "effect", "low", "high", "p", "q", "reason")
EFFECTS = ("arm", "outcome", "probability", "effect", "low", "high", "p", "q", "kl")
SUMMARY = "*"
"""The `sample` of a row that summarises all samples."""
ALL = 1 << 40
"""More rows than there are."""


# --- the commands ---


@click.group("query")
def command() -> None:
    """Look up features, samples, comparisons and effects of a run, also while it runs.

    ADDRESS is 25/2059, L25-2059, L25#2059, 25:2059, Neuronpedia's model/source/2059 or
    model/hookpoint/sae:2059.
    """


@command.command("top")
@click.argument("address")
@answered
def top(asked: Asked, address: str) -> Answer:
    """Show where the feature at ADDRESS fires hardest."""
    run = open_run(asked)
    heads = ("sample", "position", "token", "value", "unit", "text")
    if missing := next(
        (table for table in ("activations", "spaces") if not run.stages(table)), None
    ):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    hits = run.view.top(space, index, asked.k).drop("unit").to_dicts()
    rows = with_text(run, hits, marked=marked_in(asked))
    why = f"Feature {address} fires at no position whose activations run {run.id} has kept."
    total = run.view.entries(space, index) if len(rows) == asked.k else len(rows)
    return Answer(heads, rows, total, why)


@command.command("tokens")
@click.argument("address")
@click.argument("sample")
@click.option(
    "--all", "every", is_flag=True, help="Every token, also where the feature does not fire."
)
@answered
def tokens(asked: Asked, address: str, sample: str, every: bool) -> Answer:
    """Show the text of SAMPLE and where in it the feature at ADDRESS fires."""
    run = open_run(asked)
    heads = ("position", "token", "value")
    if missing := next(
        (table for table in ("samples", "activations", "spaces") if not run.stages(table)), None
    ):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    text = run.sample(sample)["text"]
    result = run.view.tokens(space, index, sample).rename({"piece": "token"}).to_dicts()
    rows = [row for row in result if every or row["value"]]
    why = _why_no_tokens(
        run, address, sample, [row["position"] for row in result if row["value"] is not None]
    )
    above = (
        shaded(
            text, [row["token"] for row in result], [row["value"] for row in result], is_terminal()
        )
        if rows
        else ""
    )
    return Answer(heads, rows[: asked.k], len(rows), why, above=above)


@command.command("coactive")
@click.argument("address")
@answered
def coactive(asked: Asked, address: str) -> Answer:
    """Show which features of the same space fire where the feature at ADDRESS fires."""
    run = open_run(asked)
    heads = ("address", "both", "count", "jaccard", "label")
    if missing := next(
        (table for table in ("activations", "spaces") if not run.stages(table)), None
    ):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    pairs = run.view.coactive(space, index, ALL)
    rows = _named(run, space, pairs.head(asked.k).to_dicts())
    return Answer(
        heads, rows, pairs.height, f"No other feature fires where {address} does in run {run.id}."
    )


@command.command("similar")
@click.argument("address")
@click.option(
    "--saes",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The folder of the SAE files, if they have moved.",
)
@answered
def similar(asked: Asked, address: str, saes: Path | None) -> Answer:
    """Show the features whose decoder points most nearly where that of the feature at ADDRESS does.

    The SAE files are read where the run had them. If they are gone, projections in the store are
    used (toolkit store project).
    """
    from toolkit._cli._decoders import find_rows

    run = open_run(asked)
    space, index = run.feature(address)
    row = next(row for row in run.spaces if row["space"] == space)
    matches = run.view.similar(space, index, asked.k, find_rows(row, run, saes))
    rows = _named(run, space, matches.to_dicts())
    why = f"{row['address']} has no other feature."
    return Answer(("address", "cosine", "label"), rows, max(len(rows), row["width"] - 1), why)


@command.command("diff")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option(
    "--space",
    metavar="ADDRESS",
    help="Of this space only: its id, or its address without an index.",
)
@click.option(
    "--layer", type=click.IntRange(0, MAX_NUMBER), help="Of the spaces at this layer only."
)
@answered_of_runs
def diff(asked: Asked, first: str, second: str, space: str | None, layer: int | None) -> Answer:
    """Show the features that fire more, or less, in the second RUN than in the first; in spaces
    that both have.
    """
    import polars as pl

    from toolkit_store.query.diff import common_spaces, diff_views

    runs = open_run(asked, first), open_run(asked, second)
    heads = ("address", "count_a", "count_b", "rate_a", "rate_b", "change", "max_a", "max_b")
    if missing := next((run for run in runs if not run.stages("activations")), None):
        return Answer(heads, [], 0, missing.why("activations"))
    common = common_spaces(runs[0].view, runs[1].view, _in_both(runs, space, layer))
    addresses = {row["space"]: row["address"] for row in runs[0].spaces}
    left_out = [f"{addresses[id]}: {reason}" for id, reason in common.left_out.items()]
    for line in left_out:
        echo(f"left out: {line}", err=True)
    if not common.spaces:
        return Answer(heads, [], 0, "The two runs have no space that both looked at alike.")
    result = diff_views(runs[0].view, runs[1].view, common.spaces)
    ranked = result.filter(pl.col("change") != 0)
    rows = [
        {**row, "address": runs[0].label(row["space"], row["feature"])}
        for row in ranked.head(asked.k).to_dicts()
    ]
    why = (
        f"Every feature fires in as large a share of samples in run {runs[1].id} as in run "
        f"{runs[0].id}."
    )
    return Answer(heads, rows, ranked.height, why)


@command.command("sql")
@click.argument("statement")
@answered
def sql(asked: Asked, statement: str) -> Answer:
    """Run one SELECT over the tables of the run, in polars' SQL. It reads nothing else and writes
    nothing.

    Rows are read as they are needed: comparisons in WHERE of a column with a text or a whole
    number, joined by AND, are looked up, and no more rows are read than --k shows, unless they are
    grouped or sorted.
    """
    rows = open_run(asked).view.sql(statement, asked.k + 1)
    shown = rows.head(asked.k)
    return Answer(
        rows.columns,
        shown.to_dicts(),
        None if rows.height > asked.k else rows.height,
        "No rows.",
        frame=shown,
    )


@command.command("sample")
@click.argument("sample")
@click.option(
    "--position", type=click.IntRange(0, MAX_NUMBER), help="At this token only, counted from 0."
)
@click.option(
    "--token",
    metavar="TEXT",
    help="At the tokens of this text only, such as '$100': one token or several.",
)
@click.option(
    "--span",
    metavar="NAME",
    help="At the tokens of the sample's spans of this name only, such as balance.",
)
@click.option(
    "--space",
    metavar="ADDRESS",
    help="Of this space only: its id, or its address without an index.",
)
@click.option(
    "--layer", type=click.IntRange(0, MAX_NUMBER), help="Of the spaces at this layer only."
)
@answered
def sample(
    asked: Asked,
    sample: str,
    position: int | None,
    token: str | None,
    span: str | None,
    space: str | None,
    layer: int | None,
) -> Answer:
    """Show which features are active on SAMPLE, the strongest first."""
    import polars as pl

    run = open_run(asked)
    heads = ("address", "position", "token", "value")
    if not run.stages("samples"):
        return Answer(heads, [], 0, run.why("samples"))
    text = run.sample(sample)
    places = places_asked(text, position, token, span)
    spaces = run.spaces_of(space, layer)
    hits = run.view.sample(sample, space=spaces[0] if spaces and len(spaces) == 1 else None)
    entries = [
        pl.col(name).is_in(some)
        for name, some in (("position", places), ("space", spaces))
        if some is not None
    ]
    hits = hits.filter(*entries).sort(
        ["value", "space", "position", "feature"], descending=[True, False, False, False]
    )
    rows = [
        {
            **row,
            "address": run.label(row["space"], row["feature"]),
            "token": piece_at(text["pieces"], row["position"]),
        }
        for row in hits.head(asked.k).to_dicts()
    ]
    return Answer(
        heads, rows, hits.height, "" if rows else _why_not_active(run, sample, places, spaces)
    )


@command.command("features")
@click.option(
    "--space",
    metavar="ADDRESS",
    help="Of this space only: its id, or its address without an index.",
)
@click.option(
    "--layer", type=click.IntRange(0, MAX_NUMBER), help="Of the spaces at this layer only."
)
@click.option("--stage", metavar="ID", help="Only rows of this stage.")
@click.option(
    "--stat",
    "stats",
    multiple=True,
    metavar="STAT",
    help="Show this statistic only; may be given again. Default: of tests the main ones; all with "
    "--json.",
)
@click.option(
    "--by",
    metavar="STAT",
    help="Sort by this statistic. Default: the sound rank, else q and the size of the effect.",
)
@click.option("--significant", is_flag=True, help="Significant differences only.")
@answered
def features(
    asked: Asked,
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
    run = open_run(asked)
    spaces = run.spaces_of(space, layer)
    where = {} if spaces is None else {"space": spaces}
    entries = ranking_entries(run, stage, where, (*stats, *([by] if by else ())), by)
    if not entries.num_rows:
        return Answer(
            ("address", "stage"),
            [],
            0,
            run.why("features", stage, "in these spaces" if spaces is not None else ""),
        )
    ranked = ranked_lines(run, entries, by, significant)
    rows = pivoted(run, entries, first_rows(ranked, asked.k), stage)
    heads = stat_heads(rows, stats, asked.form)
    why = (
        f"No difference is significant in run {run.id}: stat 'significant' is 1 nowhere in what "
        "was asked for."
    )
    return Answer(heads, rows, ranked.num_rows, why, shared=("stage", "contrast"))


@command.command("verdicts")
@click.option("--verdict", metavar="VERDICT", help="This verdict only, such as causal.")
@click.option(
    "--layer", type=click.IntRange(0, MAX_NUMBER), metavar="N", help="Features of this layer only."
)
@click.option("--feature", metavar="ADDRESS", help="Of this feature only.")
@click.option("--stage", metavar="ID", help="Only rows of this stage.")
@click.option(
    "--control", is_flag=True, help="Those of the same features with random decoder rows."
)
@answered
def verdicts(
    asked: Asked,
    verdict: str | None,
    layer: int | None,
    feature: str | None,
    stage: str | None,
    control: bool,
) -> Answer:
    """Show what was concluded about screened features, the surest first."""
    import pyarrow.compute as pc

    run = open_run(asked)
    heads = ("address", "stage", *VERDICTS)
    where = _of_layer(run, layer) | _of_feature(run, feature)
    table = "control_verdicts" if control else "verdicts"
    chosen = run.read_stages(table, stage, where)
    known = chosen["verdict"].unique().to_pylist()
    if verdict is not None:
        chosen = chosen.filter(pc.equal(chosen["verdict"], verdict))
    if not chosen.num_rows:
        there = f" Verdicts: {listing(sorted(known))}." if known else ""
        why = f"No feature has this verdict here.{there}" if known else run.why(table, stage)
        return Answer(heads, [], 0, why)
    sized = run.placed(chosen).append_column("size", pc.abs(chosen["effect"]))
    ordered = sorted_by(sized, [("q", True), ("size", False), *PLACE, ("outcome", True)])
    rows = [
        {**row, "address": run.label(row["space"], row["feature"])}
        for row in first_rows(ordered, asked.k)
    ]
    return Answer(heads, rows, chosen.num_rows, "", shared=("stage", "contrast", "outcome"))


@command.command("effects")
@click.option("--feature", metavar="ADDRESS", help="Of this feature only.")
@click.option(
    "--layer", type=click.IntRange(0, MAX_NUMBER), metavar="N", help="Features of this layer only."
)
@click.option("--verdict", metavar="VERDICT", help="Features with this verdict only.")
@click.option("--arm", metavar="ARM", help="Of this arm only.")
@click.option("--stage", metavar="ID", help="Only rows of this stage.")
@click.option(
    "--samples", is_flag=True, help="One line per sample instead of the summary over samples."
)
@answered
def effects(
    asked: Asked,
    feature: str | None,
    layer: int | None,
    verdict: str | None,
    arm: str | None,
    stage: str | None,
    samples: bool,
) -> Answer:
    """Show what interventions did, the surest first."""
    import pyarrow.compute as pc

    run = open_run(asked)
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
        for row in first_rows(ordered, asked.k)
    ]
    return Answer(heads, rows, chosen.num_rows, "", shared=("stage",))


command.add_command(query_words.words)
command.add_command(query_words.label)
for of_tokens in (feature, attention, attribution):
    command.add_command(of_tokens)


# --- activations ---


def _named(run: Run, space: str, rows: Sequence[Row]) -> list[Row]:
    """The rows with each feature's address, and its label if it has one."""
    labels = dict(run.view.labels(space, [row["feature"] for row in rows]).iter_rows())
    return [
        {**row, "address": run.label(space, row["feature"]), "label": labels.get(row["feature"])}
        for row in rows
    ]


def _why_no_tokens(run: Run, address: str, sample: str, kept: Sequence[int]) -> str:
    if not kept:
        return (
            f"No activations of sample '{sample}' are kept in run {run.id} in the space of "
            f"{address}."
        )
    some = listing([str(number) for number in kept])
    return f"Feature {address} does not fire on sample '{sample}'. Kept positions: {some}."


def _in_both(runs: tuple[Run, Run], space: str | None, layer: int | None) -> list[str]:
    """The spaces to compare: those that both runs have. A feature is compared with itself only."""
    from toolkit.errors import BadInput

    chosen = [run.spaces_of(space, layer) for run in runs]
    sides = [
        {row["space"]: row["address"] for row in run.spaces if ids is None or row["space"] in ids}
        for run, ids in zip(runs, chosen, strict=True)
    ]
    both = [id for id in sides[0] if id in sides[1]]
    if not both:
        named = [
            f"run {run.id}: {listing(sorted(set(side.values())))}"
            for run, side in zip(runs, sides, strict=True)
        ]
        raise BadInput(
            "The two runs have no space in common, and features of two spaces cannot be compared "
            f"by their numbers. {'; '.join(named)}."
        )
    return both


def _why_not_active(
    run: Run, sample: str, places: Sequence[int] | None, spaces: Sequence[str] | None
) -> str:
    if not run.stages("activations"):
        return run.why("activations")
    there = "" if spaces is None else " in these spaces"
    kept = run.view.positions(sample, spaces)
    if not kept:
        return f"No activations of sample '{sample}' are kept in run {run.id}{there}."
    index = (
        ""
        if places is None
        else f" at position{'s'[: len(places) != 1]} {listing([str(number) for number in places])}"
    )
    if places is not None and not set(places) & set(kept):
        some = listing([str(number) for number in kept])
        return (
            f"No activations are kept{index} of sample '{sample}'{there}. Kept positions: {some}."
        )
    return f"No feature is active on sample '{sample}'{index}{there}."


# --- effects ---


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
            f"There is no arm '{arm}' here.{nearest(arm, known)} Arms: {choices(known)}."
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
            f"Run {run.id} has no effects of this feature. It has effects of {len(known):,}: "
            f"{listing(list(known))}."
        )
    _check_arm(of_feature["arm"].unique().to_pylist(), arm)
    if samples:
        return "There are only summaries over samples: leave --samples out."
    return "There are only rows of single samples: add --samples."
