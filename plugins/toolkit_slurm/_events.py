"""Reads a line that a task wrote: an event of its worker, or how the worker ended."""

from __future__ import annotations

import json

from toolkit.executors.protocol import WorkerEvent, read_event


def read_line(line: bytes) -> tuple[WorkerEvent | None, str | None]:
    """The event, or how the worker ended; for any other line, neither."""
    event = read_event(line)
    if event is not None:
        return event, None
    try:
        record = json.loads(line)
    except ValueError:
        return None, None
    if isinstance(record, dict) and record.get("event") == "ended":
        return None, str(record.get("how"))
    return None, None
