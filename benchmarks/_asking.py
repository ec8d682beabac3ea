"""Queries of a store and of its peers, and how long each takes: in a process for each system, or in
one for all.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _store_data import LAYERS, SAMPLES, STEP_SAMPLES, WIDTH, drawn, sample, space

import toolkit_store

TOP, AT_LEAST = 20, 100
QUERIES = {
    "all activations of a feature": 6.0,
    "top 20 of a feature": 6.0,
    "all features of a sample at a layer": 6.0,
    "features firing in >= 100 samples": 6.0,
}

# --- queries: each system's four, as functions of layer and feature, or layer and sample ---

Query = Callable[[int, int], Any]
Opened = Callable[[], list[Query]]
Question = tuple[int, int, int]
Answerer = Callable[[list[Question]], list[tuple[str, float]]]


def ask_store(folder: Path, samples: int = SAMPLES) -> list[Query]:
    """The store's queries; where the store has too few samples, the same ones are queried again."""
    view = toolkit_store.open(folder).run("benchmark")
    return [
        lambda layer, feature: view.activations(space(layer), feature),
        lambda layer, feature: view.top(space(layer), feature, TOP),
        lambda layer, number: view.sample(sample(number % samples), space=space(layer)),
        lambda layer, _: view.frequent(space(layer), AT_LEAST),
    ]


def ask_polars(folder: Path) -> list[Query]:
    def scan(name: str, layer: int) -> pl.LazyFrame:
        return pl.scan_parquet(folder / f"{name}.parquet").filter(pl.col("layer") == layer)

    def frequent(layer: int, _: int) -> pl.DataFrame:
        found = scan("by_feature", layer).group_by("feature").agg(pl.len(), pl.col("value").max())
        return found.filter(pl.col("len") >= AT_LEAST).collect()

    return [
        lambda layer, feature: (
            scan("by_feature", layer).filter(pl.col("feature") == feature).collect()
        ),
        lambda layer, feature: (
            scan("by_feature", layer)
            .filter(pl.col("feature") == feature)
            .top_k(TOP, by="value")
            .collect()
        ),
        lambda layer, number: scan("by_sample", layer).filter(pl.col("sample") == number).collect(),
        frequent,
    ]


def ask_duckdb(path: Path) -> list[Query]:
    import duckdb

    connection = duckdb.connect(str(path), read_only=True)

    def run(text: str) -> Query:
        return lambda layer, number: connection.sql(
            text, params=[layer, number][: text.count("?")]
        ).to_arrow_table()

    return [
        run("SELECT sample, position, value FROM by_feature WHERE layer = ? AND feature = ?"),
        run(
            "SELECT sample, position, value FROM by_feature WHERE layer = ? AND feature = ? ORDER "
            f"BY value DESC LIMIT {TOP}"
        ),
        run("SELECT feature, value FROM by_sample WHERE layer = ? AND sample = ?"),
        run(
            "SELECT feature, count(*) n, max(value) FROM by_feature WHERE layer = ? GROUP BY "
            f"feature HAVING n >= {AT_LEAST}"
        ),
    ]


def ask_npz(folder: Path) -> list[Query]:
    def load() -> np.ndarray:
        dense: np.ndarray = np.load(folder / "layer_00.npz")["features"]
        return dense

    return [
        lambda _, feature: np.flatnonzero(load()[:, feature]),
        lambda _, feature: np.argsort(load()[:, feature])[-TOP:],
        lambda _, number: np.flatnonzero(load()[number]),
        lambda _, __: np.flatnonzero((load() > 0).sum(0) >= AT_LEAST),
    ]


def asked(rounds: int, samples: int) -> list[Question]:
    """Layer, feature and sample of each round."""
    rng = np.random.default_rng(7)
    out = []
    for turn in range(rounds):
        layer = int(rng.integers(LAYERS))
        _, features, _ = drawn(0, STEP_SAMPLES if samples >= STEP_SAMPLES else samples, layer)
        feature = int(rng.choice(features)) if turn % 2 else int(rng.integers(WIDTH))
        out.append((layer, feature, int(rng.integers(samples))))
    return out


def measure(
    systems: dict[str, Opened], rounds: int, samples: int, block: int, *, together: bool
) -> dict[tuple[str, str], np.ndarray]:
    """Milliseconds of each system and query, after a block that only warms up. Dense npz takes
    seconds: it is asked three times.
    """
    times: dict[tuple[str, str], list[float]] = {}
    warm = max(block, 10)
    questions = asked(rounds + warm, samples)
    with ExitStack() as stack:
        answerers = {
            name: stack.enter_context((_here if together else _apart)(opened))
            for name, opened in systems.items()
        }
        for start in (0, *range(warm, len(questions), block)):
            end = start + block if start else warm
            for name, answer in answerers.items():
                if name == "npz" and start != warm:
                    continue
                for query, took in answer(
                    questions[start : min(end, start + 3) if name == "npz" else end]
                ):
                    if start:
                        times.setdefault((name, query), []).append(took)
    return {key: np.array(found) for key, found in times.items()}


@contextmanager
def _here(opened: Opened) -> Iterator[Answerer]:
    queries = opened()
    yield lambda questions: [one for question in questions for one in _answered(queries, question)]


@contextmanager
def _apart(opened: Opened) -> Iterator[Answerer]:
    """The same in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, opened), daemon=True)
    process.start()

    def answer(questions: list[Question]) -> list[tuple[str, float]]:
        ours.send(questions)
        found: list[tuple[str, float]] = ours.recv()
        return found

    yield answer
    ours.send([])
    process.join()


def _serve(connection: Any, opened: Opened) -> None:
    queries = opened()
    while questions := connection.recv():
        connection.send([one for question in questions for one in _answered(queries, question)])


@contextmanager
def readers_beside(opened: Opened, count: int, samples: int) -> Iterator[None]:
    """Run this many processes that send the same queries without a pause, while the block lasts."""
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Barrier(count + 1)
    processes = [
        context.Process(target=_ask_on, args=(opened, samples, stop, ready), daemon=True)
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    ready.wait()
    yield
    stop.set()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a reader ended with an error")


def _ask_on(opened: Opened, samples: int, stop: Any, ready: Any) -> None:
    queries, questions = opened(), cycle(asked(50, samples))
    ready.wait()
    while not stop.is_set():
        for _ in _answered(queries, next(questions)):
            continue


def _answered(queries: list[Query], question: Question) -> Iterator[tuple[str, float]]:
    """Each query and its milliseconds."""
    layer, feature, number = question
    for place, (query, ask) in enumerate(zip(QUERIES, queries, strict=True)):
        start = time.perf_counter()
        ask(layer, number if place == 2 else feature)
        yield query, (time.perf_counter() - start) * 1e3


def check(opened: dict[str, Opened], samples: int) -> None:
    """All systems must give the same number of rows."""
    systems = {name: one() for name, one in opened.items()}
    for layer, feature, number in asked(5, samples):
        for place, query in enumerate(QUERIES):
            sizes = {
                name: len(queries[place](layer, number if place == 2 else feature))
                for name, queries in systems.items()
                if name != "npz"
            }
            if len(set(sizes.values())) > 1:
                raise SystemExit(f"{query} at layer {layer}: {sizes}")
