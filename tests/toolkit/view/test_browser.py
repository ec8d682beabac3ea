"""The explorer in headless Chromium: every page, wide and narrow, light and dark, by keyboard, with
an accessibility check by axe-core. Nothing may be logged as an error or asked of another host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import IN_A_BROWSER, check_layout, chromium, open_page
from tests.toolkit.view.seen import EVIL
from tests.toolkit.view.test_pages import ADDRESSES, RUN

pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(300)]
VIEWS = ((1280, "light"), (400, "dark"))


@pytest.fixture(scope="module")
def base(seen_store: Path) -> Iterator[str]:
    with served(seen_store) as address:
        yield address


@contextmanager
def served(store: Path) -> Iterator[str]:
    """The address of a server in a thread of its own."""
    import uvicorn

    from toolkit._view import server

    servers: list[uvicorn.Server] = []
    real = uvicorn.Server.run
    ready = threading.Event()
    shown: list[str] = []

    def run(self: uvicorn.Server, sockets: Any = None) -> None:
        servers.append(self)
        real(self, sockets)

    def tell(address: str) -> None:
        shown.append(address.rstrip("/"))
        ready.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "run", run)
        patch.setattr(uvicorn.Server, "install_signal_handlers", lambda self: None, raising=False)
        args = (store, "127.0.0.1", 0, None, tell)
        thread = threading.Thread(target=server.serve, args=args)
        thread.start()
        assert ready.wait(60)
        yield shown[0]
        servers[0].should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


Open = Callable[..., Any]


@pytest.fixture
def open_path(browser: Any, base: str) -> Iterator[Open]:
    """Opens a page of the explorer; at the end nothing may have gone wrong on any."""
    troubles: list[str] = []
    pages = []

    def open_(path: str, width: int = 1280, scheme: str = "light", script: bool = True) -> Any:
        settings = {"width": width, "scheme": scheme, "script": script}
        pages.append(open_page(browser, base + path, (base, "data:"), troubles, **settings))
        return pages[-1]

    yield open_
    for page in pages:
        page.context.close()
    assert troubles == []


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_page_fits_and_has_no_accessibility_fault(open_path: Open, name: str) -> None:
    """Wide and light, narrow and dark: nothing sticks out, axe-core finds nothing."""
    for width, scheme in VIEWS:
        page = open_path(ADDRESSES[name], width, scheme)
        assert page.title() != "owned"
        assert page.locator("h1").count() == 1
        check_layout(page)


def test_dark_mode_is_dark(open_path: Open) -> None:
    page = open_path("/", scheme="dark")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, colour.strip("rgb()").split(","))) < 150


def test_the_keyboard_reaches_the_search_and_the_content(open_path: Open) -> None:
    page = open_path("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("money")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=money")
    page.locator("td a", has_text="2/5").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/feature?address=2%2F5")
    assert page.locator("h1").inner_text() == "Feature 2/5"


def test_what_was_found_comes_after_the_page(open_path: Open) -> None:
    page = open_path(RUN)
    assert page.locator("[aria-label='What was found']").count() == 1


def test_neighbours_of_a_feature_come_after_its_page(open_path: Open) -> None:
    page = open_path(f"{RUN}/feature?address=2/5")
    assert page.locator("h1").count() == 1
    assert page.locator("#grid-coactive ~ .scroll td a").inner_text() == "2/7"
    page.locator("#grid-similar").wait_for()


def test_features_that_are_not_ranked_yet_come_after_their_page(
    open_path: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit._view.pages.run_facts.MANY_STATISTICS", 0)
    monkeypatch.setattr("toolkit._view.library.Library.is_ranked", lambda *names: False)
    page = open_path(f"{RUN}/features")
    page.locator("#grid-features ~ .scroll td a", has_text="2/7").wait_for()
    without = open_path(f"{RUN}/features", script=False)
    without.get_by_role("link", name="The ranking").click()
    without.wait_for_url("**/ranking")
    assert without.locator("#grid-features ~ .scroll td a", has_text="2/7").count() == 1


def test_a_volcano_that_comes_after_its_page_can_be_brushed(
    open_path: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit._view.pages.run_facts.MANY_STATISTICS", 0)
    monkeypatch.setattr("toolkit._view.library.Library.is_drawn", lambda *names: False)
    page = open_path(f"{RUN}/comparison?comparison=c1")
    chart = page.locator("#volcano svg")
    chart.wait_for()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 14)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + box["height"] - 50)
    page.mouse.up()
    page.wait_for_url("**/comparison?comparison=c1&low=*")
    page.locator("#grid-features").wait_for()


def test_without_a_script_a_link_leads_to_the_neighbours(open_path: Open) -> None:
    page = open_path(f"{RUN}/feature?address=2/5", script=False)
    page.get_by_role("link", name="Features that fire together").click()
    page.wait_for_url("**/neighbours?*")
    assert page.locator("#grid-coactive ~ .scroll td a").inner_text() == "2/7"


@pytest.mark.parametrize("by_key", [False, True])
def test_a_token_shows_its_features_without_a_new_page(open_path: Open, by_key: bool) -> None:
    page = open_path(f"{RUN}/sample?sample=a1")
    page.evaluate("window.same = true")
    token = page.locator("#tokens a").nth(4)
    if by_key:
        token.focus()
        page.keyboard.press("Enter")
    else:
        token.click()
    page.locator("#active", has_text="At token 4").wait_for()
    assert page.evaluate("window.same")
    assert "position=4" in page.url
    assert page.locator("#grid-active ~ .scroll tbody tr").count() == 3
    page.locator("#layers td").nth(1).click()
    page.locator("#active", has_text="At token 1").wait_for()
    assert "space=s1" in page.url


def test_skipping_to_the_content_does_not_load_a_sample_again(open_path: Open) -> None:
    page = open_path(f"{RUN}/sample?sample=a1")
    page.evaluate("window.same = true")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**#main")
    page.locator("main:focus").wait_for()
    page.locator("#tokens a").nth(4).click()
    page.locator("#active", has_text="At token 4").wait_for()
    assert page.evaluate("window.same")
    page.go_back()
    page.locator("#active", has_text="At all tokens").wait_for()


def test_the_token_that_was_chosen_last_is_shown(open_path: Open) -> None:
    page = open_path(f"{RUN}/sample?sample=a1")
    held: list[Any] = []
    page.route("**/sample?*position=1&part=1", lambda route: held.append(route))
    page.locator("#tokens a").nth(1).click()
    page.locator("#tokens a").nth(4).click()
    page.locator("#active", has_text="At token 4").wait_for()
    with page.expect_response("**position=1&part=1"):
        held[0].continue_()
    page.evaluate("new Promise(requestAnimationFrame)")
    page.evaluate("new Promise(requestAnimationFrame)")
    assert "At token 4" in page.locator("#active").inner_text()
    assert "position=4" in page.url


def test_a_part_of_a_volcano_is_dragged_out(open_path: Open) -> None:
    page = open_path(ADDRESSES["/run/{name}/comparison"])
    box = page.locator("#volcano svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 12)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.97, box["y"] + box["height"] * 0.7, steps=4)
    page.mouse.up()
    page.wait_for_url("**low=*")
    rows = page.locator("#grid-features ~ .scroll tbody tr")
    assert rows.count() == 1
    assert "2/5" in rows.first.inner_text()
    page.go_back(wait_until="load")
    assert rows.count() == 3
    bounds = page.locator("#bounds input[inputmode]")
    assert [bound.input_value() for bound in bounds.all()] == ["", "", "", ""]


def test_a_table_is_sorted_by_its_heading(open_path: Open) -> None:
    page = open_path(f"{RUN}/comparison?comparison=c1")
    page.get_by_role("button", name="d", exact=True).focus()
    page.keyboard.press("Enter")
    first = page.locator("#grid-features ~ .scroll tbody tr").first
    assert "2/5" in first.inner_text()
    page.keyboard.press("Enter")
    assert "2/7" in first.inner_text()


def test_everything_is_there_without_a_script(open_path: Open) -> None:
    page = open_path(f"{RUN}/sample?sample=a1", script=False)
    page.locator("#tokens a").nth(4).click()
    assert page.locator("#active", has_text="At token 4").count() == 1


def test_hostile_tokens_are_text(open_path: Open) -> None:
    page = open_path(f"{RUN}/sample?sample=a1")
    assert EVIL in page.locator("pre.wrap").inner_text()
    assert page.locator("#tokens script, #layers script").count() == 0


def test_another_site_cannot_read_the_pages(browser: Any, base: str) -> None:
    """A page of another origin gets nothing by fetch, and cannot put a page into a frame."""
    context = browser.new_context()
    page = context.new_page()
    page.route("http://evil.example/", lambda route: route.fulfill(body="<h1>evil</h1>"))
    page.goto("http://evil.example/")
    asked = "url => fetch(url).then(r => r.text(), () => 'refused')"
    assert page.evaluate(asked, base) == "refused"
    frame = "url => { document.body.innerHTML = `<iframe src='${url}'></iframe>` }"
    page.evaluate(frame, base)
    page.wait_for_timeout(500)
    assert not any("Runs" in (each.title() or "") for each in page.frames[1:])
    context.close()


def test_pages_come_quickly(open_path: Open, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    """How long each page takes on this small store is printed; that says nothing about a large
    store.
    """
    page = open_path("/")
    for name, path in ADDRESSES.items():
        began = time.perf_counter()
        page.goto(base + path)
        with capsys.disabled():
            print(f"{name:32} {1000 * (time.perf_counter() - began):7.0f} ms")
