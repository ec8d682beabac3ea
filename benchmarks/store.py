"""The feature store against sorted Parquet with polars, DuckDB and dense npz: size, ingest,
queries, cold start.

    python benchmarks/store.py            9.9 M entries: 31 layers x 6,400 samples x 50 of 16,384
    features, by a power law
    python benchmarks/store.py --big      300 M entries (31 x 193,600 x 50) in the store only,
    next to 9.9 M: needs 12 GB of disk
    python benchmarks/store.py --float16  keep values as float16
    python benchmarks/store.py --samples 12912 --readers 3
                                          2e7 entries; asked alone, then with three other readers

Queries draw features half by popularity and half evenly. Each system is queried in a process of its
own that does nothing else, as a user would; the systems take turns, some queries (`--block`) of
each at a time, so that a busy machine slows all alike. With `--together` the process that filled
the store queries all of them, and their threads compete. DuckDB is measured if it is installed
(`pip install --group bench`). Everything is written to a folder that is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from _asking import (
    QUERIES,
    TOP,
    Opened,
    Query,
    ask_duckdb,
    ask_npz,
    ask_polars,
    ask_store,
    asked,
    check,
    measure,
    readers_beside,
)
from _store_data import LAYERS, SAMPLES, STEP_SAMPLES, WIDTH, long, space, steps

import toolkit_store
from toolkit.testing.fakes import make_step
from toolkit_store.query.diff import diff_views

DIMS = 2_304
BESIDE_READERS = 15.0
"""The limit of a query's median, in milliseconds, while three others read, on two cores."""
SYSTEMS = ("store", "small", "polars", "duckdb", "npz")


# --- ingest ---


def fill_store(folder: Path, samples: int, values: str) -> dict[str, float]:
    """Commit every step, then index; seconds of each, without making the data."""
    store = toolkit_store.open_store(folder, create=True, values=values)
    store.has(["nothing"])  # loads LanceDB
    spent, entries, keys = 0.0, 0, []
    with store.writer():
        for key, rows in steps(samples):
            start = time.perf_counter()
            store.commit(make_step(key, run="benchmark"), {"activations": rows})
            spent += time.perf_counter() - start
            entries += len(rows["features"].combine_chunks().flatten())
            keys.append(key)
    start = time.perf_counter()
    store.index(keys, run="benchmark")
    indexed = time.perf_counter() - start
    store.record_run(run="benchmark", name="benchmark", state="done", steps=keys)
    return {"entries": entries, "rows": spent, "index": indexed}


def fill_parquet(folder: Path) -> float:
    """Two files: sorted by feature and by sample, in row groups that can be skipped by their
    statistics.
    """
    folder.mkdir()
    frames = [long(layer, SAMPLES) for layer in range(LAYERS)]
    start = time.perf_counter()
    for name, order in (("by_feature", ["layer", "feature"]), ("by_sample", ["layer", "sample"])):
        content = pl.concat([frame.sort(order) for frame in frames])
        content.write_parquet(
            folder / f"{name}.parquet", compression="zstd", row_group_size=50_000, statistics=True
        )
    return time.perf_counter() - start


def fill_duckdb(path: Path, parquet: Path) -> float:
    """Two tables in DuckDB's own format, sorted likewise."""
    import duckdb

    start = time.perf_counter()
    with duckdb.connect(str(path)) as connection:
        for name in ("by_feature", "by_sample"):
            connection.execute(
                f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{parquet / name}.parquet')"
            )
    return time.perf_counter() - start


def fill_npz(folder: Path) -> float:
    """One layer as a dense matrix in an npz, as scripts keep it; the others would be as large."""
    folder.mkdir()
    entries = long(0, SAMPLES)
    start = time.perf_counter()
    dense = np.zeros((SAMPLES, WIDTH), np.float32)
    dense[entries["sample"].to_numpy(), entries["feature"].to_numpy()] = entries["value"].to_numpy()
    np.savez_compressed(folder / "layer_00.npz", features=dense)
    return time.perf_counter() - start


# --- the other questions, which only the store answers ---


def second_run(folder: Path) -> None:
    """A run of the first step alone, to compare with."""
    store = toolkit_store.open_store(folder)
    (key, _) = next(steps(STEP_SAMPLES))
    store.index([key], run="first")
    store.record_run(run="first", name="benchmark", state="done", at="2000-01-01", steps=[key])


