"""One feature of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._query import answers
from toolkit._view import charts
from toolkit._view.grid import PART_ROWS, Grid
from toolkit._view.library import Library
from toolkit._view.page import Page, shade, token
from toolkit._view.pages.links import feature_link, run_href, sample_link
from toolkit._view.request import Query

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
