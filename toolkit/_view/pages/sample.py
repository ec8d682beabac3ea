"""The samples of a run, and one sample: its tokens against the layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._query import answers
from toolkit._query.text import plain
from toolkit._view.grid import MAX_ROWS, Grid
from toolkit._view.library import PAGE_ROWS, Library
from toolkit._view.page import Page, shade, token
from toolkit._view.pages.links import feature_link, run_href, sample_link
from toolkit._view.pages.run_facts import past_the_end, why_empty
from toolkit._view.request import Query, href
from toolkit.figures import escaped

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run

BLOCK = 400
"""Tokens of a sample that are shown at once."""


def samples(library: Library, query: Query, name: str) -> Page:
    """The samples of a run, each once, a hundred at a time; a download has all of them."""
    import polars as pl

    from toolkit_store.filters import among

    opened = library.run(name)
    offset = query.integer("offset") or 0
    columns = ("sample", "unit", "pieces", "text")
    tokens = pl.col("pieces").list.len()
    # Only the texts of the page are read: those before it would take longer.
    all_names = opened.view.lazy("samples").select("sample").unique(maintain_order=True)
    names = all_names.slice(offset, PAGE_ROWS + 1).collect()
    rows = opened.rows.samples(names["sample"].to_list(), columns).unique("sample", keep="first")
    frame = names.join(
        rows.select("sample", "unit", tokens=tokens, text=pl.col("text").str.slice(0, 120)),
        on="sample",
        how="left",
        maintain_order="left",
    )

    def parts() -> Iterator[pl.DataFrame]:
        yield frame.clear()  # the columns, also of a table without rows
        seen: set[str] = set()
        for where in among("step", opened.rows.writers("samples")):
            for batch in opened.rows.find_in_batches("samples", where, columns):
                fresh = batch.unique("sample", keep="first", maintain_order=True)
                fresh = fresh.filter([sample not in seen for sample in fresh["sample"]])
                seen.update(fresh["sample"])
                yield fresh.select("sample", "unit", tokens, "text").rename({"pieces": "tokens"})

    links = {"sample": sample_link(name)}
    shown = frame.head(PAGE_ROWS)
    why = past_the_end(offset) or why_empty(opened, "samples", frame)
    grid = Grid("samples", "Samples", shown, links, why, parts)
    more = href(f"/run/{name}/samples", offset=offset + PAGE_ROWS)
    facts = {"offset": offset, "more": more if frame.height > PAGE_ROWS else None}
    return Page("samples.html", f"Samples of {name}", facts, [grid], name)


def sample(library: Library, query: Query, name: str) -> Page:
    """One sample: its tokens by layer, and the features that are active at one of them."""
    run = library.run(name)
    text = run.sample(query.required("sample"))
    position, space = query.integer("position"), query.text("space")
    pieces: list[str] = text["pieces"]
    answers.check_position(text["sample"], pieces, position)
    if space is not None:
        run.view.check_space(space)
    start = (position or 0) // BLOCK * BLOCK
    rows = run.view.sample(text["sample"]) if run.stages("activations") else None
    grids = _sample_grids(run, text, position, space, rows)
    kept_positions = set() if rows is None else set(rows["position"].unique().to_list())
    shown = [
        index for index in range(start, min(start + BLOCK, len(pieces))) if index in kept_positions
    ]
    layers = [] if rows is None or query.flag("part") else _layers(run, rows, shown)
    facts = {
        "sample": text,
        "position": position,
        "space": space,
        "start": start,
        "block": BLOCK,
        "tokens": _tokens(run, text, start, kept_positions, (position, space)),
        "count": len(pieces),
        "layers": layers,
        "columns": [(index, token(pieces[index])) for index in shown] if layers else [],
        "meta": _meta(run, text["sample"]),
        "addresses": {row["space"]: row["address"] for row in run.spaces},
    }
    return Page("sample.html", f"Sample {text['sample']}", facts, grids, name)


def _sample_grids(
    run: Run,
    text: dict[str, Any],
    position: int | None,
    space: str | None,
    rows: pl.DataFrame | None,
) -> list[Grid]:
    """The features active in a sample, the attention of its tokens, and the parts that move the
    outcome.
    """
    return [
        _active(run, text["pieces"], position, space, rows),
        Grid("attention", "Attention from this token", _attention(run, text, position)),
        Grid(
            "attributions",
            "Parts that move the outcome",
            _attributions(run, text, position),
            {"feature": lambda row: run_href(run.id, "feature", address=row["feature"])},
        ),
    ]


def _active(
    run: Run,
    pieces: Sequence[str],
    position: int | None,
    space: str | None,
    rows: pl.DataFrame | None,
) -> Grid:
    """The features that are active at a position, or anywhere in the sample."""
    import polars as pl

    caption, why = "Active features", "No feature is kept as active here."
    if rows is None:
        heads = ("address", "position", "token", "value")
        return Grid("active", caption, answers.frame([], heads), why=why)
    hits = rows if position is None else rows.filter(pl.col("position") == position)
    hits = hits if space is None else hits.filter(pl.col("space") == space)

    def parts() -> Iterator[pl.DataFrame]:
        yield answers.active(run, pieces, hits)

    frame = answers.active(run, pieces, hits, MAX_ROWS)
    links = {"address": feature_link(run.id)}
    return Grid("active", caption, frame, links, why, parts, hits.height)


def _tokens(
    run: Run,
    text: dict[str, Any],
    start: int,
    kept_positions: Collection[int],
    chosen: tuple[int | None, str | None],
) -> str:
    """A block of tokens as HTML, each a link that chooses it: underlined if its activations were
    kept. A template would be too slow for hundreds of them.
    """
    position, space = chosen
    page = escaped(run_href(run.id, "sample", sample=text["sample"], space=space))
    links = []
    for index, piece in enumerate(text["pieces"][start : start + BLOCK], start):
        kind = "kept" if index in kept_positions else ""
        here = ' aria-current="true"' if index == position else ""
        links.append(
            f'<a href="{page}&amp;position={index}#active" data-at="{index}" '
            f'title="token {index}" class="{kind}{" here" if here else ""}"{here}>'
            f"{escaped(token(piece))}</a>"
        )
    return "".join(links)


def _layers(run: Run, rows: Any, shown: Sequence[int]) -> list[dict[str, Any]]:
    """One row per space: the strongest feature at each of these tokens, shaded within the row."""
    import polars as pl

    from toolkit.features.addresses import layer_of

    best = (
        rows.filter(pl.col("position").is_in(shown))
        .group_by("space", "position", maintain_order=True)
        .agg(pl.col("value").max(), pl.col("feature").sort_by("value").last(), count=pl.len())
    )
    by_space: dict[str, list[dict[str, Any]]] = {}
    for cell in best.to_dicts():
        by_space.setdefault(cell["space"], []).append(cell)
    order = sorted(run.spaces, key=lambda row: (layer_of(row) or 0, row["address"]))
    return [
        {
            "space": row["space"],
            "address": row["address"],
            "name": run.label(row["space"], 0).rpartition("/")[0],
            "cells": _cells(run, by_space[row["space"]], shown),
        }
        for row in order
        if row["space"] in by_space
    ]


def _cells(run: Run, cells: Sequence[dict[str, Any]], shown: Sequence[int]) -> str:
    """The cells of a row as HTML. A template would be too slow for thousands of them."""
    largest = max(cell["value"] for cell in cells)
    by_position = {cell["position"]: cell for cell in cells}
    columns = []
    for index in shown:
        if cell := by_position.get(index):
            label = f"{run.label(cell['space'], cell['feature'])} {cell['value']:.3g}, "
            label = escaped(plain(f"{label}{cell['count']} active"))
            kind = shade(cell["value"], largest)
            columns.append(f'<td data-at="{index}" class="{kind}" title="{label}"></td>')
        else:
            columns.append(f'<td data-at="{index}"></td>')
    return "".join(columns)


def _meta(run: Run, sample: str) -> list[tuple[str, Any]]:
    rows = run.read_stages("sample_meta", None, {"sample": [sample]}).to_pylist()
    values = {row["key"]: row["string"] if row["number"] is None else row["number"] for row in rows}
    return list(values.items())


def _attention(run: Run, text: dict[str, Any], position: int | None) -> pl.DataFrame:
    """The attention of each head from a token, the largest weights first."""
    import polars as pl

    heads = ("layer", "head", "key", "token", "weight")
    if position is None or not run.stages("attention"):
        return answers.frame([], heads)
    where = {"sample": [text["sample"]], "query": [position]}
    rows = pl.DataFrame(run.read_stages("attention", None, where))
    every = pl.int_ranges(0, pl.col("weights").list.len())
    keys, weights = pl.coalesce("keys", every), pl.col("weights").cast(pl.List(pl.Float64))
    by_head = rows.select("layer", "head", key=keys, weight=weights)
    by_key = by_head.explode("key", "weight").drop_nulls("key")
    ordered = by_key.sort("weight", descending=True, maintain_order=True)
    tokens = _tokens_at(text["pieces"], ordered["key"])
    return ordered.with_columns(tokens).select(heads)


def _attributions(run: Run, text: dict[str, Any], position: int | None) -> pl.DataFrame:
    import polars as pl

    heads = ("method", "part", "layer", "position", "token", "head", "feature", "value", "exact")
    if not run.stages("attributions"):
        return answers.frame([], heads)
    where: dict[str, list[Any]] = {"sample": [text["sample"]]}
    if position is not None:
        where["position"] = [position]
    rows = pl.DataFrame(run.read_stages("attributions", None, where))
    ordered = rows.sort(pl.col("value").abs(), descending=True, maintain_order=True)
    addresses = [
        None if index is None else run.label(space, index)
        for space, index in ordered.select("space", "feature").iter_rows()
    ]
    features = pl.Series("feature", addresses, pl.String)
    tokens = _tokens_at(text["pieces"], ordered["position"])
    return ordered.with_columns(features, tokens).select(heads)


def _tokens_at(pieces: Sequence[str], positions: pl.Series) -> pl.Series:
    """The tokens at these positions of a sample."""
    import polars as pl

    shown = [token(piece) for piece in pieces]
    found = [
        None if at is None else shown[at] if at < len(shown) else "" for at in positions.to_list()
    ]
    return pl.Series("token", found, pl.String)
