"""Whole reports of runs on the packaged model in headless Chromium, wide and light, narrow and
dark: axe-core finds nothing, nothing sticks out, nothing is loaded, and tables are sorted by
keyboard.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("TOOLKIT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
RUNS = {
    "quickstart": ["--set", "stages.play.with.reps=24"],
    "exp6_tokens": ["--overlay", str(ROOT / "specs" / "lab.yaml")],
}
VIEWS = ((1280, "light"), (400, "dark"), (1280, "dark"), (400, "light"))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of two runs, by spec."""
    store = tmp_path_factory.mktemp("store")
    results = {}
    for name, options in RUNS.items():
        spec = ROOT / "specs" / f"{name}.yaml"
        command = [sys.executable, "-m", "toolkit", "run", spec, *options, "-q", "--store", store]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=store)
        assert done.returncode == 0, done.stderr
        results[name] = Path(done.stdout.splitlines()[-1])
    return results


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


def opened(browser: Any, report: Path, width: int, scheme: str, troubles: list[str]) -> Any:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda asked: asked.url.startswith(("file:", "data:")) or troubles.append(asked.url),
    )
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    return page


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
@pytest.mark.parametrize("name", RUNS)
def test_a_report_has_no_accessibility_fault(
    browser: Any, reports: dict[str, Path], name: str, view: tuple[int, str]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    troubles: list[str] = []
    page = opened(browser, reports[name], *view, troubles)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    faults = Axe().run(page).response["violations"]
    message = {fault["id"]: [node["html"][:200] for node in fault["nodes"]] for fault in faults}
    assert message == {}
    assert troubles == []
    page.context.close()


def test_the_first_screen_has_the_findings_and_their_picture(
    browser: Any, reports: dict[str, Path]
) -> None:
    page = opened(browser, reports["quickstart"], 1280, "light", [])
    places = [
        page.locator(each).first.bounding_box()["y"] for each in ("h1", ".findings", ".lead svg")
    ]
    assert places == sorted(places)
    assert places[-1] < 900
    page.locator(".lead p a").last.click()
    assert "#section-patch-effects" in page.url


def test_a_table_is_sorted_by_keyboard(browser: Any, reports: dict[str, Path]) -> None:
    page = opened(browser, reports["quickstart"], 1280, "light", [])
    table = page.locator("section[aria-labelledby=section-top-features] table").first
    column = table.locator("thead th").all_inner_texts().index("d")
    button = table.locator("thead th button").nth(column)
    for _ in range(400):
        page.keyboard.press("Tab")
        if button.evaluate("each => each === document.activeElement"):
            break
    for key, order in (("Enter", "descending"), ("Space", "ascending")):
        page.keyboard.press(key)
        assert table.locator("thead th").nth(column).get_attribute("aria-sort") == order
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
        numbers = [float(cell.replace("\N{MINUS SIGN}", "-")) for cell in cells]
        assert numbers == sorted(numbers, reverse=order == "descending")
