"""The live display of a run: bars on a terminal, plain lines in a pipe, the event stream with
`--json`.

Progress goes to stderr, so that stdout has only the results. Colours follow the terminal and
NO_COLOR.
"""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from toolkit._run import events as ev
from toolkit._run.events import RunEvent, as_json, now
from toolkit._run.progress import RunProgress, seconds_between
from toolkit.terminal import counted, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.text import Text

PLAIN_SECONDS = 5.0
"""A pipe gets a line at least this often, in seconds."""
SHOWN_BUSY = 4
"""Workers that the status line names."""
IMPORTANT = (
    ev.RunStarted,
    ev.RunWaiting,
    ev.StoreWaiting,
    ev.StageReady,
    ev.StageImported,
    ev.StepRetried,
    ev.StepFailure,
    ev.SaeMisfit,
    ev.PartWarning,
    ev.Stalled,
    ev.SinkWritten,
    ev.Interrupting,
)
PROBLEMS = (ev.StepRetried, ev.StepFailure, ev.SaeMisfit, ev.PartWarning, ev.Stalled)
QUIET, NORMAL, VERBOSE = -1, 0, 1


class Display:
    """Shows events; as a context manager, it restores the terminal at the end."""

    def __call__(self, event: RunEvent) -> None:
        """Show one event."""
        raise NotImplementedError

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: there is nothing to close."""


class Lines(Display):
    """Lines for a pipe or a log file: important events as they happen, and a status line every five
    seconds.
    """

    def __init__(self, verbosity: int = NORMAL, stream: TextIO | None = None) -> None:
        self._verbosity, self._stream = verbosity, stream or sys.stderr
        self._progress, self._last = RunProgress(), 0.0

    def __call__(self, event: RunEvent) -> None:
        """Show one event, or the status line when it is due."""
        self._progress.take(event)
        if is_shown(event, self._verbosity):
            self._write(event.sentence())
        elif self._verbosity > QUIET and time.monotonic() - self._last >= PLAIN_SECONDS:
            self._write(status_line(self._progress))

    def _write(self, text: str) -> None:
        self._last = time.monotonic()
        print(printable(text), file=self._stream, flush=True)


class Terminal(Display):
    """A bar for each running stage and a status line, below the lines of important events."""

    def __init__(self, verbosity: int = NORMAL) -> None:
        from rich.console import Console
        from rich.live import Live

        self._verbosity, self._progress = verbosity, RunProgress()
        self._bars = _bars()
        self._tasks: dict[str, TaskID] = {}
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Terminal:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bars."""
        self._live.stop()

    def __call__(self, event: RunEvent) -> None:
        """Show one event."""
        from rich.console import Group
        from rich.text import Text

        self._progress.take(event)
        if is_shown(event, self._verbosity):
            self._console.print(_coloured(event))
        self._move_bars()
        line = Text(printable(status_line(self._progress)), no_wrap=True, overflow="ellipsis")
        # The bar of a stage is drawn at once; other changes wait for the next of 8 frames a second.
        self._live.update(Group(self._bars, line), refresh=isinstance(event, ev.StageReady))

    def _move_bars(self) -> None:
        for name, stage in self._progress.stages.items():
            if name not in self._tasks and stage.planned:
                self._tasks[name] = self._bars.add_task(name, total=stage.planned)
            if name in self._tasks:
                visible = stage.done < stage.planned
                self._bars.update(self._tasks[name], completed=stage.done, visible=visible)


class JsonLines(Display):
    """The event stream on stdout, one object per line."""

    def __call__(self, event: RunEvent) -> None:
        """Write one event."""
        print(json.dumps(as_json(event)), flush=True)


def display(*, as_json: bool = False, verbosity: int = NORMAL) -> Display:
    """The display that suits stderr: a terminal, or a pipe or file."""
    if as_json:
        return JsonLines()
    on_terminal = sys.stderr.isatty() and verbosity > QUIET
    return Terminal(verbosity) if on_terminal else Lines(verbosity)


def is_shown(event: RunEvent, verbosity: int) -> bool:
    """Whether an event gets a line of its own."""
    if verbosity >= VERBOSE:
        return event.recorded
    return isinstance(event, PROBLEMS if verbosity <= QUIET else IMPORTANT)


def status_line(run: RunProgress) -> str:
    """The status line: steps done, the time left, what each worker does, and memory."""
    more = "+" if run.open_stages else ""
    parts = [f"{run.done}/{run.planned}{more} steps", _time_left(run), *_working(run), _memory(run)]
    return " · ".join(part for part in parts if part)


def _time_left(run: RunProgress) -> str:
    """The time until the known steps are done, and the number of stages without known steps."""
    seconds = run.seconds_left(now())
    if seconds is None or not run.planned or run.done >= run.planned:
        return ""
    later = f" + {counted(run.open_stages, 'stage')} to come" if run.open_stages else ""
    return f"ETA {_short(seconds)}{later}"


def _working(run: RunProgress) -> list[str]:
    words = []
    for busy in list(run.busy.values())[:SHOWN_BUSY]:
        count = f" {busy.done}/{busy.total}" if busy.total else ""
        age = _short(seconds_between(busy.since, now()))
        status = f" ({printable(busy.status)})" if busy.status else ""
        words.append(f"{busy.step.stage}[{busy.step.index}] {busy.phase}{count} {age}{status}")
    return words


def _memory(run: RunProgress) -> str:
    if not run.memory:
        return ""
    host = sum(used for used, _ in run.memory.values())
    device = [used for _, used in run.memory.values() if used is not None]
    text = f"host {host / 2**30:.2f} GiB"
    return f"{text}, device {sum(device) / 2**30:.2f} GiB" if device else text


def _short(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}min" if seconds < 5400 else f"{seconds / 3600:.1f}h"


def _bars() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, auto_refresh=False)


def _coloured(event: RunEvent) -> Text:
    from rich.text import Text

    style = "red" if isinstance(event, ev.StepFailure) else ""
    style = "yellow" if isinstance(event, PROBLEMS) and not style else style
    return Text(printable(event.sentence()), style=style)
