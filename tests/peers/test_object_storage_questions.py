"""What a question reads of a store in object storage, asked from a machine that has nothing of it:
bytes and requests, beside the size of the store.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import toolkit
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store, open_store
from toolkit_store.query.diff import common_spaces, diff_views

HERE = Path(__file__).parent
RUNS = ("first", "second")
SPACES = [f"A{layer}" for layer in range(8)]
SAMPLES, POSITIONS, ACTIVE, WIDTH = 3_000, 4, 50, 16_384
"""Of each run, in every space: 12,000 rows and 0.6 M entries."""
STATS = ("mean", "density", "d", "p", "q", "significant")
STEP_SAMPLES = 750


def beside(name: str):
    """A module beside this one."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bucket = beside("test_object_storage").bucket
faults = beside("faults")
pytestmark = [pytest.mark.peer, pytest.mark.timeout(1800)]


# --- the store ---


def sample_name(run: str, number: int) -> str:
    return f"{run}-{number:05}"


def activations(run: str, first: int, rng: np.random.Generator) -> pa.Table:
    """The rows of a step: some samples, all spaces. Features are as frequent as their rank says."""
    schema = arrow_schema("activations")
    samples = np.repeat(np.arange(first, first + STEP_SAMPLES), POSITIONS)
    names = [sample_name(run, number) for number in samples]
    parts = []
    for space in SPACES:
        ranks = (WIDTH ** rng.random((len(samples), ACTIVE + 14))).astype(np.int64)
        kept = [np.unique(row)[:ACTIVE].astype(np.uint32) for row in ranks]
        ends = np.concatenate(([0], np.cumsum([len(row) for row in kept]))).astype(np.int32)
        values = rng.lognormal(size=ends[-1]).astype(np.float32)
        lists = (("features", np.concatenate(kept)), ("values", values))
        columns = {
            "space": pa.repeat(space, len(samples)),
            "sample": names,
            "position": np.tile(np.arange(POSITIONS, dtype=np.int32), STEP_SAMPLES),
            **{
                name: pa.ListArray.from_arrays(
                    pa.array(ends), pa.array(flat), type=schema.field(name).type
                )
                for name, flat in lists
            },
        }
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts)


def samples(run: str, first: int) -> pa.Table:
    """Texts of thirty words."""
    rows = [
        {
            "sample": sample_name(run, number),
            "unit": f"u{number}",
            "cluster": f"c{number}",
            "text": " ".join(f"word{(number * 31 + n) % 997}" for n in range(30)),
            "token_ids": [(number * 31 + n) % 997 for n in range(30)],
            "pieces": [f" word{(number * 31 + n) % 997}" for n in range(30)],
            "spans": [],
            "prompt_hash": f"h{number}",
            "bos": False,
        }
        for number in range(first, first + STEP_SAMPLES)
    ]
    return pa.Table.from_pylist(rows, arrow_schema("samples"))


def statistics(rng: np.random.Generator) -> pa.Table:
    """Six statistics of every fourth feature of every space."""
    numbers = np.arange(0, WIDTH, 4, dtype=np.uint32)
    count = len(numbers)
    parts = [
        pa.table(
            {
                "space": pa.repeat(space, count),
                "feature": numbers,
                "stat": pa.repeat(stat, count),
                "group": pa.repeat("risky vs safe", count),
                "number": rng.random(count),
                "text": pa.nulls(count, pa.string()),
                "comparison": pa.repeat("c", count),
            },
            schema=arrow_schema("features"),
        )
        for space in SPACES
        for stat in STATS
    ]
    return pa.concat_tables(parts)


def spaces() -> pa.Table:
    rows = [
        {
            "space": space,
            "model": "m",
            "revision": "1",
            "hookpoint": f"resid_post.{layer}",
            "sae": f"sae-{layer}",
            "sae_hash": f"hash-{layer}",
            "recipe": "{}",
            "width": WIDTH,
            "address": f"m/{layer}",
        }
        for layer, space in enumerate(SPACES)
    ]
    return pa.Table.from_pylist(rows, arrow_schema("spaces"))


