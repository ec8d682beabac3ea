"""A worker connected by a pair of pipes. Executors start one with any command that reaches it:
python on this machine, `docker run -i`, ssh.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.executors.interface import WorkerEnd, translate_paths
from toolkit.executors.protocol import WorkerEvent, read_events
from toolkit.secrets import HidingFile, Secrets

PIECE = 1 << 16
LAST_WORDS_SECONDS = 1.0
"""How long the stderr of an ended worker is still read: a process that it left behind may keep it
open.
"""


class PipedWorker:
    """Implements `toolkit.executors.interface.Worker` over stdin and stdout of a child process;
    stderr and lines that are not events go to the log, without the environment values that the
    worker gets.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str],
        folders: Mapping[Path, PurePosixPath] | None = None,
    ) -> None:
        """`folders`: folders that the worker sees under another path."""
        self.name = name
        self._folders = dict(folders or {})
        self._sending = threading.Lock()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = HidingFile(log.open("ab"))
        self._child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            start_new_session=True,
        )
        self._stderr = threading.Thread(target=self._keep_stderr, daemon=True)
        self._stderr.start()

    @property
    def pid(self) -> int:
        """The child's process id on this host."""
        return self._child.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one JSON line. A dead worker is noticed by the reader of its events."""
        assert self._child.stdin is not None
        if message["type"] == "open":
            self._log.secrets = Secrets(message.get("secrets", {}))
        text = json.dumps(translate_paths(message, self._folders))
        with self._sending, contextlib.suppress(OSError, ValueError):
            self._child.stdin.write(f"{text}\n".encode())
            self._child.stdin.flush()

    def events(self) -> Iterator[WorkerEvent]:
        """Events until the worker ends."""
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            yield from read_events(lines, self._log)  # type: ignore[arg-type]

    def _keep_stderr(self) -> None:
        """Write what the worker and its children print to the log."""
        assert self._child.stderr is not None
        with self._child.stderr as stderr:
            while piece := stderr.read1(PIECE):  # type: ignore[attr-defined]
                self._log.write(piece)

    def stop(self, *, now: bool = False) -> WorkerEnd:
        """End the worker, by closing its stdin or at once, and return how it ended."""
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
        self._stderr.join(timeout=LAST_WORDS_SECONDS)
        self._log.close()
        return WorkerEnd(ending(code))


def ending(code: int) -> str:
    """How a process with this exit status ended, in words."""
    if code == -9:
        return "killed by signal 9; out of memory?"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
