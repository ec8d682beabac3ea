"""Decision points: distinct prompts with the units they come from, and which of them are one piece
of evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.randomness import half

if TYPE_CHECKING:
    import numpy as np

    from toolkit.work import Work


@dataclass(frozen=True)
class Point:
    """A distinct prompt. `owners`: the samples that have it, with their units; `clusters`: the
    clusters of these samples.
    """

    text: str
    ids: tuple[int, ...]
    owners: tuple[tuple[str, str], ...]
    clusters: tuple[str, ...] = ()


def decision_points(work: Work, count: int, part: str) -> list[Point]:
    """At most `count` samples of that half of the units, in an order drawn by seed: one of each
    unit before a second of any. Equal prompts are one point.
    """
    columns = ["sample", "unit", "cluster", "text", "token_ids"]
    rows = work.inputs.read("samples").select(columns).to_pylist()
    if part != "all":
        rows = [row for row in rows if half(work.seed, row["unit"]) == part]
    if not rows:
        raise DataError(
            f"half: no decision point is left in the half of the units that {part}s. Play more "
            "games, or `half: all`."
        )
    prompts: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in _one_of_each_unit_first(work, rows)[:count]:
        prompts.setdefault(tuple(row["token_ids"]), []).append(row)
    return [
        Point(
            same[0]["text"],
            ids,
            tuple((row["sample"], row["unit"]) for row in same),
            tuple(sorted({row["cluster"] for row in same})),
        )
        for ids, same in sorted(prompts.items())
    ]


def _one_of_each_unit_first(work: Work, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    drawn = sorted(rows, key=lambda row: float(work.rng("patch.points", row["sample"]).random()))
    earlier: dict[str, int] = {}
    ranked: list[tuple[int, int, dict[str, Any]]] = []
    for place, row in enumerate(drawn):
        ranked.append((earlier.setdefault(row["unit"], 0), place, row))
        earlier[row["unit"]] += 1
    return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])]


def weights_of(points: Sequence[Point]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How many samples each point stands for."""
    import numpy as np

    return np.array([float(len(point.owners)) for point in points])


def clusters_of(points: Sequence[Point]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Points that share a unit or a cluster of samples, directly or through others, are one
    cluster.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names: dict[tuple[str, str], int] = {}
    links = []
    for number, point in enumerate(points):
        shared = [("unit", unit) for _, unit in point.owners]
        shared += [("cluster", cluster) for cluster in point.clusters]
        links += [(number, names.setdefault(name, len(names))) for name in shared]
    rows, columns = np.array(links).T
    size = len(points) + len(names)
    graph = coo_array((np.ones(len(links)), (rows, columns + len(points))), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(points)]
    return np.unique(labels, return_inverse=True)[1]