def write(store: Store, run: str, seed: int) -> None:
    """A run as the host leaves it: steps, indexes and its last state."""
    rng = np.random.default_rng(seed)
    keys = [f"{run}-{number}" for number in range(SAMPLES // STEP_SAMPLES)]
    for number, key in enumerate(keys):
        first = number * STEP_SAMPLES
        tables = {
            "activations": activations(run, first, rng),
            "samples": samples(run, first),
            "spaces": spaces(),
        }
        store.commit(make_step(key, stage="extract", run=run), tables)
    tested = f"{run}-tested"
    store.commit(make_step(tested, stage="test", run=run), {"features": statistics(rng)})
    store.index(keys, run=run)
    store.compact()
    store.record_run(run=run, name=run, state="done", steps=[*keys, tested])


# --- the questions ---


class Asker:
    """Asks questions, each as a program that has just started, and counts what they read."""

    def __init__(self, uri: str, proxy) -> None:
        self.uri, self._proxy = uri, proxy
        self.measured: dict[str, tuple[int, int]] = {}

    def ask(self, name: str, question: Callable[[toolkit.StoreResults], object]) -> object:
        """The answer; the bytes and requests that it took are noted under `name`."""
        self._proxy.bytes_sent = self._proxy.requests = 0
        answer = question(toolkit.open(self.uri))
        self.measured[name] = self._proxy.bytes_sent, self._proxy.requests
        return answer


def changes(store: toolkit.StoreResults) -> object:
    """How often each feature of one layer fires in two runs."""
    views = [store.features_of.run(run) for run in RUNS]
    return diff_views(*views, common_spaces(*views, ["A3"]).spaces)


QUESTIONS: dict[str, tuple[Callable[[toolkit.StoreResults], object], float]] = {
    "store.run()": (lambda store: store.run("first"), 0.005),
    "rows of a step": (
        lambda store: store.features_of.store.read("samples", ["first-1"]),
        0.015,
    ),
    "top, a feature": (lambda store: store.run("first").top("3/9000"), 0.02),
    "top, the most frequent feature": (lambda store: store.run("first").top("3/1"), 0.02),
    "sample": (lambda store: store.run("first").sample("first-00010").active(), 0.02),
    "features, one layer": (lambda store: store.run("first").features(layer=3), 0.015),
    "features, all layers": (lambda store: store.run("first").features(), 0.05),
    "diff of two runs, one layer": (changes, 0.01),
    "SQL, a sample in a layer": (
        lambda store: store.run("first").sql(
            "SELECT position, features FROM activations "
            "WHERE sample = 'first-00010' AND space = 'A3'"
        ),
        0.01,
    ),
    "SQL, mean of a statistic": (
        lambda store: store.run("first").sql(
            "SELECT AVG(number) FROM features WHERE stat = 'd' AND space = 'A3'"
        ),
        0.01,
    ),
}
"""Each question, and the share of the store's bytes that it stays below. A ranking over all layers
needs every statistic that it ranks by.
"""


def test_a_question_reads_a_small_part_of_the_store(
    bucket: str, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bucket, create=True)
    for seed, run in enumerate(RUNS):
        write(store, run, seed)
    size = sum(store.sizes().values())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # without the run folders
    proxy = faults.FaultyProxy(os.environ["AWS_ENDPOINT_URL"], seed=1)
    with proxy.serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        asker = Asker(bucket, proxy)
        answers = {name: asker.ask(name, question) for name, (question, _) in QUESTIONS.items()}
    with capsys.disabled():
        print(f"\nthe store has {size:,} bytes; a question reads:")
        for name, (count, requests) in asker.measured.items():
            print(f"{name:32}{count:>12,} bytes{100 * count / size:8.3f} %{requests:>6} requests")
    for name, answer in answers.items():
        assert name == "store.run()" or len(answer), name
        assert 0 < asker.measured[name][0] < QUESTIONS[name][1] * size, name
