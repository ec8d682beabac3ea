"""What tests in a browser share: Chromium, pages that must log no error and load nothing from
elsewhere, and the accessibility check.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("TOOLKIT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
IN_A_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
"""The marks of such a test module."""
LONG_TASKS = """window.longTasks = [];
new PerformanceObserver(list => longTasks.push(...list.getEntries().map(task => task.duration)))
  .observe({type: "longtask", buffered: true});"""
"""A script that collects how long the browser was busy without a pause."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


def open_page(
    browser: Any,
    address: str,
    allowed: tuple[str, ...],
    troubles: list[str],
    *,
    width: int = 1280,
    scheme: str = "light",
    script: bool = True,
) -> Any:
    """Open a page in a context of its own. Errors that it logs, and requests of addresses that do
    not begin with one of `allowed`, are added to `troubles`.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
    )
    page = context.new_page()
    page.on("console", lambda entry: entry.type == "error" and troubles.append(entry.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith(allowed) or troubles.append(request.url),
    )
    page.goto(address)
    page.wait_for_load_state("networkidle")
    return page


def check_layout(page: Any) -> None:
    """Nothing sticks out of the window, and axe-core finds no accessibility fault."""
    from axe_playwright_python.sync_playwright import Axe

    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    faults = Axe().run(page).response["violations"]
    assert {fault["id"]: [node["html"][:200] for node in fault["nodes"]] for fault in faults} == {}


def wait_until(page: Any, condition: str, seconds: float = 30.0) -> None:
    """Wait until a JavaScript expression is true. Playwright's own way evaluates text in the page,
    which the pages' policy forbids.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"not within {seconds:g} s: {condition}"
        time.sleep(0.02)


def run_chromium(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Start Chromium on a file, for what its flags print or write."""
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking "
        "--disable-component-update --disable-sync --no-first-run"
    )
    return subprocess.run(
        [str(CHROMIUM), *quiet.split(), *flags, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
