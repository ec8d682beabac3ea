"""One process computes a run; another one that is started for the same run waits for it to end.

The kernel releases the lock when its holder dies, so a killed run never blocks the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit._run.atomic import write_text
from toolkit._run.interrupts import POLL_SECONDS, Interrupts
from toolkit.errors import Interrupted


@contextmanager
def run_lock(
    folder: Path, interrupts: Interrupts, on_wait: Callable[[Any, Any], None]
) -> Iterator[None]:
    """Hold the lock of a run's folder. `on_wait(pid, host)` is called once if another process has
    it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait(descriptor, folder, interrupts, on_wait)
        holder = {"pid": os.getpid(), "host": os.uname().nodename}
        write_text(folder / "holder.json", json.dumps(holder))
        yield
    finally:
        os.close(descriptor)


def _wait(
    descriptor: int, folder: Path, interrupts: Interrupts, on_wait: Callable[[Any, Any], None]
) -> None:
    announced = False
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not announced:
                holder = _holder(folder)
                on_wait(holder.get("pid"), holder.get("host"))
                announced = True
        time.sleep(POLL_SECONDS)
        if interrupts.count:
            raise Interrupted("stopped waiting; the other process continues.")


def _holder(folder: Path) -> dict[str, Any]:
    try:
        holder = json.loads((folder / "holder.json").read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
