"""Comparisons of two groups: ours, SciPy feature by feature, SciPy over whole arrays, and the floor
of reading the bytes once.

    python benchmarks/compare.py [--samples 6400] [--width 32768] [--l0 50] [--layers 31] [--rounds
    5]

`welch` and `mann_whitney` are the stages' own tests, with games of six rounds for clusters, all
layers, several at once as in a stage. The rest of a stage's work is timed separately: `read` (from
table `activations` to sparse matrices) and `write` (the rows of table `features`, into an Arrow
file). SciPy is given dense float64 columns and no clusters, so it does less; it is timed on
`--columns` columns of one layer (`each`: one call a column, `whole`: one call) and the time is
multiplied up to all columns of all layers. `floor` sums the numbers and the indices of all layers
with NumPy. All ways take turns, round by round; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse, stats

from toolkit.activations.matrix import Fired, read_space
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_work
from toolkit.work import Work
from toolkit_stats.compare.feature_rows import SpaceResult
from toolkit_stats.compare.run_comparison import at_once, rows_of, tested_space
from toolkit_stats.compare.tests import Test, of_means, of_ranks
from toolkit_stats.math.means import welch
from toolkit_stats.samples import params as _params
from toolkit_stats.samples.groups import Design, group_design

ROUNDS_OF_A_GAME = 6


def _layer(samples: int, width: int, l0: int, seed: int) -> Any:
    """Each sample fires one feature in each of `l0` ranges, low-numbered ones more often, so that
    features fire unequally often.
    """
    rng = np.random.default_rng(seed)
    stretch = width // l0
    features = np.arange(l0) * stretch + (stretch * rng.random((samples, l0)) ** 2).astype(np.int32)
    values = rng.exponential(size=samples * l0).astype(np.float32).astype(np.float64)
    return sparse.csr_array(
        (values, features.ravel().astype(np.int32), np.arange(samples + 1) * l0),
        shape=(samples, width),
    )


def _tables(layers: list[Any], width: int) -> dict[str, pa.Table]:
    """Games of six rounds, half of them in each group; the activations of all layers."""
    samples = layers[0].shape[0]
    names, empty = [f"s{at:06d}" for at in range(samples)], [[]] * samples
    games = [at // ROUNDS_OF_A_GAME for at in range(samples)]
    facts = {"model": "m", "revision": "1", "sae_hash": "h", "recipe": "relu", "width": width}
    spaces = [
        {
            "space": f"space{at:02d}",
            "hookpoint": f"resid_post.{at}",
            "sae": "x",
            "address": f"m/resid_post.{at}/x",
            **facts,
        }
        for at in range(len(layers))
    ]
    columns: dict[str, list[Any]] = {
        "samples": [
            names,
            [f"g{game}" for game in games],
            names,
            names,
            empty,
            empty,
            empty,
            names,
        ],
        "sample_meta": [
            names,
            ["group"] * samples,
            [None] * samples,
            ["ab"[game % 2] for game in games],
        ],
    }
    made = {name: pa.table(own, schema=arrow_schema(name)) for name, own in columns.items()}
    activations = pa.concat_tables(
        [_activations(f"space{at:02d}", names, layer) for at, layer in enumerate(layers)]
    )
    return {
        **made,
        "activations": activations,
        "spaces": pa.Table.from_pylist(spaces, schema=arrow_schema("spaces")),
    }


def _activations(space: str, names: list[str], layer: Any) -> pa.Table:
    schema, ends = arrow_schema("activations"), pa.array(layer.indptr, pa.int32())
    features = pa.ListArray.from_arrays(
        ends, pa.array(layer.indices.astype(np.uint32)), type=schema.field("features").type
    )
    values = pa.ListArray.from_arrays(
        ends, pa.array(layer.data.astype(np.float32)), type=schema.field("values").type
    )
    positions = pa.array(np.zeros(len(names), np.int32))
    return pa.table([[space] * len(names), names, positions, features, values], schema=schema)


def _tested(test: Test, design: Design, layers: list[Fired]) -> list[SpaceResult]:
    def one(at: int) -> SpaceResult:
        width = layers[at].matrix.shape[1]
        facts = {"model": "m", "revision": "1", "hookpoint": f"resid_post.{at}"}
        return tested_space(f"space{at:02d}", facts, layers[at], width, design, test)

    return list(at_once(one, range(len(layers))))


def _read(work: Work, design: Design, width: int) -> list[Fired]:
    rows, size = work.inputs.read("activations"), design.size
    parts = [(f"space{at:02d}", rows.slice(at * size, size)) for at in range(len(rows) // size)]
    return list(
        at_once(lambda part: read_space(part[1], design.samples, width, "max", part[0]), parts)
    )


def _write(work: Work, design: Design, test: Test, tested: list[SpaceResult]) -> int:
    """The rows of all layers in one Arrow file; gives its size."""
    rows = pa.concat_tables([table for _, table in rows_of(work, design, test, tested)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        return path.stat().st_size


def _time(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _error(layer: Fired, dense: Any, split: int) -> float:
    """The largest difference from SciPy's p on the columns it is timed on, every sample its own
    cluster.
    """
    from toolkit_stats.math.means import moments
    from toolkit_stats.math.rank_sums import mann_whitney
    from toolkit_stats.math.ranks import ranked

    some = layer.matrix[:, : dense.shape[1]]
    sides = (
        moments(some[:split], np.arange(split)),
        moments(some[split:], np.arange(len(dense) - split)),
    )
    ours = welch(*sides, "own")
    by_rank = mann_whitney(ranked(some.tocsc()), np.arange(len(dense)) < split)
    theirs = stats.ttest_ind(dense[:split], dense[split:], equal_var=False)
    by_rank_theirs = stats.mannwhitneyu(dense[:split], dense[split:], axis=0, method="asymptotic")
    return max(
        float(np.nanmax(np.abs(ours.p - theirs.pvalue))),
        float(np.nanmax(np.abs(by_rank.p - by_rank_theirs.pvalue))),
    )


def main() -> None:
    """Interleaved rounds; medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (
        ("samples", 6400),
        ("width", 32768),
        ("l0", 50),
        ("layers", 31),
        ("rounds", 5),
        ("columns", 256),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    made = [_layer(asked.samples, asked.width, asked.l0, seed) for seed in range(asked.layers)]
    tables = _tables(made, asked.width)
    works = {
        "welch": make_work(_params.Means(by="group", between=("a", "b")), tables),
        "mann_whitney": make_work(_params.Ranks(by="group", between=("a", "b")), tables),
    }
    design = group_design(works["welch"])
    layers = _read(works["welch"], design, asked.width)
    tests = {
        "welch": of_means("welch")(works["welch"], design),
        "mann_whitney": of_ranks(works["mann_whitney"], design),
    }
    tested = _tested(tests["welch"], design, layers)
    split, columns = design.groups[0].end, min(asked.columns, layers[0].matrix.shape[1])
    dense = layers[0].matrix[:, :columns].toarray()
    a, b = dense[:split], dense[split:]
    scale = asked.layers * asked.width / columns

    def each(test: Callable[..., Any], **how: Any) -> Callable[[], Any]:
        return lambda: [test(a[:, at], b[:, at], **how) for at in range(columns)]

    def ours(name: str) -> Callable[[], Any]:
        return lambda: _tested(tests[name], design, layers)

    asymptotic = {"method": "asymptotic"}
    ways: dict[str, tuple[str, float, Callable[[], Any]]] = {
        "welch": ("welch", 1, ours("welch")),
        "welch, scipy each": ("welch", scale, each(stats.ttest_ind, equal_var=False)),
        "welch, scipy whole": ("welch", scale, lambda: stats.ttest_ind(a, b, equal_var=False)),
        "mann_whitney": ("mann_whitney", 1, ours("mann_whitney")),
        "mann_whitney, scipy each": ("mann_whitney", scale, each(stats.mannwhitneyu, **asymptotic)),
        "mann_whitney, scipy whole": (
            "mann_whitney",
            scale,
            lambda: stats.mannwhitneyu(a, b, axis=0, **asymptotic),
        ),
        "floor": (
            "welch",
            1,
            lambda: [(one.matrix.data.sum(), one.matrix.indices.sum()) for one in layers],
        ),
        "read": ("welch", 1, lambda: _read(works["welch"], design, asked.width)),
        "write": ("welch", 1, lambda: _write(works["welch"], design, tests["welch"], tested)),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, (_, times, work) in ways.items():
            took[name].append(times * _time(work))
    median = {name: statistics.median(times) for name, times in took.items()}
    rows = sum(len(table) for _, table in rows_of(works["welch"], design, tests["welch"], tested))
    size = _write(works["welch"], design, tests["welch"], tested)
    print(
        f"{asked.samples} samples, {asked.layers} layers of {asked.width} features, L0 {asked.l0}: "
        f"{len(design.group_of_cell)} clusters"
    )
    print(
        f"largest difference from SciPy's p: {_error(layers[0], dense, split):.1e}; median of "
        f"{asked.rounds} interleaved rounds"
    )
    print(
        f"write: {rows:,} rows, {size / 2**20:,.0f} MiB; SciPy timed on {columns} columns and "
        f"multiplied by {scale:,.0f}"
    )
    for name, seconds in median.items():
        base = ways[name][0]
        print(f"{name:26} {seconds:10.3f} s   {seconds / median[base]:10.3f} x {base}")


if __name__ == "__main__":
    main()
