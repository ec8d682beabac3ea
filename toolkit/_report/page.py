"""The report of a run: one HTML file that loads nothing, so that it can be mailed, archived and
opened in ten years.

It only reads (manifest, events, committed tables) and can be made again at any time, also of a run
that is not finished. A plugin's section that fails becomes a visible box; it never takes the report
with it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._report.findings import has_rows
from toolkit._report.style import CSS
from toolkit._report.summaries import summaries_of
from toolkit._run import events as ev
from toolkit._run.atomic import write_bytes
from toolkit._run.event_log import read_events
from toolkit._run.events import RunEvent, time_in_words
from toolkit._run.inputs import StoreInputs
from toolkit._run.manifest import read_manifest
from toolkit._run.preregister import describe
from toolkit._run.progress import RunProgress, StepProgress, progress_of, seconds_between
from toolkit._run.run_folder import REPORT, run_folder
from toolkit._run.run_plan import RunResult
from toolkit.ledger import StepRow
from toolkit.parts import ReportSection, TablePart
from toolkit.work import Figure, Inputs

if TYPE_CHECKING:
    from toolkit._plugins.loading import Parts
    from toolkit_store import Store

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action "
    "'none'"
)
SHOWN_TROUBLES = 50
LEADING = 10
"""Sections of a lower order answer the run's question and stand before how it went."""
_STATES = {
    "done": ("good", "✓", "Done", "Every step is committed."),
    "running": (
        "part",
        "…",
        "Partial: running when this was written",
        "Steps still to come are missing below.",
    ),
    "interrupted": (
        "part",
        "◐",
        "Partial: interrupted",
        "Everything shown is committed; the command below continues.",
    ),
    "failed": (
        "bad",
        "✗",
        "Failed",
        "Everything shown is committed; the command below tries the rest again.",
    ),
}


def report_of(result: RunResult, parts: Parts) -> Path:
    """The report of a run that has just ended. One that says the same already is left as it is."""
    path = result.folder / REPORT
    if not result.computed and path.exists():
        return path
    return make_report(result.store, result.run, parts)


def make_report(store: Store, run: str, parts: Parts) -> Path:
    """Write the report of a run in `store` from what is committed now."""
    folder = run_folder(store.folder, run)
    events = read_events(folder)
    recorded = {key for row in store.run_states(run) for key in row.steps}
    steps = store.steps(sorted(recorded | set(progress_of(events).keys)))
    return write_report(
        folder,
        read_manifest(folder),
        events,
        StoreInputs(store, {"": steps}),
        [part for part in parts.of("report") if isinstance(part, ReportSection)],
        steps=steps,
        stage_parts=[part for part in parts.all() if isinstance(part, TablePart)],
    )


def write_report(
    folder: Path,
    manifest: Mapping[str, Any],
    events: Iterable[RunEvent],
    inputs: Inputs,
    sections: Sequence[ReportSection],
    *,
    steps: Sequence[StepRow] = (),
    stage_parts: Sequence[TablePart] = (),
) -> Path:
    """Write `report.html` into the run's folder, whole or not at all. `steps` adds the rows of
    steps that were reused, `stage_parts` what parts say about their own events.
    """
    run = progress_of(events)
    known = {step.key: step for step in steps}
    name = str(manifest.get("name") or manifest.get("run") or "run")
    leading = [section for section in sections if section.order < LEADING]
    following = [section for section in sections if section.order >= LEADING]
    body = [
        _banner(manifest, run, name),
        *_contributed(inputs, leading),
        _glance(run, known),
        _stages(manifest, run, known),
        *_contributed(inputs, following),
        _methods(manifest, summaries_of(run, manifest, stage_parts)),
        _timings(run),
        _forecasts(run),
        _troubles(run),
        _provenance(manifest),
    ]
    page = _page(name, str(manifest.get("run", "")), "\n".join(part for part in body if part))
    path = folder / REPORT
    write_bytes(path, page.encode("utf-8", "backslashreplace"))
    return path


# --- the parts of the page ------------------------------------------------------------------------


def _page(name: str, run: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta '
        'name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{_e(name)} · {_e(run)}</title>\n<style>'
        f"{CSS}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the content</a>\n<main id="main">'
        f"\n{body}\n</main>\n</body>\n</html>\n"
    )


