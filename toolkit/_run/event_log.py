"""The log of a run in progress: `events.jsonl` for programs, `log.txt` for people, each line
flushed.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from toolkit._run.events import Listener, RunEvent, as_json, now, read_run_event
from toolkit.errors import ToolkitError
from toolkit.secrets import NONE, Secrets
from toolkit.terminal import printable

EVENTS, LOG = "events.jsonl", "log.txt"


class EventLog:
    """Writes each event to both files and hands it to the listeners: the display, `--json`."""

    def __init__(
        self, folder: Path, listeners: tuple[Listener, ...], secrets: Secrets = NONE
    ) -> None:
        """Values of `secrets` are replaced by the spec's references to them."""
        self._secrets = secrets
        self._events = (folder / EVENTS).open("a", encoding="utf-8", buffering=1)
        self._log = (folder / LOG).open("a", encoding="utf-8", buffering=1)
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

    def emit(self, event: RunEvent) -> None:
        """Record one event and show it."""
        dated = replace(event, at=now(), **self._hidden(event))
        if dated.recorded:
            self._events.write(json.dumps(as_json(dated)) + "\n")
            self._log.write(f"{dated.at} {printable(dated.sentence())}\n")
        for listener in self._listeners:
            _show(listener, dated)

    def _hidden(self, event: RunEvent) -> dict[str, Any]:
        """The fields of an event that hold a secret, with the secret replaced."""
        if not self._secrets.values:
            return {}
        values = {field.name: getattr(event, field.name) for field in fields(event)}
        hidden = {name: self._secrets.hide_in(value) for name, value in values.items()}
        return {name: value for name, value in hidden.items() if value != values[name]}


def _show(listener: Listener, event: RunEvent) -> None:
    """Call a listener; if it fails, end the run with a message. A closed pipe is handled by the
    command line.
    """
    try:
        listener(event)
    except (ToolkitError, OSError):
        raise
    except Exception as error:
        name = getattr(listener, "__qualname__", type(listener).__qualname__)
        raise ToolkitError(
            f"The listener {name} failed at event '{event.event}': {type(error).__name__}: "
            f"{error}. What was committed is safe; repair the listener and run again."
        ) from error


def read_events(folder: Path) -> list[RunEvent]:
    """The events of a run. A last line cut off by a kill, or a line that is not an event, is left
    out.
    """
    path = folder / EVENTS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    events = [read_run_event(line) for line in lines]
    return [event for event in events if event is not None]


def first_event(folder: Path) -> RunEvent | None:
    """The event that began a run."""
    path = folder / EVENTS
    if not path.exists():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        return read_run_event(file.readline())