def ask_more(folder: Path) -> dict[str, Query]:
    """Questions as functions of layer and feature."""
    features = toolkit_store.open(folder)
    view, first = features.run("benchmark"), features.run("first")
    decoder = np.random.default_rng(0).standard_normal((WIDTH, DIMS), np.float32)
    return {
        "features firing at the same places": lambda layer, feature: view.coactive(
            space(layer), feature
        ),
        "nearest decoder rows, in memory": lambda layer, feature: view.similar(
            space(layer), feature, TOP, decoder
        ),
        "how two runs differ in a space": lambda layer, _: diff_views(view, first, [space(layer)]),
        f"how two runs differ in {LAYERS} spaces": lambda *_: diff_views(
            view, first, [space(layer) for layer in range(LAYERS)]
        ),
    }


def report_more(folder: Path, rounds: int, samples: int) -> None:
    second_run(folder)
    print(f"\n{'ms, p50 / p99':38}")
    for label, ask in ask_more(folder).items():
        took = []
        for layer, feature, _ in asked(rounds + 2, samples):
            start = time.perf_counter()
            ask(layer, feature)
            took.append((time.perf_counter() - start) * 1e3)
        say(label, f"{np.median(took[2:]):.1f}/{np.quantile(took[2:], 0.99):.1f}")


COLD = """
import sys, time
start = time.perf_counter()
import toolkit_store
view = toolkit_store.open(sys.argv[1]).run("benchmark")
view.top(sys.argv[2], int(sys.argv[3]), 20)
print(time.perf_counter() - start)
"""
COLD_DIFF = """
import sys, time
start = time.perf_counter()
import toolkit_store
from toolkit_store.query.diff import diff_views
features = toolkit_store.open(sys.argv[1])
diff_views(features.run("benchmark"), features.run("first"), sys.argv[4:])
print(time.perf_counter() - start)
"""