def _banner(manifest: Mapping[str, Any], run: RunProgress, name: str) -> str:
    tone, sign, title, text = _STATES[run.state]
    spec = manifest.get("spec")
    asked = (
        next((spec[key] for key in ("question", "description") if spec.get(key)), "")
        if isinstance(spec, Mapping)
        else ""
    )
    when = f"{_time(run.started)} to {_time(run.last)}" if run.started else ""
    return (
        f'<header><p class="eyebrow">Run {_e(manifest.get("run", ""))}</p><h1>{_e(name)}</h1>'
        + (f'<p class="asked">{_e(asked)}</p>' if asked else "")
        + f'<p class="banner {tone}" role="status"><span class="sign" aria-hidden="true">'
        f"{sign}</span>"
        f'<span><strong>{title}.</strong> {text}</span></p><p class="faint">{when}</p>'
        f'<h2 class="small">Repeat or continue</h2><pre class="command"><code>'
        f"{_e(_command(manifest))}</code></pre></header>"
    )


def _command(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("command") or f"toolkit run {manifest.get('run', 'RUN_ID')}")


def _glance(run: RunProgress, known: Mapping[str, StepRow]) -> str:
    total = max(run.planned, len(run.steps))
    rows = sum(
        sum(_rows(step, known).values())
        for step in {step.key: step for step in run.steps.values()}.values()
    )
    facts = [
        ("steps done", f"{run.done:,} of {total:,}" if run.done < total else f"{run.done:,}"),
        ("computed", f"{run.count('computed'):,}"),
        ("reused", f"{run.count('reused'):,}"),
        ("failed", f"{run.count('failed'):,}"),
        ("rows", f"{rows:,}"),
        ("time", _duration(seconds_between(run.started, run.last))),
    ]
    tiles = "".join(f"<div><dt>{label}</dt><dd>{_e(value)}</dd></div>" for label, value in facts)
    return (
        f'<section aria-labelledby="glance"><h2 id="glance">At a glance</h2><dl '
        f'class="tiles">{tiles}</dl></section>'
    )


def _stages(manifest: Mapping[str, Any], run: RunProgress, known: Mapping[str, StepRow]) -> str:
    body = []
    for stage in manifest.get("stages") or ():
        name = str(stage.get("id"))
        steps = [step for step in run.steps.values() if step.stage == name]
        planned = max(run.stages[name].planned if name in run.stages else 0, len(steps))
        counts = {
            state: sum(step.state == state for step in steps)
            for state in ("computed", "reused", "failed")
        }
        rows: dict[str, int] = {}
        for step in steps:
            for table, count in _rows(step, known).items():
                rows[table] = rows.get(table, 0) + count
        listed = "<br>".join(
            f'{_e(table)} <span class="number">{count:,}</span>'
            for table, count in sorted(rows.items())
            if count
        )
        body.append(
            f'<tr><th scope="row">{_e(stage.get("id"))}<br><span class="faint">'
            f"{_e(stage.get('part'))}</span></th>"
            f'<td>{_bar(counts, planned)}</td><td class="number">{counts["computed"]:,}</td>'
            f'<td class="number">{counts["reused"]:,}</td><td class="number">'
            f"{counts['failed']:,}</td>"
            f"<td>{listed or '<span class=faint>none</span>'}</td>"
            f'<td class="number">'
            f"{_duration(sum(step.seconds for step in steps if step.state == 'computed'))}</td>"
            f"</tr>"
        )
    heads = ("stage and part", "steps", "computed", "reused", "failed", "rows in table", "time")
    table = _table(
        "Each stage: steps by how they came to be, rows written, and time computing", heads, body
    )
    return f'<section aria-labelledby="stages"><h2 id="stages">Stages</h2>{table}</section>'


def _rows(step: StepProgress, known: Mapping[str, StepRow]) -> Mapping[str, int]:
    return known[step.key].tables if step.key in known else step.rows


