"""A plan laid beside a store: for each stage its steps, how many are committed, and why the others would be computed.

A stage whose inputs are not committed cannot be expanded: its steps are shown as unknown ("?") until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._costs import Loads, as_row
from toolkit._inputs import InputFiles
from toolkit._plan import Plan, Stage, Step, expand, foretold, is_source, reason
from toolkit._power import power_of
from toolkit.records import StepRow, Workload

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store import Store


def annotate(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """One row a stage. Without a store everything is new, and lancedb is not imported to find that out."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        loads = Loads(plan, lambda stage: None)
        rows = [_priced(_row(stage, "?", 0, "new: there is no store yet"), stage, loads.of(stage)) for stage in plan.stages]
        return [{**row, "power": power_of(plan, stage, {}, None)} for row, stage in zip(rows, plan.stages, strict=True)]
    from toolkit_store import open_store

    store = open_store(folder, read_only=True)
    committed: dict[str, list[StepRow]] = {}
    inputs = InputFiles(store, store.folder)

    def samples(stage: Stage) -> pa.Table | None:
        sources = {need: committed.get(need) for need in stage.needs if is_source(need)}
        known = {need: steps for need, steps in sources.items() if steps is not None}
        return inputs.samples(stage, known) if sources and len(known) == len(sources) else None

    loads = Loads(plan, samples)
    rows = [_annotated(plan, stage, store, committed, loads) for stage in plan.stages]

    def read(table: str, steps: Sequence[StepRow]) -> pa.Table:
        return store.read(table, [step.key for step in steps])

    return [{**row, "power": power_of(plan, stage, committed, read)} for row, stage in zip(rows, plan.stages, strict=True)]


def _annotated(plan: Plan, stage: Stage, store: Store, committed: dict[str, list[StepRow]], loads: Loads) -> dict[str, Any]:
    if any(need not in committed for need in stage.needs):
        missing = ", ".join(need for need in stage.needs if need not in committed)
        return _priced(_row(stage, "?", 0, f"waits for {missing}"), stage, loads.of(stage))
    needs = {need: committed[need] for need in stage.needs}
    samples = InputFiles(store, store.folder).samples(stage, needs) if stage.over_samples() else None
    steps = expand(stage, needs, samples)
    rows = store.steps([step.key for step in steps])
    there = {row.key for row in rows}
    todo = [step for step in steps if step.key not in there]
    if not todo:
        committed[stage.id] = rows
        return _row(stage, str(len(steps)), len(there), "-")
    earlier = store.steps(experiment=stage.experiment, stage=stage.id)
    reasons = sorted({reason(step, earlier) for step in todo})
    row = _row(stage, str(len(steps)), len(there), "; ".join(reasons[:2]), foretold(len(todo), earlier, stage))
    return _priced(row, stage, _left(stage, todo, samples, loads))


def _left(stage: Stage, todo: Sequence[Step], samples: pa.Table | None, loads: Loads) -> Workload | None:
    """What the steps that are not there yet have before them."""
    import pyarrow as pa

    ranges = [(step.first or 0, step.last or 0) for step in todo]
    if samples is not None:
        return loads.of(stage, pa.concat_tables([samples.slice(first, last - first) for first, last in ranges]))
    load = loads.of(stage)
    return replace(load, units=sum(last - first for first, last in ranges)) if load and load.units else load


def _priced(row: dict[str, Any], stage: Stage, load: Workload | None) -> dict[str, Any]:
    return {**row, "cost": as_row(stage, load)}


def _row(stage: Stage, steps: str, there: int, why: str, seconds: float | None = None) -> dict[str, Any]:
    named = {"stage": stage.id, "part": stage.part.name, "needs": list(stage.needs)}
    return {**named, "steps": steps, "there": there, "seconds": seconds, "why": why, "cost": None}
