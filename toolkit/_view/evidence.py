"""The pages about one feature, one sample and one comparison."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._query import answers
from toolkit._query.text import plain
from toolkit._view import charts
from toolkit._view.grid import MAX_ROWS, Grid
from toolkit._view.library import Library
from toolkit._view.page import Page, shade, token
from toolkit._view.pages import PART_ROWS, feature_link, run_href, sample_link
from toolkit._view.request import Query
from toolkit.errors import BadInput
from toolkit.figures import escaped

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run

TEXTS = 8
"""The most texts of a feature that are shown with their tokens."""
BEFORE, AFTER = 40, 12
"""Tokens shown before and after the one on which the feature fires most strongly."""
TOP = 20
"""The most values of a feature that are shown in a table."""
TEXT_ROWS = 1_000
"""Rows with their texts that a file of a feature's values reads at a time."""
RELATED = 20
"""The most features that fire together with one, or are near it, that its page shows."""
ARMS = 14
"""The most arms of a feature in the chart."""
BLOCK = 400
"""Tokens of a sample that are shown at once."""


def feature(library: Library, query: Query, name: str) -> Page:
    """One feature: where it fires, what it promotes, what patching it does."""
    import numpy as np

    run = library.run(name)
    space, index = run.feature(query.required("address"))
    address = run.label(space, index)
    row = next(row for row in run.spaces if row["space"] == space)
    where: dict[str, list[Any]] = {"space": [space], "feature": [index]}
    fires = bool(run.stages("activations"))
    values = run.view.activations(space, index)["value"].to_numpy() if fires else np.zeros(0)
    hits = run.view.top(space, index, TEXTS * 8)
    texts = run.pieces(hits["sample"].to_list())
    effects = answers.effects(run, where)
    written = _written(run, where)
    grids = [
        _statistics(library, run, space, index, written),
        Grid(
            "top",
            "Strongest activations",
            answers.in_texts(hits.head(TOP), texts),
            {"sample": sample_link(name)},
            "It fires at none of the positions that this run has kept.",
            lambda: _all_top(run, space, index),
            len(values),
        ),
        Grid("effects", "Effects of interventions on it, every arm", effects),
        Grid("verdicts", "Verdicts", answers.verdicts(run, where)),
        Grid("words", "Words that go with it", _words(run, where)),
    ]
    facts = {
        "address": address,
        "space": row,
        "labels": _labels(run, written),
        "neuronpedia": _neuronpedia(row, index),
        "fires": len(values),
        "histogram": charts.histogram(values, f"How strongly {address} fires")
        if len(values)
        else None,
        **_forest(effects.to_dicts(), address),
        "texts": _texts(run, space, index, hits.to_dicts(), texts),
        "promoted": run.read_stages("promoted_tokens", None, where).to_pylist(),
        "neighbours": run_href(name, "neighbours", address=address),
    }
    return Page("feature.html", f"Feature {address}", facts, grids, name)


def neighbours(library: Library, query: Query, name: str) -> Page:
    """The features that fire with one, and those with the nearest directions: a part of its page
    that is loaded later, since all postings of its space are read.
    """
    with library.lock:
        run = library.run(name)
        space, index = run.feature(query.required("address"))
    address = run.label(space, index)
    grids = [_coactive(library, run, space, index), _similar(run, space, index)]
    facts = {"address": address, "feature": run_href(name, "feature", address=address)}
    return Page("neighbours.html", f"Neighbours of feature {address}", facts, grids, name)