def _bar(counts: Mapping[str, int], planned: int) -> str:
    done = counts["computed"] + counts["reused"]
    spans = "".join(
        f'<span class="{state}" style="width:{100 * count / planned:.2f}%"></span>'
        for state, count in counts.items()
        if count
    )
    return (
        f'<span class="number">{done:,} of {planned:,}</span><span class="bar" '
        f'aria-hidden="true">{spans}</span>'
    )


def _contributed(inputs: Inputs, sections: Sequence[ReportSection]) -> Iterable[str]:
    for section in sorted(sections, key=lambda part: (part.order, part.name)):
        try:
            content = (
                "".join(map(_figure, section.run(inputs))) if has_rows(inputs, section) else ""
            )
        except Exception as error:  # a stranger's section must not take the report with it
            source = getattr(section.run, "__module__", "") or "an unknown module"
            content = (
                f'<div class="box bad" role="alert"><p><strong>This section failed.</strong> '
                f"Report part "
                f"<code>{_e(section.name)}</code> of "
                f"plugin "
                f"<code>{_e(source.split('.')[0])}</code> "
                f"raised "
                f"{_e(type(error).__name__)}:</p><pre>{_e(str(error) or '(no message)')}</pre>"
                f"</div>"
            )
        if content:
            label = f"section-{section.name}"
            note = f'<p class="faint">{_e(section.help)}</p>' if section.help else ""
            yield (
                f'<section aria-labelledby="{label}"><h2 id="{label}">{_e(section.title)}</h2>'
                f"{note}{content}</section>"
            )


def _figure(figure: Figure) -> str:
    spoken = f'<p class="spoken">{_e(figure.alt)}</p>' if figure.alt else ""
    return (
        f'<div class="figure"><h3>{_e(figure.title)}</h3>{spoken}<div class="scroll" '
        f'tabindex="0">{figure.html}</div></div>'
    )


def _methods(manifest: Mapping[str, Any], summaries: Iterable[str]) -> str:
    """What each stage did, with every setting that it ran with, defaults included."""
    body = []
    for stage in manifest.get("stages") or ():
        settings = [
            f"{_e(name)} <code>{_e(_short(value))}</code>"
            for name, value in (stage.get("params") or {}).items()
        ]
        part = (
            f"{_e(stage.get('part'))} <span class=faint>version {_e(stage.get('version'))}</span>"
        )
        body.append(
            f'<tr><th scope="row">{_e(stage.get("id"))}</th><td>{part}<br>'
            f"{_e(stage.get('help') or '')}</td>"
            f"<td>{', '.join(settings) or '<span class=faint>none</span>'}</td></tr>"
        )
    if not body:
        return ""
    table = _table(
        "What each stage did, and every setting it ran with", ("stage", "part", "settings"), body
    )
    seed = (
        f"<p>Every random draw comes from seed {_e(manifest.get('seed'))} by counter: no order or "
        "batch changes it.</p>"
    )
    passes = "".join(f"<p>{_e(sentence)}</p>" for sentence in summaries)
    registered = manifest.get("preregistration")
    frozen = (
        f"<p><strong>Preregistered.</strong> {_e(describe(registered))}</p>" if registered else ""
    )
    return (
        f'<section aria-labelledby="methods"><h2 id="methods">Methods</h2>'
        f"{frozen}{seed}{table}{passes}</section>"
    )


