"""Upper bounds of the cost of tests, from how many activations the stages before them write. The
number of rows depends on the data.

Operations count arithmetic only, which is small compared with the memory that is read. Activations
are read from a memory-mapped file in order of spaces, so only those of the current spaces are in
memory. The host writes that file beforehand, one space at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log2
from typing import Any

from toolkit.costs import ENTRY, ROW, Cost, Workload, pass_bytes, token_flops
from toolkit.errors import DataError
from toolkit_stats.baselines.leak import Leak
from toolkit_stats.baselines.probe import Probe
from toolkit_stats.baselines.residual import Residual
from toolkit_stats.pathway.params import Pathway
from toolkit_stats.ranking.params import Ranking
from toolkit_stats.samples.layers import KEPT, Layers, hookpoints
from toolkit_stats.samples.params import Compare

FIRING, STATED, BYTES = 0.3, 9, 10
"""What to expect of a comparison: the share of these features that fire in the data, rows of a
feature, most of which are not discovered, and stored bytes of a row.
"""
THREADS = 4
"""Spaces processed at once, as in the core of comparisons."""
GROUPS = 8
"""Groups where a spec names none: as many as the metadata has values, which are not known yet."""
OF_GROUP = 3
"""Rows per feature and group: mean, density, std."""
OF_FEATURE = 5
"""Rows per feature besides those of its test: q, significant, fired, discovered, same_as."""
ADJUSTED = 6
"""Rows of an adjusted test: d, t, df, p, q, significant."""
HELD, MADE, STORED = 60, 120, 24
"""Bytes of an entry while a space is read and tested, of a row while its table is made, and of a
stored row, whose words nearly always repeat those of the row before.
"""
OBJECT = 1000
"""Bytes of a sample while its metadata are Python's own objects."""
SHUFFLED = 16 * 512 * 8
"""Bytes of a column of a block while its statistic is shuffled: arrays for all labellings that are
processed together.
"""
BLOCK_COLUMNS = 1024
"""Columns of such a block."""


@dataclass(frozen=True)
class TestCost:
    """The cost of a test: rows per feature, operations per entry and per feature, bytes per
    entry.
    """

    rows: int
    entry: float = 20.0
    feature: float = 100.0
    entry_bytes: int = HELD
    sorts: bool = False


TESTS = {
    "welch": TestCost(7),
    "student": TestCost(7),
    "mann_whitney": TestCost(9, entry=60, entry_bytes=2 * HELD, sorts=True),
    "auroc": TestCost(10, entry=60, entry_bytes=2 * HELD, sorts=True),
    "permutation": TestCost(6),
    "correlation": TestCost(5, entry=40, entry_bytes=2 * HELD, sorts=True),
    "anova": TestCost(3),
    "kruskal": TestCost(3, entry=40, entry_bytes=2 * HELD, sorts=True),
}


def comparison(name: str) -> Callable[[Any, Workload], Cost]:
    """The cost of `compare.NAME`."""

    def cost(params: Compare, load: Workload) -> Cost:
        return _compared(TESTS[name], params, load)

    return cost


def expected_comparison(name: str) -> Callable[[Any, Workload], Cost]:
    """The cost of `compare.NAME` to expect: a share of the features fires, few are discovered."""
    bound = comparison(name)

    def cost(params: Compare, load: Workload) -> Cost:
        rows = int(fired(load) * FIRING * STATED)
        return replace(bound(params, load), disk=rows * BYTES, table_rows=rows)

    return cost


def fired(load: Workload) -> int:
    """An upper bound of the features that fired: the number of features or of entries."""
    return int(min(load.saes.get("features", 0), load.entries))


def read(load: Workload) -> int:
    """Bytes of the activations that a stage reads."""
    return int(load.rows * ROW + load.entries * ENTRY)


def share(load: Workload, spaces: int = THREADS) -> float:
    """The share of all activations in this many spaces."""
    count: int = max(1, load.saes.get("count", 1))
    return min(1.0, spaces / count)


