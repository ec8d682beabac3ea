"""Decision points: distinct prompts with the units they come from, and the clusters of points that
are one piece of evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.samples.selectors import SelectorText, Where, selected
from toolkit.statistics.randomness import half

if TYPE_CHECKING:
    import numpy as np

    from toolkit.work import Work


@dataclass(frozen=True)
class Point:
    """A distinct prompt. `owners`: the samples that have it, with their units; `clusters`: the
    clusters and the states of these samples; `position`: of the edited token.
    """

    text: str
    ids: tuple[int, ...]
    owners: tuple[tuple[str, str], ...]
    clusters: tuple[str, ...] = ()
    position: int | None = None


def decision_points(work: Work, count: int, part: str, selector: Where = "last") -> list[Point]:
    """At most `count` samples from half `part` of the units, in an order drawn by seed: one of each
    unit before a second of any. Equal prompts are one point. `selector` chooses the edited token.
    """
    columns = ["sample", "unit", "cluster", "text", "token_ids", "pieces", "spans"]
    rows = work.inputs.read("samples").select(columns).to_pylist()
    if part != "all":
        rows = [row for row in rows if half(work.seed, row["unit"]) == part]
    if not rows:
        raise DataError(
            f"half: there is no decision point in the `{part}` half of the units. Play more "
            "games, or `half: all`."
        )
    if selector != "last":
        rows = _with_positions(work, rows, selector)
    states = _decision_states(work)
    prompts: dict[tuple[tuple[int, ...], int], list[dict[str, Any]]] = {}
    for row in _units_in_turn(work, rows)[:count]:
        ids = tuple(row["token_ids"])
        prompts.setdefault((ids, row.get("position", len(ids) - 1)), []).append(row)
    return [
        Point(
            prompt_rows[0]["text"],
            ids,
            tuple((row["sample"], row["unit"]) for row in prompt_rows),
            _cluster_names(prompt_rows, states),
            position,
        )
        for (ids, position), prompt_rows in sorted(prompts.items())
    ]


def _with_positions(
    work: Work, rows: Sequence[dict[str, Any]], selector: Where
) -> list[dict[str, Any]]:
    """The rows in which the selector finds a token, with its position."""
    results = []
    for row in rows:
        positions = selected(selector, SelectorText.of(row), work.model.bos_id)
        if len(positions) > 1:
            raise DataError(
                f"at: {len(positions)} tokens of sample '{row['sample']}' are selected, and "
                "a screen edits one. Choose with `take: first` or `take: last`."
            )
        if positions:
            results.append({**row, "position": positions[0]})
    if not results:
        raise DataError(
            "at: no token of any decision point is selected. Choose a selector that matches one."
        )
    if len(results) < len(rows):
        skipped = len(rows) - len(results)
        text = f"{skipped} of {len(rows)} decision points have no token that `at` selects; left out"
        work.report.event("warning", text=text)
    return results


def _decision_states(work: Work) -> dict[str, str]:
    """The state of each decision, if its source gives one."""
    if "sample_meta" not in work.inputs.tables():
        return {}
    rows = work.inputs.read("sample_meta").to_pylist()
    return {row["sample"]: str(row["string"]) for row in rows if row["key"] == "state"}


def _cluster_names(rows: Sequence[dict[str, Any]], states: Mapping[str, str]) -> tuple[str, ...]:
    """Names that tie samples into one piece of evidence: their prompts and their states."""
    prompt_names = {str(row["cluster"]) for row in rows}
    state_names = {f"state {states[row['sample']]}" for row in rows if row["sample"] in states}
    return tuple(sorted(prompt_names | state_names))


def _units_in_turn(work: Work, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in an order drawn by seed, one of each unit before a second of any."""
    shuffled = sorted(rows, key=lambda row: float(work.rng("patch.points", row["sample"]).random()))
    count_by_unit: dict[str, int] = {}
    ranked: list[tuple[int, int, dict[str, Any]]] = []
    for order, row in enumerate(shuffled):
        ranked.append((count_by_unit.setdefault(row["unit"], 0), order, row))
        count_by_unit[row["unit"]] += 1
    return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])]


def weights_of(points: Sequence[Point]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The number of samples at each point."""
    import numpy as np

    return np.array([float(len(point.owners)) for point in points])


def clusters_of(points: Sequence[Point]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The cluster of each point. Points that share a unit or a cluster of samples, directly or
    through others, are one cluster.
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
