"""An event loop in a thread of its own, for coroutines that are waited for from ordinary code, also inside a notebook's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cached_property
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """The loop; its thread starts with the first coroutine and ends with the program."""

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="toolkit-store", daemon=True).start()
        return loop

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What the coroutine gives, or raises."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


background = Background()
