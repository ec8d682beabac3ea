"""A plan compared with a store: for each stage its steps, how many are committed, and why the
others would be computed.

A stage whose inputs are not committed cannot be expanded: its steps are shown as unknown ("?")
until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._plan.costs import Loads, as_row, rows_of
from toolkit._plan.plan import Plan, Stage, Step, is_source
from toolkit._plan.power import power_of
from toolkit._run.history import forecast_seconds, reason
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
    if store is None:
        loads = Loads(plan, lambda stage: None)
        new = (_row(stage, "?", 0, "new: there is no store yet") for stage in plan.stages)
        rows = [
            _priced(row, stage, loads.of(stage), loads)
            for row, stage in zip(new, plan.stages, strict=True)
        ]
        return [
            {**row, "power": power_of(plan, stage, {}, None)}
            for row, stage in zip(rows, plan.stages, strict=True)
        ]
    committed: dict[str, list[StepRow]] = {}
    inputs = InputFiles(store, store.folder)

    def samples(stage: Stage) -> pa.Table | None:
        sources = {need: committed.get(need) for need in stage.needs if is_source(need)}
        known = {need: steps for need, steps in sources.items() if steps is not None}
        return inputs.samples(stage, known) if sources and len(known) == len(sources) else None

    loads = Loads(plan, samples)
    rows = [_annotated(stage, store, committed, loads) for stage in plan.stages]

    def read(table: str, steps: Sequence[StepRow]) -> pa.Table:
        return store.read(table, [step.key for step in steps])

    return [
        {**row, "power": power_of(plan, stage, committed, read)}
        for row, stage in zip(rows, plan.stages, strict=True)
    ]


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


def _annotated(
    stage: Stage, store: Store, committed: dict[str, list[StepRow]], loads: Loads
) -> dict[str, Any]:
    progress = compare_with_store(stage, store, committed)
    if progress is None:
        missing = ", ".join(need for need in stage.needs if need not in committed)
        return _priced(_row(stage, "?", 0, f"waits for {missing}"), stage, loads.of(stage), loads)
    todo, steps = progress.todo, len(progress.steps)
    there = len({row.key for row in progress.rows})
    imported = len({row.key for row in progress.rows if row.origin})
    if not todo:
        row = _row(stage, str(steps), there, "-") | {"imported": imported}
        return _priced(row, stage, None, loads)
    earlier = store.steps(experiment=stage.experiment, stage=stage.id)
    reasons = sorted({reason(step, earlier) for step in todo})
    row = _row(
        stage,
        str(steps),
        there,
        "; ".join(reasons[:2]),
        forecast_seconds(todo, earlier, stage, loads.of(stage)),
    )
    row["imported"] = imported
    return _priced(row, stage, _left(stage, todo, progress.samples, loads), loads)


def _left(
    stage: Stage, todo: Sequence[Step], samples: pa.Table | None, loads: Loads
) -> Workload | None:
    """The workload of the steps that are not committed yet."""
    if samples is not None:
        return loads.of(stage, rows_of(todo, samples))
    ranges = [(step.first or 0, step.last or 0) for step in todo]
    load = loads.of(stage)
    return (
        replace(load, units=sum(last - first for first, last in ranges))
        if load and load.units
        else load
    )


def _priced(
    row: dict[str, Any], stage: Stage, left: Workload | None, loads: Loads
) -> dict[str, Any]:
    """A stage's row with the cost of what is left, and of the whole stage, since sinks write all of
    it.
    """
    return {**row, "cost": as_row(stage, left), "whole": as_row(stage, loads.of(stage))}


def _row(
    stage: Stage, steps: str, there: int, why: str, seconds: float | None = None
) -> dict[str, Any]:
    named: dict[str, Any] = {"stage": stage.id, "part": stage.part.name, "on": stage.on}
    named["needs"] = list(stage.needs)
    counts = {"steps": steps, "there": there, "imported": 0}
    return {**named, **counts, "seconds": seconds, "why": why, "cost": None}