def _compared(test: TestCost, params: Compare, load: Workload) -> Cost:
    features, shuffles = fired(load), getattr(params, "permutations", 0)
    rows = features * _rows(test, params)
    sorting = load.entries * log2(max(2, load.samples)) if test.sorts else 0.0
    # The sums and squares of a block with every labelling, and Welch's t of each column.
    shuffling = shuffles * (4.0 * load.entries + 30.0 * features)
    widest = features * min(1.0, 2 / max(1, load.saes.get("count", 1)))
    return Cost(
        flops=load.entries * test.entry + features * test.feature + sorting + shuffling,
        read=read(load),
        memory=int(
            share(load) * (read(load) + load.entries * test.entry_bytes)
            + rows * 8
            + widest * _rows(test, params) * MADE
            + load.samples * OBJECT
            + (
                rows * MADE if params.family == "discovered" else 0
            )  # rows of the select half, of which few are kept
            + (THREADS * SHUFFLED * min(BLOCK_COLUMNS, features) if shuffles else 0)
            + shuffles * load.samples
        ),
        disk=rows * STORED,
        exact=False,
    )


def _rows(test: TestCost, params: Compare) -> int:
    """Rows of a discovered feature; others have fewer."""
    between = getattr(params, "between", None)
    groups = len(between) if between else GROUPS if hasattr(params, "min_eta2") else 1
    adjusted = bool(getattr(params, "covariates", ())) or (
        bool(getattr(params, "within", None)) and test.rows == TESTS["welch"].rows
    )
    return OF_GROUP * groups + test.rows + OF_FEATURE + ADJUSTED * adjusted


# --- baselines ------------------------------------------------------------------------------------

KEYS, COLUMNS, NEWTON = 10, 32, 20
"""Most metadata keys of a sample, and most columns of a key, where they are not known; steps until
a regression converges.
"""
BASELINE = 400
"""Bytes of a row of `baselines`, its sentence included."""
SOLVED = 5
"""Ridge systems of a fold: each penalty on the inner part, and the best of them on all."""
OPEN = 2**30
"""Bytes of sums of open clusters, at most."""
HELD_ROWS = 2**28
"""Bytes of stream in memory; more is kept in a file."""


