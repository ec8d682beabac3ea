"""What tests in a browser share."""

from __future__ import annotations

import time
from typing import Any


def wait_until(page: Any, condition: str, seconds: float = 30.0) -> None:
    """Wait until a JavaScript expression is true. Playwright's own way evaluates text in the page,
    which the pages' policy forbids.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"not within {seconds:g} s: {condition}"
        time.sleep(0.02)
