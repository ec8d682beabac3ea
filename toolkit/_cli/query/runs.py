"""`toolkit query diff` and `sql`: two runs side by side, and SQL over the tables of one."""

from __future__ import annotations

import click

from toolkit._cli.query.answers import (
    Answer,
    QueryOptions,
    answered,
    answered_of_runs,
    of_spaces,
    open_run,
)
from toolkit._query.run import Run, listing
from toolkit.terminal import echo


@click.command("diff")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@of_spaces
@answered_of_runs
def diff(
    options: QueryOptions, first: str, second: str, space: str | None, layer: int | None
) -> Answer:
    """Show the features that fire more, or less, in the second RUN than in the first; in spaces
    that both have.
    """
    import polars as pl

    from toolkit_store.query.diff import common_spaces, diff_views

    runs = open_run(options, first), open_run(options, second)
    heads = ("address", "count_a", "count_b", "rate_a", "rate_b", "change", "max_a", "max_b")
    if missing := next((run for run in runs if not run.stages("activations")), None):
        return Answer(heads, [], 0, missing.why("activations"))
    common = common_spaces(runs[0].view, runs[1].view, _in_both(runs, space, layer))
    addresses = {row["space"]: row["address"] for row in runs[0].spaces}
    left_out = [f"{addresses[id]}: {reason}" for id, reason in common.left_out.items()]
    for line in left_out:
        echo(f"left out: {line}", err=True)
    if not common.spaces:
        return Answer(
            heads,
            [],
            0,
            "The two runs have no space in which they kept the same kind of positions.",
        )
    result = diff_views(runs[0].view, runs[1].view, common.spaces)
    ranked = result.filter(pl.col("change") != 0)
    rows = [
        {**row, "address": runs[0].label(row["space"], row["feature"])}
        for row in ranked.head(options.k).to_dicts()
    ]
    why = (
        f"Every feature fires in the same share of samples in run {runs[1].id} and in run "
        f"{runs[0].id}."
    )
    return Answer(heads, rows, ranked.height, why)


@click.command("sql")
@click.argument("statement")
@answered
def sql(options: QueryOptions, statement: str) -> Answer:
    """Run one SELECT over the tables of the run, in polars' SQL. It reads nothing else and writes
    nothing.

    Rows are read as they are needed: comparisons in WHERE of a column with a text or a whole
    number, joined by AND, are looked up, and no more rows are read than --k shows, unless they are
    grouped or sorted.
    """
    rows = open_run(options).view.sql(statement, options.k + 1)
    shown = rows.head(options.k)
    return Answer(
        rows.columns,
        shown.to_dicts(),
        None if rows.height > options.k else rows.height,
        "No rows.",
        frame=shown,
    )


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