def leak(params: Leak, load: Workload) -> Cost:
    """A regression per fold: key by key, and all together."""
    width = KEYS * COLUMNS
    steps = params.folds * NEWTON * 2.0 * load.samples
    return Cost(
        flops=steps * (width**2 + KEYS * COLUMNS**2),
        memory=load.samples * (OBJECT * KEYS // 2 + 3 * 8 * width),
        disk=2 * (KEYS + 1) * BASELINE,
        exact=False,
    )


def probe(params: Probe, load: Workload) -> Cost:
    """The stream from a table or one pass; at each layer and fold two linear classifiers on it, and
    in each space the best feature.
    """
    width, layers = load.model.get("width", 0), _layers(params.layers, load)
    rows = min(load.samples, 2 * load.distinct)
    short, long = min(rows, width), max(rows, width)
    reader = 2 * 2.0 * short**2 * long + SOLVED * short**3 / 3 + 20.0 * rows * width
    features = params.folds * load.entries * (40.0 + log2(max(2, load.samples)))
    stream = load.distinct * width
    spaces = load.saes.get("count", 0)
    source = _source(load, len(layers), params)
    held_bytes = 0 if load.model_replaced else min(HELD_ROWS, 4 * len(layers) * stream)
    return source + Cost(
        flops=len(layers) * params.folds * reader + features,
        read=read(load),
        memory=int(
            source.memory
            + held_bytes
            + 8 * stream
            + 5 * 8 * rows * width
            + 3 * 8 * short**2
            + share(load, 1) * (read(load) + 3 * HELD * load.entries)
            + load.samples * OBJECT
        ),
        disk=(2 * len(layers) + spaces + 1) * BASELINE,
        exact=False,
    )


def residual(params: Residual, load: Workload) -> Cost:
    """The streams from a table or one pass; only their sums are kept."""
    width, layers = load.model.get("width", 0), _layers(params.layers, load)
    numbers = len(layers) * width
    rows = numbers * (2 * OF_GROUP + TESTS["welch"].rows + OF_FEATURE)
    in_a_pass = min(load.distinct, max(1, params.tokens * load.distinct // max(1, load.tokens)))
    source, at_once = _source(load, len(layers), params), 1 if load.model_replaced else len(layers)
    return source + Cost(
        flops=20.0 * load.samples * numbers + 200.0 * numbers,
        memory=int(
            source.memory
            + (0 if load.model_replaced else in_a_pass * numbers * 12)
            + min(OPEN, 8 * load.distinct * width * at_once)
            + 30 * 8 * numbers
            + width * rows // max(1, numbers) * MADE
            + load.samples * OBJECT
        ),
        disk=rows * STORED,
        exact=False,
    )


def _source(load: Workload, layers: int, params: Probe | Residual) -> Cost:
    """The cost of the stream: a pass over the distinct texts, or a table that is read one layer at
    a time.
    """
    model, width = load.model, load.model.get("width", 0)
    if load.model_replaced:
        row = 4 * width + ROW
        return Cost(
            read=load.samples * layers * row,
            memory=load.samples * layers * ROW + 3 * load.samples * row,
        )
    return Cost(
        forwards=load.distinct,
        flops=_pass_flops(load, params.layers),
        read=int(model.get("bytes", 0)),
        memory=pass_bytes(model, load.tokens, load.longest, layers, params.tokens),
    )


def _layers(layers: Layers, load: Workload) -> list[str]:
    """The hookpoints to read; empty while the number of layers is unknown, or if there is no such
    layer.
    """
    if layers == KEPT:
        return [f"resid_post.{layer}" for layer in dict.fromkeys(load.saes.get("layers", ()))]
    try:
        return hookpoints(layers, int(load.model["layers"]), "the model")
    except (KeyError, DataError):
        return []


def _pass_flops(load: Workload, layers: Layers) -> float:
    """Operations for every token up to the last layer that is read."""
    last = max(
        (int(hookpoint.rpartition(".")[2]) for hookpoint in _layers(layers, load)), default=-1
    )
    return load.tokens * token_flops(
        load.model, load.tokens / load.distinct if load.distinct else 0, last + 1
    )


# --- rankings and paths ---------------------------------------------------------------------------

RANKED = 23
"""Rows of a ranked feature other than its mean at each label."""
BLOCK = 2**24
"""Pairs of features whose correlations are held together."""
PAIRS = 4
"""Spaces whose features are held scaled at a time."""
MADE_OF = 600
"""Bytes of a row while it is Python's own object."""


def ranking(params: Ranking, load: Workload) -> Cost:
    """Space by space, on all samples and on both halves; all features that pass are written, and
    the best by either score.
    """
    features, spaces = fired(load), max(1, load.saes.get("count", 1))
    of_feature = RANKED + len(params.labels)
    return Cost(
        flops=load.entries * (100.0 + 3 * log2(max(2, load.samples))) + features * 500.0,
        read=read(load),
        memory=int(
            share(load, 1) * (read(load) + 2 * HELD * load.entries)
            + features * of_feature * 3 * 8
            + features / spaces * of_feature * MADE
            + load.samples * OBJECT
        ),
        disk=features * of_feature * STORED,
        exact=False,
    )


def pathway(params: Pathway, load: Workload) -> Cost:
    """Every space as it fired; the followed features at each decision; and all pairs of features of
    the linked layers.
    """
    spaces, features = max(1, load.saes.get("count", 1)), fired(load)
    followed = len(params.track) or min(features, params.top * load.saes.get("count", 0))
    on = min(load.saes.get("features", 0) / spaces, load.entries / spaces / params.min_count)
    pairs = _linked(params.links, spaces, len(load.saes.get("layers", ())) or 1)
    rows = (
        followed * load.samples
        + followed * (3 + params.components)
        + load.samples * params.components
    )
    listed = params.keep if pairs else 0
    return Cost(
        flops=load.entries * 60.0 + features * 100.0 + 2.0 * pairs * on**2 * load.samples,
        read=read(load),
        memory=int(
            share(load, 1) * (read(load) + 2 * HELD * load.entries)
            + load.entries * 2 * ENTRY
            + features * 20 * 8
            + (PAIRS + 4) * 8 * on * load.samples * bool(pairs)
            + 5 * 8 * min(BLOCK, on**2) * bool(pairs)
            + (rows + 4 * listed) * MADE_OF
            + load.samples * OBJECT
        ),
        disk=rows * STORED + listed * 4 * STORED,
        exact=False,
    )


def _linked(links: str, spaces: int, layers: int) -> float:
    """Pairs of spaces of different layers, as many SAEs at each."""
    saes = spaces / layers
    return {
        "none": 0.0,
        "adjacent": saes * saes * (layers - 1),
        "all": saes * saes * layers * (layers - 1) / 2,
    }[links]
