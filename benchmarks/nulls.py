"""False discoveries and power of tests and causal screens: the null, power and planted tables.

    python benchmarks/nulls.py           the tables of docs/explanation
    python benchmarks/nulls.py --first 1000 --sets 60
                                         other sets than theirs
    python benchmarks/nulls.py --tiny    the same code on a few small sets

Null tables: sets of features that do not differ between two groups, corrected by Benjamini-Hochberg
at alpha 0.05. A cell is the share of sets in which anything was found, and in brackets the mean
number of features found. Power tables: the share of features found, of those that differ by d.
Planted tables are those of `planted_nulls.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from toolkit.parts import StagePart
from toolkit.statistics.corrections import benjamini_hochberg
from toolkit.testing.fakes import make_work
from toolkit.testing.nulls import Clusters, clusters_of_groups
from toolkit_stats import toolkit_parts
from toolkit_stats.compare import tests as compare_tests
from toolkit_stats.math.means import moments, welch
from toolkit_stats.math.rank_sums import mann_whitney, van_elteren
from toolkit_stats.math.ranks import ranked
from toolkit_stats.samples import groups
from toolkit_stats.samples.rank_cells import rank_cells

Floats = npt.NDArray[np.float64]
ALPHA = 0.05
MAKERS = {
    "welch": compare_tests.of_means("welch"),
    "mann_whitney": compare_tests.of_ranks,
    "auroc": compare_tests.of_area,
    "kruskal": compare_tests.of_rank_spread,
}
WITHIN = "mann_whitney, within"
"""Van Elteren's test: clusters are assigned to five strata at random."""
PARAMS = {part.name: part.params for part in toolkit_parts() if isinstance(part, StagePart)}


@dataclass(frozen=True)
class Design:
    """Two groups of clusters, and how their values are made."""

    counts: tuple[int, int]
    values: str
    rounds: tuple[int, int] = (1, 1)
    later: float = 0.0
    rates: tuple[float, float] = (0.02, 0.4)

    def describe(self) -> str:
        """A row's head."""
        low, high = self.rounds
        rounds = (
            "" if high == 1 else f", {low} to {high} rounds" if low < high else f", {low} rounds"
        )
        depends = ", longer in the first group" if self.later else ""
        return f"{self.counts[0]} and {self.counts[1]}, {self.values}{rounds}{depends}"

    def make(self, seed: int, features: int, d: float = 0.0) -> Clusters:
        """One set."""
        return clusters_of_groups(
            seed,
            self.counts,
            features,
            self.values,
            rounds=self.rounds,
            later=self.later,
            d=d,
            rates=self.rates,
        )


RARE = (0.003, 0.4)
NULLS = (
    Design((5, 100), "normal"),
    Design((5, 100), "sparse", rates=RARE),
    Design((8, 60), "sparse"),
    Design((20, 180), "normal"),
    Design((20, 180), "uniform"),
    Design((20, 180), "sparse", rates=RARE),
    Design((40, 60), "uniform"),
    Design((29, 109), "sparse"),
    Design((29, 171), "sparse", rounds=(1, 12)),
    Design((29, 171), "sparse", rounds=(1, 12), later=1.0),
    Design((100, 100), "sparse", rounds=(6, 6)),
    Design((100, 100), "sparse", rounds=(1, 12), later=1.0),
)
LARGE = Design((211, 6189), "sparse", rates=RARE)
POWERS = (
    (Design((20, 200), "normal"), 0.8),
    (Design((20, 200), "wide"), 0.8),
    (Design((29, 109), "normal"), 1.3),
    (Design((100, 100), "sparse"), 0.8),
    (Design((20, 180), "sparse"), 1.3),
)


def p_values(test: str, data: Clusters) -> Floats:
    """The p of each feature, as the stage `compare.TEST` computes it."""
    design = design_of(data)
    between = {} if test == "kruskal" else {"between": ("a", "b")}
    work = make_work(PARAMS[f"compare.{test}"](by="group", **between))
    made = MAKERS[test](work, design)
    matrix = sparse.csr_array(data.values)
    sides = [moments(matrix[group.start : group.end], group.clusters) for group in design.groups]
    p: Floats = made.run(matrix, sides)["p"]
    return p


def p_within(data: Clusters, strata: int = 5) -> Floats:
    """The p of each feature by `compare.mann_whitney` with `within`."""
    design = design_of(data)
    work = make_work(PARAMS["compare.mann_whitney"](by="group", between=("a", "b")))
    cells = rank_cells(work, design).means(sparse.csr_array(data.values)).tocsc()
    first = design.group_of_cell == 0
    of_cell = np.arange(len(first)) % strata
    return van_elteren(
        [(ranked(cells[of_cell == one]), first[of_cell == one]) for one in range(strata)]
    )


