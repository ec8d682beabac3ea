"""Run coroutines from synchronous code: in this thread's own event loop or, where one is already
running (as in a notebook), in the loop of a helper thread. Handing work to another thread adds a
tenth to the time of a query, and more on a busy machine.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from functools import cached_property
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Loop:
    """An event loop that is closed when its thread ends. The end of the program does not close it:
    an interrupted query may still be running in it.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        weakref.finalize(self, self.loop.close).atexit = False


class Background:
    """The event loops. The one in a helper thread starts at first use and ends with the program."""

    def __init__(self) -> None:
        self._local = threading.local()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return what the coroutine returns, or raise what it raises."""
        if _is_running():
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        if not hasattr(self._local, "loop"):
            self._local.loop = _Loop()
        loop: _Loop = self._local.loop
        return loop.loop.run_until_complete(work)

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="toolkit-store", daemon=True).start()
        return loop


def _is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


background = Background()
