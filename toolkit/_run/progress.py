"""What a person sees while a run goes on: one line on a terminal, plain lines in a pipe, NDJSON
with `--json`.

The line shows done of total, rate, ETA, the phase of each busy worker with its age, and memory. A
silent phase therefore names itself; a plain log gets a line at least every five seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from toolkit._run.events import QUIET, sentence

PLAIN_SECONDS = 5.0
SHOWN = frozenset(
    {
        "run_started",
        "run_waiting",
        "stage_ready",
        "step_retried",
        "step_failed",
        "sae_does_not_fit",
        "warning",
        "stalled",
        "sink_written",
        "interrupting",
    }
)


@dataclass
class Tally:
    """How far the run is, from its events alone."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0
    done: int = 0
    computed: int = 0
    open_stages: int = 0
    busy: dict[str, tuple[str, str, float, int, int | None]] = field(default_factory=dict)
    memory: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def take(self, event: Mapping[str, Any]) -> None:
        """Count one event in."""
        name = event["event"]
        if name == "run_started":
            self.open_stages = event["stages"]
        elif name == "stage_ready":
            self.steps += event["steps"]
            self.open_stages -= 1
        elif name in ("step_reused", "step_found"):
            self.done += 1
        elif name == "step_started":
            self.busy[event["worker"]] = (
                f"{event['stage']}[{event['index']}]",
                "start",
                time.monotonic(),
                0,
                None,
            )
        elif name == "step_done":
            self.done, self.computed = self.done + 1, self.computed + 1
            self.busy.pop(event["worker"], None)
        elif name in ("step_failed", "step_retried"):
            self.busy.pop(event["worker"], None)
        self._watch(event)

    def _watch(self, event: Mapping[str, Any]) -> None:
        worker = str(event.get("worker"))
        if event.get("host_bytes") is not None:
            self.memory[worker] = (event["host_bytes"], event.get("device_bytes"))
        if worker in self.busy:
            step, phase, since, done, total = self.busy[worker]
            if event["event"] == "phase":
                self.busy[worker] = (step, event["phase"], time.monotonic(), done, total)
            elif event["event"] == "progress":
                self.busy[worker] = (step, phase, since, event["done"], event["total"])

    def line(self) -> str:
        """The progress line."""
        bound = "+" if self.open_stages else ""
        parts = [
            f"{self.done}/{self.steps}{bound} steps",
            self._pace(),
            *self._working(),
            self._memory(),
        ]
        return " · ".join(part for part in parts if part)

    def _pace(self) -> str:
        elapsed = time.monotonic() - self.started
        if not self.computed:
            return ""
        rate = self.computed / elapsed
        eta = "" if self.open_stages else f", ETA {_seconds((self.steps - self.done) / rate)}"
        return f"{rate:.2g} steps/s{eta}"

    def _working(self) -> list[str]:
        shown = []
        for step, phase, since, done, total in list(self.busy.values())[:4]:
            count = f" {done}/{total}" if total else ""
            shown.append(f"{step} {phase}{count} {_seconds(time.monotonic() - since)}")
        return shown

    def _memory(self) -> str:
        if not self.memory:
            return ""
        host = sum(used for used, _ in self.memory.values())
        device = [used for _, used in self.memory.values() if used is not None]
        return f"host {host / 2**30:.2f} GiB" + (
            f", device {sum(device) / 2**30:.2f} GiB" if device else ""
        )


def _seconds(value: float) -> str:
    return (
        f"{value:.0f}s"
        if value < 90
        else f"{value / 60:.0f}min"
        if value < 5400
        else f"{value / 3600:.1f}h"
    )


class Plain:
    """Lines for a pipe or a log file: what matters as it happens, and a sign of life every five
    seconds.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream, self._tally, self._last = stream or sys.stderr, Tally(), 0.0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event, or the progress line when it is due."""
        self._tally.take(event)
        if event["event"] in SHOWN:
            self._write(sentence(event))
        elif time.monotonic() - self._last >= PLAIN_SECONDS:
            self._write(self._tally.line())

    def _write(self, text: str) -> None:
        self._last = time.monotonic()
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is kept open."""


class Terminal:
    """One live line under the lines that matter."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._tally = Tally()
        self._live = Live("starting", console=self._console, refresh_per_second=8, transient=True)
        self._live.start()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        from rich.text import Text

        self._tally.take(event)
        if event["event"] in SHOWN:
            self._console.print(Text(sentence(event)))
        self._live.update(Text(self._tally.line(), no_wrap=True, overflow="ellipsis"))

    def close(self) -> None:
        """Take the live line away."""
        self._live.stop()


class Json:
    """The event stream on stdout, one object a line."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write one event."""
        print(json.dumps(event), flush=True)

    def close(self) -> None:
        """Nothing is kept open."""


def display(as_json: bool) -> Plain | Terminal | Json:
    """The display that fits where stderr goes."""
    if as_json:
        return Json()
    return Terminal() if sys.stderr.isatty() else Plain()


__all__ = ["QUIET", "Json", "Plain", "Tally", "Terminal", "display"]
