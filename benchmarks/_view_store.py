"""The store that the explorer is measured with: two runs, one of all samples and one of a quarter,
with texts, activations, games, a comparison of every feature and labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _store_data import LAYERS, SAMPLES, STEP_SAMPLES, WIDTH, sample, space, steps

from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, open_store

RUN, PART = "benchmark", "quarter"
TOKENS = 300
COMPARISON, CONTRAST = "c1", "lost vs won"
GROUPS = ("lost", "won")
LABELLED = 64
"""One feature of so many has a label."""
TEST_STATS = ("d", "r", "auroc", "p", "q", "significant")


def fill(folder: Path, samples: int) -> None:
    """Two finished runs."""
    store = open_store(folder, create=True)
    with store.writer():
        described = {"samples": texts(samples), "spaces": spaces(), "games": games(samples)}
        store.commit(_step("texts", "prompts"), described)
        keys = ["texts"]
        for key, rows in steps(samples):
            store.commit(_step(key, "features"), {"activations": rows})
            keys.append(key)
        width = WIDTH if samples == SAMPLES else 64
        compared = {"comparisons": comparisons(width), "features": statistics(width)}
        store.commit(_step("groups", "groups"), compared)
        store.commit(_step("labels", "labels"), {"features": labels(width)})
        _record(store, PART, keys[: 1 + max(1, samples // STEP_SAMPLES // 4)])
        _record(store, RUN, [*keys, "groups", "labels"])


def _step(key: str, stage: str) -> Any:
    return make_step(key, run=RUN, stage=stage)


def _record(store: Store, run: str, keys: list[str]) -> None:
    """A finished run of these steps."""
    store.index(keys, run=run)
    store.record_run(run=run, name=run, state="done", steps=keys, done=len(keys))
    folder = store.folder / "runs" / run
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"run": run, "stages": []}))


def texts(samples: int) -> pa.Table:
    """Texts of 300 tokens."""
    pieces = [f" word{number}" for number in range(TOKENS)]
    rows = [
        {
            "sample": sample(number),
            "unit": sample(number),
            "cluster": sample(number),
            "text": "".join(pieces),
            "token_ids": list(range(TOKENS)),
            "pieces": pieces,
            "spans": [],
            "prompt_hash": sample(number),
        }
        for number in range(samples)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("samples"))


def spaces() -> pa.Table:
    """One SAE at each layer."""
    rows = [
        {
            "space": space(layer),
            "model": "benchmark",
            "revision": "0",
            "hookpoint": f"resid_post.{layer}",
            "sae": "sae",
            "sae_hash": str(layer),
            "recipe": "topk",
            "width": WIDTH,
            "address": f"benchmark/resid_post.{layer}/sae",
        }
        for layer in range(LAYERS)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("spaces"))


def games(samples: int) -> pa.Table:
    """One game of each sample."""
    rows = [
        {
            "game": sample(number),
            "condition": "fixed",
            "repetition": number,
            "outcome": GROUPS[number % 2],
            "rounds": number % 20,
            "final_balance": float(number % 200),
            "total_bet": 10.0,
            "meta": "{}",
        }
        for number in range(samples)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("games"))


def comparisons(width: int) -> pa.Table:
    """The comparison of both groups in every space."""
    group = {"samples": 3_200, "units": 3_200, "prompts": 100, "clusters": 100}
    row = {
        "comparison": COMPARISON,
        "part": "compare.welch",
        "test": "welch",
        "by": "outcome",
        "effect": "d",
        "groups": [{"name": name, **group, "not_measured": 0, "shared": 0} for name in GROUPS],
        "half": "all",
        "positions": "last",
        "unit": "sample",
        "cluster": "prompt",
        "family": "declared",
        "tested": [
            {
                "space": space(layer),
                "address": f"benchmark/resid_post.{layer}/sae",
                "features": width,
            }
            for layer in range(LAYERS)
        ],
        "min_count": 1,
        "min_density": 0.0,
        "correction": "bh",
        "alpha": 0.05,
        "min_effect": 0.3,
        "adjusted": "",
    }
    return pa.Table.from_pylist([row], schema=arrow_schema("comparisons"))


def statistics(width: int) -> Iterator[pa.Table]:
    """Eleven statistics of each of the first features of every layer, a tenth of them
    significant.
    """
    for layer in range(LAYERS):
        rng = np.random.default_rng([1, layer])
        p = rng.beta(0.3, 1.0, width)
        numbers = {
            "d": rng.normal(size=width),
            "r": rng.uniform(-1, 1, width),
            "auroc": rng.uniform(0, 1, width),
            "p": p,
            "q": np.minimum(1, 2 * p),
            "significant": (p < np.quantile(p, 0.1)).astype(float),
        }
        for stat in TEST_STATS:
            yield _block(layer, stat, CONTRAST, numbers[stat])
        for group in GROUPS:
            yield _block(layer, "mean", group, rng.lognormal(size=width))
            yield _block(layer, "density", group, rng.uniform(0, 1, width))
        yield _block(layer, "fired", "", rng.integers(1, 6_400, width).astype(float))


def _block(layer: int, stat: str, group: str, numbers: np.ndarray) -> pa.Table:
    words = {"space": space(layer), "stat": stat, "group": group, "comparison": COMPARISON}
    columns: dict[str, Any] = {
        name: pa.repeat(pa.scalar(word), len(numbers)) for name, word in words.items()
    }
    columns["feature"] = pa.array(np.arange(len(numbers), dtype=np.uint32))
    columns["number"] = pa.array(numbers)
    columns["text"] = pa.nulls(len(numbers), pa.string())
    schema = arrow_schema("features")
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def labels(width: int) -> pa.Table:
    """A label of some features."""
    rows = [
        {
            "space": space(layer),
            "feature": feature,
            "stat": "label",
            "group": "",
            "text": f"about word{feature % TOKENS}",
        }
        for layer in range(LAYERS)
        for feature in range(0, width, LABELLED)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("features"))
