"""`toolkit query top`, `tokens`, `coactive`, `similar` and `sample`: where features are active."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from toolkit._cli._text import MAX_NUMBER
from toolkit._cli.query.answers import Answer, QueryOptions, answered, of_spaces, open_run
from toolkit._cli.query.marked_text import (
    chosen_positions,
    is_terminal,
    marked_in,
    shaded,
    with_text,
)
from toolkit._query.run import Run, listing
from toolkit._query.text import Row, piece_at

ALL = 1 << 40
"""More rows than any table has."""


@click.command("top")
@click.argument("address")
@answered
def top(options: QueryOptions, address: str) -> Answer:
    """Show where the feature at ADDRESS fires most strongly."""
    run = open_run(options)
    heads = ("sample", "position", "token", "value", "unit", "text")
    if missing := next(
        (table for table in ("activations", "spaces") if not run.stages(table)), None
    ):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    hits = run.view.top(space, index, options.k).drop("unit").to_dicts()
    rows = with_text(run, hits, marked=marked_in(options))
    why = f"Feature {address} fires at none of the positions that run {run.id} has kept."
    total = run.view.entries(space, index) if len(rows) == options.k else len(rows)
    return Answer(heads, rows, total, why)


@click.command("tokens")
@click.argument("address")
@click.argument("sample")
@click.option(
    "--all", "every", is_flag=True, help="Show every token, also where the feature does not fire."
)
@answered
def tokens(options: QueryOptions, address: str, sample: str, every: bool) -> Answer:
    """Show the text of SAMPLE and where in it the feature at ADDRESS fires."""
    run = open_run(options)
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
    return Answer(heads, rows[: options.k], len(rows), why, above=above)


@click.command("coactive")
@click.argument("address")
@answered
def coactive(options: QueryOptions, address: str) -> Answer:
    """Show which features of the same space fire where the feature at ADDRESS fires."""
    run = open_run(options)
    heads = ("address", "both", "count", "jaccard", "label")
    if missing := next(
        (table for table in ("activations", "spaces") if not run.stages(table)), None
    ):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    pairs = run.view.coactive(space, index, ALL)
    rows = _named(run, space, pairs.head(options.k).to_dicts())
    return Answer(
        heads, rows, pairs.height, f"No other feature fires where {address} does in run {run.id}."
    )


@click.command("similar")
@click.argument("address")
@click.option(
    "--saes",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The folder of the SAE files, if it is not the one that the run used.",
)
@answered
def similar(options: QueryOptions, address: str, saes: Path | None) -> Answer:
    """Show the features whose decoder points most nearly where that of the feature at ADDRESS does.

    The SAE files are read where the run had them. If they are gone, projections in the store are
    used (toolkit store project).
    """
    from toolkit._cli._decoders import find_rows

    run = open_run(options)
    space, index = run.feature(address)
    row = next(row for row in run.spaces if row["space"] == space)
    matches = run.view.similar(space, index, options.k, find_rows(row, run, saes))
    rows = _named(run, space, matches.to_dicts())
    why = f"{row['address']} has no other feature."
    return Answer(("address", "cosine", "label"), rows, max(len(rows), row["width"] - 1), why)


@click.command("sample")
@click.argument("sample")
@click.option(
    "--position", type=click.IntRange(0, MAX_NUMBER), help="Only at this token, counted from 0."
)
@click.option(
    "--token",
    metavar="TEXT",
    help="Only at the tokens of this text, such as '$100': one token or several.",
)
@click.option(
    "--span",
    metavar="NAME",
    help="Only at the tokens of the sample's spans of this name, such as balance.",
)
@of_spaces
@answered
def sample(
    options: QueryOptions,
    sample: str,
    position: int | None,
    token: str | None,
    span: str | None,
    space: str | None,
    layer: int | None,
) -> Answer:
    """Show which features are active on SAMPLE, the strongest first."""
    import polars as pl

    run = open_run(options)
    heads = ("address", "position", "token", "value")
    if not run.stages("samples"):
        return Answer(heads, [], 0, run.why("samples"))
    text = run.sample(sample)
    chosen = chosen_positions(text, position, token, span)
    spaces = run.spaces_of(space, layer)
    hits = run.view.sample(sample, space=spaces[0] if spaces and len(spaces) == 1 else None)
    entries = [
        pl.col(name).is_in(some)
        for name, some in (("position", chosen), ("space", spaces))
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
        for row in hits.head(options.k).to_dicts()
    ]
    return Answer(
        heads, rows, hits.height, "" if rows else _why_not_active(run, sample, chosen, spaces)
    )


def _named(run: Run, space: str, rows: Sequence[Row]) -> list[Row]:
    """The rows with each feature's address, and its label if it has one."""
    labels = dict(run.view.labels(space, [row["feature"] for row in rows]).iter_rows())
    return [
        {**row, "address": run.label(space, row["feature"]), "label": labels.get(row["feature"])}
        for row in rows
    ]


def _why_no_tokens(run: Run, address: str, sample: str, positions: Sequence[int]) -> str:
    if not positions:
        return (
            f"No activations of sample '{sample}' are kept in run {run.id} in the space of "
            f"{address}."
        )
    some = listing([str(number) for number in positions])
    return f"Feature {address} does not fire on sample '{sample}'. Kept positions: {some}."


def _why_not_active(
    run: Run, sample: str, chosen: Sequence[int] | None, spaces: Sequence[str] | None
) -> str:
    if not run.stages("activations"):
        return run.why("activations")
    there = "" if spaces is None else " in these spaces"
    positions = run.view.positions(sample, spaces)
    if not positions:
        return f"No activations of sample '{sample}' are kept in run {run.id}{there}."
    index = (
        ""
        if chosen is None
        else f" at position{'s'[: len(chosen) != 1]} {listing([str(number) for number in chosen])}"
    )
    if chosen is not None and not set(chosen) & set(positions):
        some = listing([str(number) for number in positions])
        return (
            f"No activations are kept{index} of sample '{sample}'{there}. Kept positions: {some}."
        )
    return f"No feature is active on sample '{sample}'{index}{there}."
