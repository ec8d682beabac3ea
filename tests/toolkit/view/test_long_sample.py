"""A sample of 512 tokens at 31 layers, in the explorer: its page is paged, scrolls and answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import IN_A_BROWSER, LONG_TASKS, wait_until
from tests.toolkit.query.asked import commit, fired, space, text
from tests.toolkit.view.seen import _begin
from tests.toolkit.view.test_browser import browser, served  # noqa: F401
from toolkit_store import open_store

pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(300)]
TOKENS, LAYERS = 512, 31


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over a store with one long sample: three features of each layer at every token."""
    store = open_store(tmp_path_factory.mktemp("long") / "store", create=True)
    pieces = [f" word{number}" for number in range(TOKENS)]
    spaces = [space(f"s{layer}", layer, "sae") for layer in range(1, LAYERS + 1)]
    rows = [
        fired(row["space"], "long", position, f1=1.0 + position % 7, f5=0.5, f9=0.25)
        for row in spaces
        for position in range(TOKENS)
    ]
    with store.writer():
        commit(
            store, "k1", "prompts", "long-1", {"samples": [text("long", "".join(pieces), pieces)]}
        )
        commit(store, "k2", "extract", "long-1", {"activations": rows, "spaces": spaces})
        _begin(store, "long-1", "2026-01-01", "done", ["k1", "k2"])
        store.index(["k1", "k2"], run="long-1")
    with served(Path(store.folder)) as address:
        yield address


@pytest.mark.parametrize("width", [1280, 400])
def test_a_sample_of_512_tokens_is_paged_and_answers(
    browser: Any,  # noqa: F811
    base: str,
    width: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """How long the browser was busy without a pause is printed, and asserted nowhere."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.add_init_script(LONG_TASKS)
    page.goto(f"{base}/run/long-1/sample?sample=long")
    loading = page.evaluate("longTasks.splice(0)")
    assert page.locator("#layers tbody tr").count() == LAYERS
    assert page.evaluate("document.querySelectorAll('*').length") < 20_000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#tokens a").nth(30).click()
    page.locator("#active", has_text="At token 30").wait_for()
    page.mouse.wheel(0, 1500)
    wait_until(page, "scrollY > 300")
    page.locator("#layers td").nth(9).click()
    page.locator("#active", has_text="At token 9").wait_for()
    answering = page.evaluate("longTasks.splice(0)")
    page.get_by_role("link", name="Later tokens").click()
    page.locator("#tokens a", has_text="word511").wait_for()
    assert page.locator("#tokens a").count() < TOKENS
    with capsys.disabled():
        print(f"\n{width} px: long tasks, ms: {loading} to load, {answering} to scroll and click")
    page.close()