def _short(value: Any) -> str:
    """A setting on one line: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _timings(run: RunProgress) -> str:
    steps = sorted(
        (step for step in run.steps.values() if step.state == "computed"),
        key=lambda step: -step.seconds,
    )
    if not steps:
        return ""
    body = [
        f'<tr><th scope="row">{_e(step.stage)} [{step.index}]</th><td>{_e(step.worker or "-")}</td>'
        f'<td>{_e(step.reason or "-")}</td><td class="number">{_duration(step.seconds)}</td></tr>'
        for step in steps[:8]
    ]
    workers = len({step.worker for step in steps if step.worker}) or 1
    busy = _duration(sum(step.seconds for step in steps))
    said = (
        f"{_some(len(steps), 'step')} computed in {busy} of work by {_some(workers, 'worker')}, in "
        f"{_some(run.sessions, 'session')}."
    )
    table = _table("The slowest steps", ("step", "worker", "why it ran", "time"), body)
    return (
        f'<section aria-labelledby="timings"><h2 id="timings">Timings</h2><p>{said}</p>'
        f"{table}</section>"
    )


def _forecasts(run: RunProgress) -> str:
    """Work that was forecast against work that it took, for stages of which every forecast step was
    computed in this run.
    """
    body = []
    for stage, counts in run.stages.items():
        took = sum(
            step.seconds
            for step in run.steps.values()
            if step.stage == stage and step.state == "computed"
        )
        if took and counts.forecast is not None:
            seconds, basis = counts.forecast.seconds, counts.forecast.basis
            body.append(
                f'<tr><th scope="row">{_e(stage)}</th><td>{_e(basis)}</td><td class="number">'
                f"{_duration(seconds)}</td>"
                f'<td class="number">{_duration(took)}</td><td class="number">'
                f"{seconds / took:.2f}</td></tr>"
            )
    if not body:
        return ""
    table = _table(
        "Forecast against actual work of each stage",
        ("stage", "forecast by", "forecast", "actual", "ratio"),
        body,
    )
    return (
        f'<section aria-labelledby="forecast"><h2 id="forecast">Forecast against actual</h2>'
        f"{table}</section>"
    )


def _troubles(run: RunProgress) -> str:
    title = '<h2 id="troubles">Warnings and failures</h2>'
    if not run.troubles:
        return f'<section aria-labelledby="troubles">{title}<p>None.</p></section>'
    items = "".join(map(_trouble, run.troubles[-SHOWN_TROUBLES:]))
    hidden = len(run.troubles) - SHOWN_TROUBLES
    more = f"<p>{hidden} earlier ones are in events.jsonl.</p>" if hidden > 0 else ""
    return (
        f'<section aria-labelledby="troubles">{title}{more}<ul class="plain">{items}</ul></section>'
    )


def _trouble(event: RunEvent) -> str:
    tone = "bad" if isinstance(event, ev.StepFailed | ev.RunFailed) else "part"
    name = event.event.replace("_", " ")
    return (
        f'<li class="box {tone}"><p><strong>{_e(name)}</strong> '
        f'<span class="faint">{_time(event.at)}</span></p><pre>{_e(event.sentence())}</pre></li>'
    )


def _provenance(manifest: Mapping[str, Any]) -> str:
    import yaml

    facts = {
        key: value for key, value in manifest.items() if key not in ("spec", "stages", "command")
    }
    written = yaml.safe_dump(manifest.get("spec") or {}, sort_keys=False, allow_unicode=True)
    stages = "".join(
        f"<div><dt>{_e(stage.get('id'))}</dt><dd>{_value(stage)}</dd></div>"
        for stage in manifest.get("stages") or ()
    )
    return (
        f'<section aria-labelledby="provenance"><h2 id="provenance">Provenance</h2>{_value(facts)}'
        f"<details><summary>Stages, with versions and keys</summary><dl>{stages}</dl></details>"
        f'<h3>Spec</h3><pre tabindex="0">{_e(written)}</pre></section>'
    )


def _value(value: Any) -> str:
    """A piece of the manifest for people: nested definition lists, `none` for what is empty."""
    if value is None or value == {} or value == [] or value == "":
        return '<span class="faint">none</span>'
    if isinstance(value, Mapping):
        return (
            "<dl>"
            + "".join(
                f"<div><dt>{_e(key)}</dt><dd>{_value(item)}</dd></div>"
                for key, item in value.items()
            )
            + "</dl>"
        )
    if isinstance(value, list | tuple):
        if all(isinstance(item, str | int | float) for item in value):
            return ", ".join(_value(item) for item in value)
        return "<ol>" + "".join(f"<li>{_value(item)}</li>" for item in value) + "</ol>"
    return f"<code>{_e(value)}</code>"


# --- words and numbers ----------------------------------------------------------------------------


def _table(caption: str, heads: Sequence[str], body: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{_e(name)}</th>' for name in heads)
    return (
        f'<p class="caption">{_e(caption)}</p><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{_e(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _e(value: object) -> str:
    return html.escape(str(value).replace("\0", "�"))


def _time(at: str) -> str:
    return f'<time datetime="{_e(at)}">{_e(time_in_words(at))}</time>' if at else ""


def _some(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {rest:02d} s"
    )
