"""The points of a sweep, one row each: values, progress of the stages, first finding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit._report.findings import findings_in
from toolkit._run.progress import RunProgress
from toolkit._spec.sweep import SweepPoint, sweep_points
from toolkit.parts import ReportSection
from toolkit.work import RunInputs

SAMPLES = "samples"
InputsOf = Callable[[Collection[str]], RunInputs]
"""The tables of some steps, by their keys."""


@dataclass(frozen=True)
class SweepRow:
    """One point."""

    values: Sequence[str]
    """One value per path, in the order of the paths."""
    stages: Sequence[str]
    """The ids of its stages in the run."""
    steps: int
    """Steps that are done."""
    finding: str
    """Its first finding."""


@dataclass(frozen=True)
class Sweep:
    """All points of a run."""

    paths: list[str]
    rows: Sequence[SweepRow]


def sweep_of(
    manifest: Mapping[str, Any],
    run: RunProgress,
    inputs_of: InputsOf,
    sections: Sequence[ReportSection],
) -> Sweep | None:
    """The sweep of a run; None if the run is not a sweep."""
    spec = manifest.get("spec")
    points = sweep_points(spec) if isinstance(spec, Mapping) and spec.get("sweep") else []
    if not points:
        return None
    rows = [_row(point, run, inputs_of, sections) for point in points]
    return Sweep(list(points[0].values), rows)


def _row(
    point: SweepPoint, run: RunProgress, inputs_of: InputsOf, sections: Sequence[ReportSection]
) -> SweepRow:
    stages = list(point.stages.values())
    known = {stage for stage, _ in run.steps}
    sources = {f"{stage}.{SAMPLES}" for stage in stages} & known
    read = {*stages, *(sources or {SAMPLES})}
    keys = {key for stage, key in run.steps if stage in read}
    findings = findings_in(inputs_of(keys), sections)
    return SweepRow(
        [str(value) for value in point.values.values()],
        stages,
        len(keys),
        findings[0].sentence if findings else "",
    )
