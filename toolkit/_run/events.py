"""The record of what a run did, as it does it: `events.jsonl` for machines, `log.txt` for people,
each line flushed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

Listener = Callable[[Mapping[str, Any]], None]
QUIET = frozenset({"progress", "alive"})
"""Events that are shown while they happen and not kept: they would be most of the file."""


def now() -> str:
    """This moment in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def in_words(at: str) -> str:
    """Such a moment for people, to the second."""
    return f"{at[:19].replace('T', ' ')} UTC"


class EventLog:
    """Writes each event to both files and hands it to the listeners (progress display, `--json`)."""

    def __init__(self, folder: Path, listeners: tuple[Listener, ...]) -> None:
        self._events = (folder / "events.jsonl").open("a", encoding="utf-8", buffering=1)
        self._log = (folder / "log.txt").open("a", encoding="utf-8", buffering=1)
        self._listeners = listeners

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._events, self._log):
            try:
                file.close()
            except OSError:  # a full disk was reported when the line was written
                continue

    def emit(self, event: str, **facts: Any) -> None:
        """Record one event and show it."""
        record = {"at": now(), "event": event, **facts}
        if event not in QUIET:
            self._events.write(json.dumps(record) + "\n")
            self._log.write(f"{record['at']} {sentence(record)}\n")
        for listener in self._listeners:
            listener(record)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The events of a run. A last line cut off by a kill is left out."""
    events = []
    path = folder / "events.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def sentence(event: Mapping[str, Any]) -> str:
    """An event in words: the plain progress line and the log line."""
    template = _SENTENCES.get(str(event["event"]))
    if template is None:
        return f"{event['event']} " + " ".join(
            f"{k}={v}" for k, v in event.items() if k not in ("at", "event")
        )
    return template.format_map(_Blank(event))


class _Blank(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return "?"


_SENTENCES = {
    "run_started": "run {run}: {stages} stages; log {log}",
    "run_waiting": "run {run} is being computed by process {pid} on {host}; waiting for it to end",
    "stage_ready": "stage {stage} ({part}): {steps} steps, {reused} reused, {todo} to compute",
    "stage_foretold": "stage {stage}: about {seconds:.1f} s of work to expect, by {basis}",
    "step_reused": "step {stage}[{index}] reused",
    "step_found": "step {stage}[{index}] was computed before the last stop; committed now",
    "step_started": "step {stage}[{index}] on {worker}: {reason}",
    "step_done": "step {stage}[{index}] done in {seconds:.2f} s",
    "step_retried": "step {stage}[{index}]: {worker} died ({how}); trying again on a "
    "fresh worker "
    "({attempt} of "
    "{attempts})",
    "step_failed": "step {stage}[{index}] FAILED: {error}",
    "batch_plan": "stage {stage}: batches {plan}, for {free} bytes free on {device}",
    "extracted": "step {stage}[{index}]: {texts} distinct texts of {samples} "
    "samples, "
    "{passes} pass(es) in "
    "{batches} batches, "
    "{padded_tokens} padded tokens; halved {halved} times, {saes_together} SAEs held together",
    "sae_does_not_fit": "{message}",
    "warning": "warning of {stage}[{index}]: {text}",
    "stalled": "no sign from {worker} for {age:.0f} s in phase '{phase}' of "
    "{stage}[{index}] "
    "(slow, or stuck; "
    "nothing is killed):\n{stack}",
    "phase": "{worker}: {phase}",
    "worker_ready": "{worker} ready (process {pid}, GPU physical {physical}, visible {visible})",
    "sink_written": "sink {sink}: {files} files in {folder}",
    "interrupting": "finishing {running} step(s) in flight; Ctrl-C again stops at once",
    "run_interrupted": "interrupted; safe so far: {done} of {total} "
    "steps. "
    "Continue "
    "with: {command}",
    "run_failed": "failed: {error}",
    "run_done": "done: {computed} steps computed, {reused} reused, {seconds:.1f} s",
}
