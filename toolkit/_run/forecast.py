"""A plan compared with a store: for each stage its steps, how many are committed, and why the
others would be computed.

A stage whose inputs are not committed cannot be expanded: its steps are shown as unknown ("?")
until then. Each row has two costs of the remaining steps: `cost`, a bound where games, thresholds
or data decide, and `expected`. A stage that is equal to an earlier one of the plan, reached by
another route, is computed with that one and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._plan.costs import Loads, as_row, rows_of
from toolkit._plan.keys import canonical
from toolkit._plan.plan import Plan, Stage, Step, is_source
from toolkit._plan.power import power_of
from toolkit._run.events import StageCost
from toolkit._run.history import forecast_seconds, reason, rows_per_unit
from toolkit._run.inputs import InputFiles
from toolkit._run.run_folder import at_uri
from toolkit._run.stage_progress import compare_with_store
from toolkit.costs import Workload
from toolkit.ledger import StepRow

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store import Store


def annotate(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """One row per stage. Without a store everything is new, and lancedb is not imported to find
    that out.
    """
    store = _store(folder)
    committed: dict[str, list[StepRow]] = {}
    rows = _rows(plan, store, committed)

    def read(table: str, steps: Sequence[StepRow]) -> pa.Table:
        assert store is not None
        return store.read(table, [step.key for step in steps])

    return [
        {**row, "power": power_of(plan, stage, committed, read if store else None)}
        for row, stage in zip(rows, plan.stages, strict=True)
    ]


def _rows(
    plan: Plan, store: Store | None, committed: dict[str, list[StepRow]]
) -> list[dict[str, Any]]:
    """The rows without the power of comparisons. Complete stages are added to `committed`."""
    if store is None:
        loads = BothLoads.of_plan(plan, lambda stage: None)
        new = (_row(stage, "?", 0, "new: there is no store yet") for stage in plan.stages)
        return _once(
            plan,
            [_priced(row, stage, loads, None) for row, stage in zip(new, plan.stages, strict=True)],
        )
    inputs, opened = InputFiles(store, store.folder), store

    def samples(stage: Stage) -> pa.Table | None:
        sources = {need: committed.get(need) for need in stage.needs if is_source(need)}
        known = {need: steps for need, steps in sources.items() if steps is not None}
        return inputs.samples(stage, known) if sources and len(known) == len(sources) else None

    @cache
    def ledger() -> list[StepRow]:
        return opened.steps()

    loads = BothLoads.of_plan(plan, samples, lambda stage: rows_per_unit(stage, ledger()))
    return _once(plan, [_annotated(stage, store, committed, loads) for stage in plan.stages])


def stage_costs(plan: Plan, folder: Path) -> Iterator[StageCost]:
    """The expected cost of each stage with steps to compute, if it is known."""
    for row in _rows(plan, _store(folder), {}):
        cost = row["expected"]
        if cost is not None and cost["known"]:
            yield StageCost(
                stage=row["stage"],
                texts=cost["forwards"],
                operations=cost["flops"],
                rows=cost["table_rows"],
                stored=cost["disk"],
            )


def _store(folder: Path) -> Store | None:
    """The existing store, or None. Whether there is one at a URI can only be found out there, not
    from its local folder.
    """
    if not at_uri(folder) and (
        not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    ):
        return None
    from toolkit_store import NoStore, open_store

    try:
        return open_store(folder, read_only=True)
    except NoStore:
        return None


@dataclass(frozen=True)
class BothLoads:
    """The workloads of a plan's stages: bounds, and what is expected."""

    bounds: Loads
    expected: Loads

    @classmethod
    def of_plan(
        cls,
        plan: Plan,
        samples: Callable[[Stage], pa.Table | None],
        earlier: Callable[[Stage], Mapping[str, float]] = lambda stage: {},
    ) -> BothLoads:
        """The workloads with the samples that exist, and rows as in earlier steps."""
        return cls(Loads(plan, samples), Loads(plan, samples, expected=True, earlier=earlier))


