"""A stage compared with a store: its steps, and which of them are committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit._plan.expand import expand
from toolkit._plan.plan import Plan, Stage, Step
from toolkit._run.inputs import InputFiles
from toolkit.ledger import StepRow

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_store import Store


@dataclass(frozen=True)
class StageProgress:
    """The steps of a stage, the ledger rows of the committed ones, and the samples that their
    ranges refer to.
    """

    steps: list[Step]
    rows: list[StepRow]
    samples: pa.Table | None

    @property
    def todo(self) -> list[Step]:
        """The steps that are not committed."""
        committed = {row.key for row in self.rows}
        return [step for step in self.steps if step.key not in committed]


def compare_with_store(
    stage: Stage, store: Store, committed: dict[str, list[StepRow]]
) -> StageProgress | None:
    """The steps of a stage and which of them the store has; None while a stage that it needs is not
    in `committed`. A complete stage is added to `committed`.
    """
    if any(need not in committed for need in stage.needs):
        return None
    needs = {need: committed[need] for need in stage.needs}
    samples = (
        InputFiles(store, store.folder).samples(stage, needs) if stage.over_samples() else None
    )
    steps = expand(stage, needs, samples)
    progress = StageProgress(steps, store.steps([step.key for step in steps]), samples)
    if not progress.todo:
        committed[stage.id] = progress.rows
    return progress


def committed_counts(plan: Plan, store: Store) -> dict[str, int]:
    """How many steps of each stage are committed, compared by content: the name of the spec does
    not matter.
    """
    committed: dict[str, list[StepRow]] = {}
    counts = {}
    for stage in plan.stages:
        progress = compare_with_store(stage, store, committed)
        if progress is not None:
            counts[stage.id] = len(progress.rows)
    return counts


def unfinished_stages(plan: Plan, store: Store) -> list[Stage]:
    """The stages that have steps to compute, or whose steps cannot be known yet."""
    committed: dict[str, list[StepRow]] = {}
    for stage in plan.stages:
        compare_with_store(stage, store, committed)
    return [stage for stage in plan.stages if stage.id not in committed]
