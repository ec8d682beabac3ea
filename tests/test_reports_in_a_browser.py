"""Whole reports of runs on the packaged model in headless Chromium, wide and light, narrow and
dark: axe-core finds nothing, nothing sticks out, nothing is loaded, and tables are sorted by
keyboard.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import IN_A_BROWSER, check_layout, chromium, open_page

ROOT = Path(__file__).parents[1]
pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(600)]
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
    with chromium() as started:
        yield started


def opened(browser: Any, report: Path, width: int, scheme: str, troubles: list[str]) -> Any:
    allowed = ("file:", "data:")
    return open_page(browser, report.as_uri(), allowed, troubles, width=width, scheme=scheme)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
@pytest.mark.parametrize("name", RUNS)
def test_a_report_has_no_accessibility_fault(
    browser: Any, reports: dict[str, Path], name: str, view: tuple[int, str]
) -> None:
    troubles: list[str] = []
    page = opened(browser, reports[name], *view, troubles)
    check_layout(page)
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


PAPER = 718
"""The width of A4 paper between Chromium's margins, in pixels."""
NOT_ON_PAPER = """() => [...document.querySelectorAll("main svg, main table")]
  .filter(each => !each.closest("details:not([open])"))
  .map(each => [each, each.getBoundingClientRect()])
  .filter(([each, box]) => !each.checkVisibility() || !box.width || box.right > innerWidth + 1)
  .map(([each, box]) => [each.outerHTML.slice(0, 200), box.right])"""


@pytest.mark.parametrize("name", RUNS)
def test_on_paper_charts_and_tables_are_there_and_nothing_is_cut(
    browser: Any, reports: dict[str, Path], name: str
) -> None:
    page = opened(browser, reports[name], PAPER, "light", [])
    page.emulate_media(media="print")
    assert page.locator("main svg").count() > 0
    assert page.locator("main table").count() > 0
    assert page.evaluate(NOT_ON_PAPER) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.context.close()


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