def _written(run: Run, where: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The statistics and labels of a feature in all runs of the store."""
    from toolkit_store.query.committed_rows import matching

    columns = ("step", "stat", "group", "number", "text")
    rows: list[dict[str, Any]] = run.rows.find("features", matching(where), columns).to_pylist()
    return rows


def _statistics(
    library: Library, run: Run, space: str, index: int, written: Sequence[dict[str, Any]]
) -> Grid:
    """Statistics of the feature in every run of the store, one row per run, stage and group."""
    written = [row for row in written if row["stat"] != "label"]
    steps = library.store.steps(sorted({row["step"] for row in written}))
    stages = {step.key: step.stage for step in steps}
    written.sort(key=lambda row: (stages.get(row["step"], ""), row["stat"], row["group"]))
    rows = []
    for state in reversed(library.states()):
        keys = library.step_keys(state)
        rows += [
            {**row, "run": state.run, "stage": stages[row["step"]]}
            for row in written
            if row["step"] in keys and row["step"] in stages
        ]
    heads = ("run", "stage", "group", "stat", "number", "text")
    links = {"run": lambda row: run_href(row["run"], "feature", address=run.label(space, index))}
    return Grid("statistics", "Statistics, over all runs", answers.frame(rows, heads), links)


def _all_top(run: Run, space: str, index: int) -> Iterator[pl.DataFrame]:
    """All values of a feature, the largest first, with their texts."""
    hits = run.view.top(space, index, answers.ALL)
    yield answers.in_texts(hits.clear(), {})
    for part in hits.iter_slices(TEXT_ROWS):
        yield answers.in_texts(part, run.pieces(part["sample"].to_list()))


def _labels(run: Run, written: Sequence[dict[str, Any]]) -> list[str]:
    own = set(run.rows.writers("features"))
    rows = [row for row in written if row["stat"] == "label" and row["step"] in own and row["text"]]
    rows.sort(key=lambda row: row["group"])
    return list(dict.fromkeys(row["text"] for row in rows))


def _neuronpedia(space: dict[str, Any], index: int) -> str | None:
    from toolkit.features.addresses import neuronpedia_page

    return neuronpedia_page(space, index)


def _words(run: Run, where: dict[str, list[Any]]) -> Any:
    heads = ("word", "method", "value", "confirm_value", "q", "confirm_q", "verdict")
    rows = run.read_stages("feature_words", None, where, heads).to_pylist()
    rows.sort(key=lambda row: (row["verdict"] != "confirmed", -abs(row["value"])))
    return answers.frame(rows, heads)


def _coactive(library: Library, run: Run, space: str, index: int) -> Grid:
    title = "Fires together with"
    if not run.stages("activations"):
        heads = ("address", "both", "count", "jaccard", "label")
        return Grid("coactive", title, answers.frame([], heads))

    def found(k: int) -> pl.DataFrame:
        if k > RELATED:
            return run.view.coactive(space, index, k)
        return library.coactive(run, space, index, k)

    return _related(run, space, "coactive", title, found)


def _similar(run: Run, space: str, index: int) -> Grid:
    """The nearest features by the store's projections: a page opens no SAE files."""
    title = "Nearest decoder directions"
    rows = run.view.projections(space)
    if rows is None:
        why = "The store keeps no projections of this SAE. To add them: toolkit store project"
        return Grid("similar", title, answers.frame([], ("address", "cosine", "label")), {}, why)
    return _related(run, space, "similar", title, lambda k: run.view.similar(space, index, k, rows))


def _related(
    run: Run, space: str, name: str, title: str, found: Callable[[int], pl.DataFrame]
) -> Grid:
    """Other features of the space, of which `found` gives the first k; a download has all."""

    def parts() -> Iterator[pl.DataFrame]:
        rows = found(answers.ALL)
        yield answers.named(run, space, rows.clear())
        for part in rows.iter_slices(PART_ROWS):
            yield answers.named(run, space, part)

    first = answers.named(run, space, found(RELATED))
    return Grid(name, title, first, {"address": feature_link(run.id)}, parts=parts)


def _forest(effects: Sequence[dict[str, Any]], address: str) -> dict[str, Any]:
    """The chart of the first arms, and how many are left to the table."""
    rows = [
        (f"{row['outcome']}: {_arm_in_words(row['arm'])}", *ends)
        for row in effects
        if None not in (ends := (row["effect"], row["low"], row["high"]))
    ]
    title = f"Effects of changing {address}, with their intervals"
    chart = charts.forest(rows[:ARMS], title) if rows else None
    return {"forest": chart, "arms_left_out": max(0, len(rows) - ARMS)}


def _arm_in_words(arm: str) -> str:
    """`mean_difference:bankruptcy` as `mean difference, bankruptcy`."""
    name, _, group = arm.partition(":")
    words = name.replace("_", " ")
    return f"{words}, {group}" if group else words


def _texts(
    run: Run,
    space: str,
    index: int,
    hits: Sequence[dict[str, Any]],
    texts: Mapping[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """The distinct texts in which the feature fires most strongly, with its value at each token."""
    largest = max((hit["value"] for hit in hits), default=0.0)
    chosen: dict[str, dict[str, Any]] = {}
    for hit in hits:
        if (text := texts.get(hit["sample"])) and len(chosen) < TEXTS:
            chosen.setdefault(text["text"], hit)
    values: dict[str, dict[int, float]] = {}
    names = [hit["sample"] for hit in chosen.values()]
    for sample, position, value in run.view.values(space, index, names).iter_rows():
        values.setdefault(sample, {})[position] = value
    return [_text(run, hit, texts[hit["sample"]], values, largest) for hit in chosen.values()]


def _text(
    run: Run,
    hit: dict[str, Any],
    text: dict[str, Any],
    values: Mapping[str, Mapping[int, float]],
    largest: float,
) -> dict[str, Any]:
    """The part of a text around the token on which the feature fires most strongly."""
    start, stop = max(0, hit["position"] - BEFORE), hit["position"] + AFTER + 1
    here = values.get(hit["sample"], {})
    return {
        "sample": hit["sample"],
        "href": run_href(run.id, "sample", sample=hit["sample"], position=hit["position"]),
        "value": hit["value"],
        "cut": (start > 0, stop < len(text["pieces"])),
        "tokens": [
            (token(piece), shade(here.get(position), largest), here.get(position))
            for position, piece in enumerate(text["pieces"][start:stop], start)
        ],
    }


def sample(library: Library, query: Query, name: str) -> Page:
    """One sample: its tokens by layer, and the features that are active at one of them."""
    run = library.run(name)
    text = run.sample(query.required("sample"))
    position, space = query.integer("position"), query.text("space")
    pieces: list[str] = text["pieces"]
    if position is not None and position >= len(pieces):
        raise BadInput(
            f"Sample '{text['sample']}' has {len(pieces)} tokens: write position=0 to "
            f"{len(pieces) - 1}."
        )
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


def comparison(library: Library, query: Query, name: str) -> Page:
    """One comparison as a volcano, and the features within the chosen bounds as a table."""
    import polars as pl

    run = library.run(name)
    comparison_id = query.required("comparison")
    rows = run.read_stages("comparisons", None, {"comparison": [comparison_id]}).to_pylist()
    if not rows:
        raise BadInput(
            f"Run {name} has no comparison '{comparison_id}'. Choose one from the run's page."
        )
    facts = rows[0]
    effect = facts["effect"] or "d"
    tested = library.tested(run, comparison_id, effect)
    volcano, drawn = library.volcano(tested, comparison_id, effect, facts["alpha"])
    frame = tested.rows
    bounds = {end: query.number(end) for end in ("low", "high", "q", "q_low")}
    for end, column, above in (
        ("low", effect, True),
        ("high", effect, False),
        ("q", "q", False),
        ("q_low", "q", True),
    ):
        if (bound := bounds[end]) is not None:
            inside = pl.col(column) >= bound if above else pl.col(column) <= bound
            frame = frame.filter(inside)

    def parts() -> Iterator[pl.DataFrame]:
        yield tested.named(frame.clear())
        for rows in frame.iter_slices(PART_ROWS):
            yield tested.named(rows)

    shown = tested.named(frame.head(MAX_ROWS))
    links = {"address": feature_link(name)}
    caption = "Features within these bounds"
    grid = Grid("features", caption, shown, links, parts=parts, height=frame.height)
    named = {
        "comparison": facts,
        "contrast": " vs ".join(group["name"] for group in facts["groups"]),
        "volcano": volcano,
        "bounds": bounds,
        "drawn": drawn,
        "named": min(drawn, charts.NAMED_POINTS),
    }
    return Page("comparison.html", f"Comparison {named['contrast']}", named, [grid], name)