def _once(plan: Plan, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows; a stage that equals an earlier one gets `same_as` and no cost."""
    signatures: dict[str, str] = {}
    originals: dict[str, str] = {}
    once = []
    for stage, row in zip(plan.stages, rows, strict=True):
        needs = [signatures[need] for need in stage.needs]
        signatures[stage.id] = canonical({**stage.material(), "needs": needs})
        twin = originals.setdefault(signatures[stage.id], stage.id)
        if twin == stage.id:
            once.append({**row, "same_as": None})
        else:
            why = row["why"] if row["why"] == "-" else f"with {twin}, which is the same"
            nothing = dict.fromkeys(("cost", "whole", "expected", "seconds"))
            once.append({**row, **nothing, "why": why, "same_as": twin})
    return once


def _annotated(
    stage: Stage, store: Store, committed: dict[str, list[StepRow]], loads: BothLoads
) -> dict[str, Any]:
    progress = compare_with_store(stage, store, committed)
    if progress is None:
        missing = ", ".join(need for need in stage.needs if need not in committed)
        return _priced(_row(stage, "?", 0, f"waits for {missing}"), stage, loads, None)
    todo, steps = progress.todo, len(progress.steps)
    there = len({row.key for row in progress.rows})
    imported = len({row.key for row in progress.rows if row.origin})
    if not todo:
        row = _row(stage, str(steps), there, "-") | {"imported": imported}
        return {**row, "whole": _cost_row(stage, loads.bounds, loads.bounds.of(stage))}
    earlier = store.steps(experiment=stage.experiment, stage=stage.id)
    reasons = sorted({reason(step, earlier) for step in todo})
    row = _row(
        stage,
        str(steps),
        there,
        "; ".join(reasons[:2]),
        forecast_seconds(todo, earlier, stage, loads.expected.of(stage)),
    )
    row["imported"] = imported
    return _priced(row, stage, loads, lambda of: _left(stage, todo, progress.samples, of))


def _left(
    stage: Stage, todo: Sequence[Step], samples: pa.Table | None, loads: Loads
) -> Workload | None:
    """The workload of the steps that are not committed yet."""
    if samples is not None:
        return loads.of(stage, rows_of(todo, samples))
    ranges = [(step.first or 0, step.last or 0) for step in todo]
    load = loads.of(stage)
    if not load or not load.units:
        return load
    units = sum(last - first for first, last in ranges)
    written = {table: rows * units // load.units for table, rows in load.written.items()}
    return replace(load, units=units, written=written)


def _priced(
    row: dict[str, Any],
    stage: Stage,
    loads: BothLoads,
    left_of: Callable[[Loads], Workload | None] | None,
) -> dict[str, Any]:
    """A stage's row with the cost of the remaining steps (by default all of them), and of the whole
    stage, since sinks write all of it.
    """
    whole, expected = loads.bounds.of(stage), loads.expected.of(stage)
    left = whole if left_of is None else left_of(loads.bounds)
    expected_left = expected if left_of is None else left_of(loads.expected)
    return {
        **row,
        "cost": _cost_row(stage, loads.bounds, left),
        "expected": _cost_row(stage, loads.expected, expected_left),
        "whole": _cost_row(stage, loads.bounds, whole),
    }


def _cost_row(stage: Stage, loads: Loads, load: Workload | None) -> dict[str, Any] | None:
    return as_row(stage, load, loads.cost)


def _row(
    stage: Stage, steps: str, there: int, why: str, seconds: float | None = None
) -> dict[str, Any]:
    named: dict[str, Any] = {"stage": stage.id, "part": stage.part.name, "on": stage.on}
    named["needs"] = list(stage.needs)
    counts = {"steps": steps, "there": there, "imported": 0}
    costs = dict.fromkeys(("cost", "expected", "whole"))
    return {**named, **counts, "seconds": seconds, "why": why, **costs}
