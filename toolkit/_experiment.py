"""Experiments from Python: load a spec, check it, plan it, run it. The command line does the same.

experiment = toolkit.load("specs/quickstart.yaml", sets=["stages.play.with.reps=8"])
experiment.plan().total.memory
outcome = experiment.run()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit._flow import Outcome, Planned
    from toolkit._run.options import RunOptions
    from toolkit.costs import Cost


@dataclass(frozen=True)
class ExperimentPlan:
    """What a run would do, as `toolkit plan` prints it."""

    run: str
    """The id that the run would have."""
    stages: Sequence[Mapping[str, Any]]
    """One row per stage: its part, needs, steps, why they are computed, and their cost."""
    total: Cost
    """The cost of all stages together."""


@dataclass(frozen=True)
class Experiment:
    """A spec, or a recorded run, with the options that change it."""

    target: str
    options: RunOptions

    def check(self) -> str:
        """Check keys, parts, values, tables and labels, and return the id that the run would have.
        A mistake is a `toolkit.errors.BadInput` that says where it is and what is allowed.
        """
        return self._planned().plan.run

    def plan(self) -> ExperimentPlan:
        """Say what would run and what it costs. Nothing is run."""
        from toolkit._plan.costs import total_of
        from toolkit._run.forecast import annotate
        from toolkit._run.run_folder import store_folder

        plan = self._planned().plan
        rows = annotate(plan, store_folder(self.options.store))
        return ExperimentPlan(plan.run, rows, total_of(row["cost"] for row in rows))

    def run(self, *, quiet: bool = False) -> Outcome:
        """Run it, or continue it; returns its id, findings and the path of its report. Progress
        goes to stderr unless `quiet`.
        """
        from toolkit import _flow
        from toolkit._run.display import NORMAL, QUIET, display

        with display(verbosity=QUIET if quiet else NORMAL) as show:
            return _flow.run(self._planned(), show)

    def _planned(self) -> Planned:
        from toolkit import _flow

        return _flow.plan(self.target, self.options)


def load(
    target: str | Path,
    *,
    overlay: str | Path | Sequence[str | Path] = (),
    sets: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    on: str = "local",
    gpu: str | None = None,
    store: str | Path | None = None,
) -> Experiment:
    """An experiment from a spec file or a run's id. The options mean what they mean on the command
    line; nothing is read before `check`, `plan` or `run`.
    """
    from toolkit._run.options import RunOptions

    overlays = [overlay] if isinstance(overlay, (str, Path)) else overlay
    options = RunOptions(
        sets=tuple(sets),
        overlays=tuple(map(Path, overlays)),
        plugins=tuple(map(Path, plugins)),
        on=on,
        gpu=gpu,
        store=None if store is None else str(store),
    )
    return Experiment(str(target), options)
