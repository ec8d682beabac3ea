"""The report of a run: one self-contained HTML file, so that it can be mailed, archived and opened
in ten years.

Making it only reads (manifest, events, committed tables), so it can be made again at any time, also
for an unfinished run. A failing section of a plugin becomes a visible box; the rest of the report
is still written.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._report import facts
from toolkit._report.findings import findings_with_sections, has_rows
from toolkit._report.sections import Section, SectionError, lead_of
from toolkit._report.summaries import summaries_of
from toolkit._report.sweep import InputsOf, sweep_of
from toolkit._run.atomic import write_bytes
from toolkit._run.event_log import read_events
from toolkit._run.events import RunEvent, time_in_words
from toolkit._run.inputs import StoreInputs
from toolkit._run.manifest import read_manifest
from toolkit._run.preregister import describe
from toolkit._run.progress import RunProgress, progress_of
from toolkit._run.run_folder import REPORT, run_folder
from toolkit._run.run_plan import RunResult
from toolkit.ledger import StepRow
from toolkit.parts import ReportSection, TablePart
from toolkit.work import Finding, RunInputs

if TYPE_CHECKING:
    from jinja2 import Template

    from toolkit._plugins.registry import Parts
    from toolkit_store import Store

UNRECORDED = ("spec", "stages", "command")
"""Keys of the manifest that the page shows elsewhere."""


def report_of(result: RunResult, parts: Parts) -> Path:
    """Write the report of a run that has just ended, unless it has an identical one."""
    path = result.folder / REPORT
    if not result.computed and path.exists():
        return path
    return make_report(result.store, result.run, parts)


def make_report(store: Store, run: str, parts: Parts) -> Path:
    """Write the report of a run in `store` from its committed rows."""
    folder = run_folder(store.folder, run)
    events = read_events(folder)
    steps = _steps(store, run, events)
    return write_report(
        folder,
        read_manifest(folder),
        events,
        StoreInputs(store, {"": steps}),
        parts,
        inputs_of=lambda keys: StoreInputs(store, {"": [row for row in steps if row.key in keys]}),
        steps=steps,
        row_bytes=store.bytes_per_row(),
    )


def sections_of(store: Store, run: str, parts: Parts) -> list[Section]:
    """The sections of a run's report that have something to show."""
    steps = _steps(store, run, read_events(run_folder(store.folder, run)))
    return sections_in(StoreInputs(store, {"": steps}), parts)


def sections_in(inputs: RunInputs, parts: Parts) -> list[Section]:
    """The sections of these tables' report that have something to show."""
    return list(_sections(inputs, parts))


def _steps(store: Store, run: str, events: Iterable[RunEvent]) -> list[StepRow]:
    recorded = {key for row in store.run_states(run) for key in row.steps}
    return store.steps(sorted(recorded | set(progress_of(events).keys)))


def _report_parts(parts: Parts) -> list[ReportSection]:
    return [part for part in parts.of("report") if isinstance(part, ReportSection)]


def _table_parts(parts: Parts) -> list[TablePart]:
    return [part for part in parts.all() if isinstance(part, TablePart)]


def write_report(
    folder: Path,
    manifest: Mapping[str, Any],
    events: Iterable[RunEvent],
    inputs: RunInputs,
    parts: Parts,
    *,
    inputs_of: InputsOf | None = None,
    steps: Sequence[StepRow] = (),
    row_bytes: Mapping[str, float] | None = None,
) -> Path:
    """Write `report.html` into the run's folder atomically. `steps` adds the rows of reused steps,
    `row_bytes` what a row of each table takes in the store, and `inputs_of` the tables of the
    points of a sweep.
    """
    run = progress_of(events)
    known = {step.key: step for step in steps}
    sections = _report_parts(parts)
    made = list(_sections(inputs, parts))
    stated = findings_with_sections(inputs, sections)
    summaries = list(summaries_of(run, manifest, _table_parts(parts)))
    text = _template().render(
        **_page(manifest),
        **_run(manifest, run, known),
        costs=facts.costs(run, known, row_bytes or {}),
        sweep=inputs_of and sweep_of(manifest, run, inputs_of, sections),
        sections=made,
        findings=[finding for finding, _ in stated],
        lead=lead_of(made, [name for _, name in stated]),
        contents=_contents(made),
        summaries=summaries,
    )
    path = folder / REPORT
    write_bytes(path, text.replace("\0", "�").encode("utf-8", "backslashreplace"))
    return path


