"""A worker behind a pair of pipes. Executors start one with whatever command reaches it: python
here, `docker run -i`, ssh.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class PipedWorker:
    """Implements `toolkit.work.Worker` over stdin and stdout of a child process; stderr goes to a
    file.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        device: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.device, self._answer = name, dict(device or {}), threading.Event()
        self._stack = ""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stderr:
            self._child = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                start_new_session=True,
            )
        self._log = log

    @property
    def pid(self) -> int:
        """The child's process id on this host."""
        return self._child.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """One JSON line to the worker. A dead worker is noticed by whoever reads its events."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write((json.dumps(message) + "\n").encode())
            self._child.stdin.flush()
        except (BrokenPipeError, ValueError):
            return

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Events until the worker ends. Lines that are no events (a container engine's own words)
        are passed over.
        """
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if event.get("event") == "stack":
                    self._stack = event["text"]
                    self._answer.set()
                yield event

    def stack(self) -> str:
        """What the worker's main thread is doing. If it cannot answer, its C-level stack is asked
        for by signal into its log.
        """
        self._answer.clear()
        self.send({"type": "stack"})
        if self._answer.wait(2.0):
            return self._stack
        try:
            os.kill(self._child.pid, signal.SIGUSR1)
        except ProcessLookupError:
            return "the worker is gone"
        return f"the worker does not answer; its stack is at the end of {self._log}"

    def stop(self, *, now: bool = False) -> int | None:
        """End the worker: kindly, by closing its stdin, or at once. Gives its exit status."""
        assert self._child.stdin is not None
        if now:
            self._child.kill()
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        try:
            code = self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        return code