def cold(folder: Path, rounds: int, program: str = COLD) -> float:
    """Seconds from a bare interpreter to the first answer, imports included: the median."""
    found = []
    for turn in range(rounds):
        command = [
            sys.executable,
            "-c",
            program,
            str(folder),
            space(turn % LAYERS),
            "77",
            *map(space, range(LAYERS)),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        found.append(float(done.stdout))
    return float(np.median(found))


# --- the report ---


def size(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def peak_memory() -> int:
    """Kilobytes. The kernel's other counter, ru_maxrss, is inherited from the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def say(label: str, value: str, target: str = "") -> None:
    print(f"{label:44} {value:>28} {target:>22}", flush=True)


def report_ingest(spent: dict[str, float], store: Path, values: str) -> None:
    goal = {"float32": 160, "float16": 115}[values] * spent["entries"] / 9.9e6
    say("entries", f"{int(spent['entries']):,}")
    say(f"store on disk, {values}", f"{size(store):,.0f} MB", f"<= {goal:,.0f} MB")
    for name, bytes_ in toolkit_store.open_store(store, read_only=True).sizes().items():
        say(f"  {name}", f"{bytes_ / 1e6:,.1f} MB")
    both = spent["rows"] + spent["index"]
    say("ingest, rows", f"{spent['entries'] / spent['rows'] / 1e6:.2f} M entries/s", ">= 2")
    say(
        "ingest, rows + postings + indexes",
        f"{spent['entries'] / both / 1e6:.2f} M entries/s",
        ">= 1",
    )


def report_queries(times: dict[tuple[str, str], np.ndarray]) -> None:
    shown = [name for name in SYSTEMS if any(name == system for system, _ in times)]
    print(
        f"\n{'ms, p50 / p99 (p50 to the store)':38}"
        + "".join(f"{name:>20}" for name in shown)
        + f"{'target':>12}"
    )
    for query, goal in QUERIES.items():
        cells = ""
        base = np.median(times["store", query])
        for name in shown:
            found = times[name, query]
            ratio = "" if name == "store" else f" ({np.median(found) / base:.2f}x)"
            cells += f"{f'{np.median(found):.1f}/{np.quantile(found, 0.99):.1f}{ratio}':>20}"
        print(f"{query:38}{cells}{f'{goal:g}/30':>12}", flush=True)


def report_beside(opened: Opened, options: argparse.Namespace, samples: int) -> None:
    """The same queries while other processes query without a pause."""
    with readers_beside(opened, options.readers, samples):
        times = measure({"store": opened}, options.rounds, samples, options.block, together=False)
    print(f"\n{f'ms, p50 / p99, {options.readers} other readers':38}{'store':>20}{'target':>12}")
    for query in QUERIES:
        found = times["store", query]
        shown = f"{np.median(found):.1f}/{np.quantile(found, 0.99):.1f}"
        print(f"{query:38}{shown:>20}{BESIDE_READERS:>12g}", flush=True)


def run(folder: Path, options: argparse.Namespace) -> None:
    samples = 193_600 if options.big else options.samples
    values = "float16" if options.float16 else "float32"
    spent = fill_store(folder / "store", samples, values)
    report_ingest(spent, folder / "store", values)
    systems = {"store": partial(ask_store, folder / "store", samples)}
    if options.big:
        fill_store(folder / "small", SAMPLES, values)
        systems["small"] = partial(ask_store, folder / "small")
    if not options.big and samples == SAMPLES:
        say("parquet, two files", f"{fill_parquet(folder / 'parquet'):.1f} s")
        say("", f"{size(folder / 'parquet'):,.0f} MB")
        systems["polars"] = partial(ask_polars, folder / "parquet")
        with suppress(ImportError):
            say(
                "duckdb, two tables",
                f"{fill_duckdb(folder / 'base.duckdb', folder / 'parquet'):.1f} s",
            )
            say("", f"{size(folder / 'base.duckdb'):,.0f} MB")
            systems["duckdb"] = partial(ask_duckdb, folder / "base.duckdb")
        say("npz, dense, one layer of 31", f"{fill_npz(folder / 'npz'):.1f} s")
        say("", f"{size(folder / 'npz'):,.0f} MB (x 31)")
        systems["npz"] = partial(ask_npz, folder / "npz")
        check(systems, samples)
    report_queries(
        measure(systems, options.rounds, samples, options.block, together=options.together)
    )
    if options.readers:
        report_beside(systems["store"], options, samples)
    say("\nopen + first query, cold process", f"{cold(folder / 'store', 5):.2f} s", "<= 2.5 s")
    say("peak memory of this process", f"{peak_memory() / 1e3:,.0f} MB")
    memory = json.loads(_reader(folder / "store"))
    say("peak memory of a process that only queries", f"{memory / 1e3:,.0f} MB", "<= 1,000 MB")
    report_more(folder / "store", options.rounds, samples)
    say(
        f"open + diff of {LAYERS} spaces, cold process",
        f"{cold(folder / 'store', 5, COLD_DIFF):.2f} s",
    )


READER = """
import sys, toolkit_store
sys.path.insert(0, sys.argv[2])
import store as benchmark
queries = benchmark.ask_store(sys.argv[1])
for layer, feature, number in benchmark.asked(50, int(sys.argv[3])):
    for place, ask in enumerate(queries):
        ask(layer, number if place == 2 else feature)
print(benchmark.peak_memory())
"""


def _reader(folder: Path) -> str:
    command = [sys.executable, "-c", READER, str(folder), str(Path(__file__).parent), str(SAMPLES)]
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--big", action="store_true", help="300 M entries, the store only")
    parser.add_argument(
        "--tiny", action="store_true", help="64 samples, asked once: whether it runs, no figures"
    )
    parser.add_argument("--float16", action="store_true", help="keep values as float16")
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, help="another number of samples, the store only"
    )
    parser.add_argument("--rounds", type=int, default=100, help="queries of each kind")
    parser.add_argument(
        "--block", type=int, default=20, help="queries of a system before the next one is asked"
    )
    parser.add_argument(
        "--readers",
        type=int,
        default=0,
        help="processes that ask at the same time, in a second measurement",
    )
    parser.add_argument("--together", action="store_true", help="ask all systems from one process")
    parser.add_argument(
        "--folder", default=None, help="where to write (a temporary folder by default)"
    )
    options = parser.parse_args()
    if options.tiny:
        options.samples, options.rounds = 64, 1
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    try:
        run(folder, options)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