def _page(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The header and the end of the page."""
    spec = manifest.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    question, description = spec.get("question") or "", spec.get("description") or ""
    registered = manifest.get("preregistration")
    return {
        "policy": _policy(),
        "css": report_resource("report.css"),
        "script": report_resource("report.js"),
        "name": str(manifest.get("name") or manifest.get("run") or "run"),
        "run": str(manifest.get("run", "")),
        "question": question or description,
        "description": description if question else "",
        "command": manifest.get("command") or f"toolkit run {manifest.get('run', 'RUN_ID')}",
        "seed": manifest.get("seed"),
        "preregistration": describe(registered) if registered else "",
        "facts": {key: value for key, value in manifest.items() if key not in UNRECORDED},
        "recorded": manifest.get("stages") or (),
        "spec": _yaml(spec),
    }


def _run(
    manifest: Mapping[str, Any], run: RunProgress, known: Mapping[str, StepRow]
) -> dict[str, Any]:
    """The facts about how the run went."""
    computed = facts.computed_steps(run)
    return {
        "progress": run,
        "status": facts.STATES[run.state],
        "stages": facts.stage_facts(manifest, run, known),
        "tiles": facts.tiles(run, known, duration),
        "slowest": computed[: facts.MAX_SLOWEST],
        "timed": {
            "steps": len(computed),
            "seconds": sum(step.seconds for step in computed),
            "workers": len({step.worker for step in computed if step.worker}) or 1,
        },
        "forecasts": list(facts.forecasts(run)),
        "troubles": facts.troubles(run),
        "hidden_troubles": max(0, len(run.troubles) - facts.MAX_TROUBLES),
        "limits": list(facts.limits(manifest, run)),
    }


def _yaml(spec: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True)


def _sections(inputs: RunInputs, parts: Parts) -> Iterator[Section]:
    """The sections that have something to show, in their order."""
    for part in sorted(_report_parts(parts), key=lambda part: (part.order, part.name)):
        try:
            figures = list(part.run(inputs)) if has_rows(inputs, part) else []
        except Exception as error:  # a failing section of a plugin must not prevent the report
            yield Section(
                part.name, part.title, part.help, (), _section_error(parts.owner(part).name, error)
            )
            continue
        if figures:
            yield Section(part.name, part.title, part.help, figures)


def _section_error(plugin: str, error: Exception) -> SectionError:
    return SectionError(plugin, type(error).__name__, str(error) or "(no message)")


def _contents(sections: Sequence[Section]) -> list[tuple[str, str]]:
    standard = [
        ("methods", "Methods"),
        ("limits", "Limits"),
        ("troubles", "Warnings and failures"),
        ("provenance", "Provenance"),
        ("steps", "Steps"),
    ]
    return [*((f"section-{section.name}", section.title) for section in sections), *standard]


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(duration=duration, words=time_in_words, notes=notes)
    return environment.from_string(report_resource("report.html"))


@cache
def report_resource(name: str) -> str:
    """A file of the report's template."""
    return (files("toolkit") / "_report" / "template" / name).read_text(encoding="utf-8")


@cache
def _policy() -> str:
    """The content security policy: nothing is loaded, and only the page's own script runs, by its
    hash.
    """
    digest = hashlib.sha256(report_resource("report.js").encode()).digest()
    script = f"script-src 'sha256-{base64.b64encode(digest).decode()}'"
    rest = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {script}; {rest}"


def notes(finding: Finding) -> str:
    """The interval and number of units of a finding, and what reaches the same result without
    SAEs.
    """
    texts = []
    if finding.interval is not None:
        low, high = finding.interval
        texts.append(f"interval {low:.3g} to {high:.3g}")
    if finding.n is not None:
        texts.append(f"{finding.n:,} independent units")
    if finding.baseline:
        texts.append(finding.baseline)
    return "; ".join(texts)


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