def design_of(data: Clusters) -> groups.Design:
    """The design of a comparison of the two groups; `data` has the first group's rows first."""
    count, clusters = int(data.first.sum()), int(data.cluster[data.first].max()) + 1
    parts = (("a", 0, count, 0), ("b", count, len(data.first), clusters))
    made = []
    for name, start, end, shift in parts:
        own = data.cluster[start:end] - shift
        units = int(own.max()) + 1
        made.append(groups.Group(name, start, end, own, units=units, prompts=end - start))
    return groups.Design(
        [f"n{row}" for row in range(len(data.first))],
        tuple(made),
        data.cluster,
        np.repeat([0, 1], [group.count for group in made]),
        data.cluster,
        [],
    )


def found(p: Floats, family: int) -> int:
    """How many features are discoveries."""
    return int((benjamini_hochberg(p, family) <= ALPHA).sum())


def null_row(design: Design, sets: int, features: int, first: int = 0) -> dict[str, str]:
    """One row: for each test the share of sets with any discovery, and their mean number. Sets are
    numbered from `first`.
    """
    counts: dict[str, list[int]] = {test: [] for test in (*MAKERS, WITHIN)}
    for seed in range(first, first + sets):
        data = design.make(seed, features)
        for test in MAKERS:
            counts[test].append(found(p_values(test, data), features))
        counts[WITHIN].append(found(p_within(data), features))
    return {
        test: f"{np.mean(np.array(own) > 0):.3f} ({np.mean(own):.2f})"
        for test, own in counts.items()
    }


def power_row(design: Design, d: float, sets: int, features: int, first: int = 0) -> dict[str, str]:
    """One row: the share found of the features that differ, one in ten of a set."""
    differing = max(features // 10, 1)
    shares: dict[str, list[float]] = {}
    for seed in range(first, first + sets):
        data = design.make(seed, features)
        moved = design.make(seed, features, d)
        data.values[:, :differing] = moved.values[:, :differing]
        for name, p in _tests_of_power(data).items():
            q = benjamini_hochberg(p, features)
            shares.setdefault(name, []).append(float((q[:differing] <= ALPHA).mean()))
    return {name: f"{np.mean(own):.2f}" for name, own in shares.items()}


def _tests_of_power(data: Clusters) -> dict[str, Floats]:
    """Our tests on clusters of one sample, and Welch's as in SciPy (`spread: own`)."""
    matrix = sparse.csr_array(data.values)
    count = int(data.first.sum())
    sides = [moments(part, np.arange(part.shape[0])) for part in (matrix[:count], matrix[count:])]
    return {
        "welch": welch(*sides).p,
        "welch, spread: own": welch(*sides, "own").p,
        "mann_whitney": mann_whitney(ranked(matrix.tocsc()), data.first).p,
    }


def table(title: str, rows: Mapping[str, Mapping[str, str]]) -> None:
    """A table as Markdown."""
    heads = list(next(iter(rows.values())))
    print(f"\n{title}\n\n| clusters, values | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells[head] for head in heads)} |", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Print all tables; exit code 1 where null screens call too many features causal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few small sets, to try the code")
    parser.add_argument("--sets", type=int, default=200, help="null sets of each design")
    parser.add_argument("--first", type=int, default=0, help="number of the first set")
    parser.add_argument("--features", type=int, default=1024, help="features of a set")
    given = parser.parse_args(arguments)
    sets, features = (2, 40) if given.tiny else (given.sets, given.features)
    bound = ALPHA + 2 * np.sqrt(ALPHA * (1 - ALPHA) / sets)
    first = given.first
    nulls = {design.describe(): null_row(design, sets, features, first) for design in NULLS}
    if not given.tiny:
        nulls[f"{LARGE.describe()} (4 sets)"] = null_row(LARGE, 4, features, first)
    title = (
        f"Share of {sets} null sets of {features} features with any discovery (bound {bound:.3f})"
    )
    table(title, nulls)
    powers: dict[str, Mapping[str, str]] = {
        f"{design.describe()}, d {d:g}": power_row(design, d, max(sets // 20, 2), features, first)
        for design, d in POWERS
    }
    table("Share found of the features that differ, one in ten", powers)
    import planted_nulls

    print("\nCausal screens of planted models\n", flush=True)
    size = ["--tiny"] if given.tiny else ["--sets", str(sets)]
    return planted_nulls.main([*size, "--first", str(first)])


if __name__ == "__main__":
    sys.exit(main())
