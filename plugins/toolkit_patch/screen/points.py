"""Decision points: distinct prompts with the units they come from, and which of them are one piece
of evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.randomness import half
from toolkit.selectors import Read, Where, selected

if TYPE_CHECKING:
    import numpy as np

    from toolkit.work import Work


@dataclass(frozen=True)
class Point:
    """A distinct prompt. `owners`: the samples that have it, with their units; `clusters`: the
    clusters and the states of these samples; `position`: of the token that is edited.
    """

    text: str
    ids: tuple[int, ...]
    owners: tuple[tuple[str, str], ...]
    clusters: tuple[str, ...] = ()
    position: int | None = None


def decision_points(work: Work, count: int, part: str, at: Where = "last") -> list[Point]:
    """At most `count` samples of that half of the units, in an order drawn by seed: one of each
    unit before a second of any. Equal prompts are one point. `at` chooses the edited token.
    """
    columns = ["sample", "unit", "cluster", "text", "token_ids", "pieces", "spans"]
    rows = work.inputs.read("samples").select(columns).to_pylist()
    if part != "all":
        rows = [row for row in rows if half(work.seed, row["unit"]) == part]
    if not rows:
        raise DataError(
            f"half: no decision point is left in the half of the units that {part}s. Play more "
            "games, or `half: all`."
        )
    if at != "last":
        rows = _with_positions(work, rows, at)
    states = _states(work)
    prompts: dict[tuple[tuple[int, ...], int], list[dict[str, Any]]] = {}
    for row in _one_of_each_unit_first(work, rows)[:count]:
        ids = tuple(row["token_ids"])
        prompts.setdefault((ids, row.get("position", len(ids) - 1)), []).append(row)
    return [
        Point(
            same[0]["text"],
            ids,
            tuple((row["sample"], row["unit"]) for row in same),
            _clusters(same, states),
            position,
        )
        for (ids, position), same in sorted(prompts.items())
    ]


def _with_positions(work: Work, rows: Sequence[dict[str, Any]], at: Where) -> list[dict[str, Any]]:
    """The rows in which `at` finds a token, with its position."""
    found = []
    for row in rows:
        positions = selected(at, Read.of(row), work.model.bos_id)
        if len(positions) > 1:
            raise DataError(
                f"at: {len(positions)} tokens of sample '{row['sample']}' are selected, and a "
                "screen edits one. Say which: `take: first` or `take: last`."
            )
        if positions:
            found.append({**row, "position": positions[0]})
    if not found:
        raise DataError("at: no token of any decision point is selected. Ask for one they have.")
    if len(found) < len(rows):
        left = len(rows) - len(found)
        text = f"{left} of {len(rows)} decision points have no token that `at` selects; left out"
        work.report.event("warning", text=text)
    return found


def _states(work: Work) -> dict[str, str]:
    """The state of each decision, where its source gives one."""
    if "sample_meta" not in work.inputs.tables():
        return {}
    rows = work.inputs.read("sample_meta").to_pylist()
    return {row["sample"]: str(row["string"]) for row in rows if row["key"] == "state"}


def _clusters(rows: Sequence[dict[str, Any]], states: Mapping[str, str]) -> tuple[str, ...]:
    """What makes these samples one piece of evidence with others."""
    prompts = {str(row["cluster"]) for row in rows}
    equal = {f"state {states[row['sample']]}" for row in rows if row["sample"] in states}
    return tuple(sorted(prompts | equal))


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
