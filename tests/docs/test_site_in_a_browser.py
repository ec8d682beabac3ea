"""The documentation site in headless Chromium, wide and narrow, light and dark: axe-core finds
nothing, nothing sticks out, nothing is asked of another host, nothing is logged as an error, and
the search finds a page.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import wait_until

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("TOOLKIT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(find_spec("material") is None, reason="needs mkdocs-material"),
]
PAGES = (
    "index.html",
    "gallery.html",
    "faq.html",
    "tutorial/quickstart.html",
    "experiments/exp1.html",
    "notebooks/results.html",
    "how-to/read-a-verdict.html",
    "reference/cli.html",
    "explanation/scaling.html",
    "source/specs/exp1_sae_l1_31.yaml.html",
)
REPORTS = sorted(path.name for path in (ROOT / "docs" / "reports").glob("*.html"))
VIEWS = ((1280, "light"), (400, "light"), (1280, "dark"), (400, "dark"))


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, built as `nox -s site` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, site: str) -> Iterator[Open]:
    """Opens a page of the site; at the end nothing may have gone wrong on any."""
    troubles: list[str] = []
    contexts = []

    def open_(path: str, width: int = 1280, scheme: str = "light") -> Any:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: message.type == "error" and troubles.append(message.text)
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith((site, "data:", "blob:")) or troubles.append(asked.url)
            ),
        )
        page.goto(f"{site}/{path}")
        page.wait_for_load_state("networkidle")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_fault(open_page: Open, path: str, view: tuple[int, str]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(path, *view)
    assert page.locator("article h1").count() == 1
    wide = page.evaluate(
        "[...document.querySelectorAll('article *')].filter(element => "
        "element.getBoundingClientRect().right > innerWidth + 1 && !element.closest("
        "'.md-typeset__scrollwrap, pre, .output, .highlight')).map(element => element.outerHTML"
        ".slice(0, 120))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = Axe().run(page).response["violations"]
    assert [(fault["id"], [node["html"][:160] for node in fault["nodes"]]) for fault in found] == []


@pytest.mark.parametrize("view", [(1280, "light"), (400, "dark")], ids=lambda view: f"{view[0]}")
@pytest.mark.parametrize("name", REPORTS)
def test_a_published_report_opens(open_page: Open, name: str, view: tuple[int, str]) -> None:
    page = open_page(f"reports/{name}", *view)
    assert page.locator("h1").count() == 1
    assert page.locator(".findings").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_search_finds_a_page(open_page: Open) -> None:
    page = open_page("index.html")
    page.keyboard.press("/")
    page.keyboard.type("volcano")
    wait_until(page, "document.querySelectorAll('.md-search-result__item').length > 0")
