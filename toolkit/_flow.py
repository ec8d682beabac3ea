"""The whole program on one screen: load, resolve, plan, run, report.

The command line and Python call these functions. Each step is one folder: `_spec`, `_plugins`,
`_plan`, `_run`, `_report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit._plan.make_plan import make_plan
from toolkit._plan.plan import Plan
from toolkit._plan.resolve import resolve
from toolkit._plugins.loading import load_parts
from toolkit._plugins.registry import Parts
from toolkit._report.contents import contents_of
from toolkit._report.findings import findings_of
from toolkit._report.page import report_of
from toolkit._run.events import Listener, ReportWritten
from toolkit._run.interrupts import Interrupts
from toolkit._run.options import RunOptions
from toolkit._run.run_plan import run_plan
from toolkit._run.target import SpecData, open_target
from toolkit.work import Finding


@dataclass(frozen=True)
class Planned:
    """A plan, the parts that it is bound to, and the options that it was made with."""

    plan: Plan
    parts: Parts
    options: RunOptions


@dataclass(frozen=True)
class Outcome:
    """A finished run: its id, its main results, and the path of its report."""

    run: str
    findings: Sequence[Finding]
    report: Path


def plan(target: str | SpecData, options: RunOptions) -> Planned:
    """Turn a spec file, or a recorded run, into a plan. Loads no weights and starts no worker."""
    loaded, options = open_target(target, options)
    parts = load_parts(options.plugins)
    resolved = resolve(loaded, parts, options.overlays, options.sets)
    return Planned(make_plan(resolved, parts, options.on), parts, options)


def run(planned: Planned, show: Listener) -> Outcome:
    """Run a plan to its report. The same call continues a run that was cut off."""
    with Interrupts().listening() as interrupts:
        result = run_plan(
            planned.plan, planned.parts, planned.options, show, interrupts, contents_of
        )
        report = interrupts.obey(lambda: report_of(result, planned.parts))
        findings = interrupts.obey(lambda: findings_of(result.inputs(), planned.parts))
    show(ReportWritten(run=result.run, path=str(report), findings=tuple(findings)))
    return Outcome(result.run, findings, report)
