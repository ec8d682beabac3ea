"""A sample of 512 tokens in headless Chromium: the page with all its pictures stays a light one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.browsing import IN_A_BROWSER, LONG_TASKS, chromium, run_chromium, wait_until
from tests.plugins.toolkit_tokens.conftest import PARTS, table
from toolkit._plugins.registry import Parts, PluginInfo
from toolkit._report.page import write_report
from toolkit.testing.fakes import TableInputs

pytestmark = IN_A_BROWSER
LAYERS, HEADS, ACTIVE = 31, 32, 50


def long_tables(tokens: int) -> dict[str, pa.Table]:
    """One sample at the published shape: 31 layers, 32 heads, 50 of 32,768 features a token."""
    draw = np.random.default_rng(0)
    pieces = [f" word{number}" for number in range(tokens)]
    sample = {
        "sample": "long", "unit": "long", "cluster": "long", "text": "".join(pieces),
        "token_ids": list(range(tokens)), "pieces": pieces, "prompt_hash": "", "bos": False,
        "spans": [{"name": "balance", "start": 40, "end": 42}],
    }  # fmt: skip
    space = {
        "space": "s", "model": "m", "revision": "0", "hookpoint": "resid_post.31", "sae": "a",
        "sae_hash": "0", "recipe": "plain", "width": 32768, "address": "m/resid_post.31/a",
    }  # fmt: skip
    firing = [
        {
            "space": "s", "sample": "long", "position": position,
            "features": sorted(draw.zipf(1.3, ACTIVE) % 32768),
            "values": draw.exponential(1, ACTIVE),
        }
        for position in range(tokens)
    ]  # fmt: skip
    attention = [
        {
            "model": "m", "sample": "long", "layer": layer, "head": head, "query": tokens - 1,
            "keys": None, "weights": draw.dirichlet(np.ones(tokens)).astype("float16"), "rest": 0.0,
        }
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]  # fmt: skip
    contrast = {
        "statistic": "attention_share", "span": "balance", "layer": 1, "group": "a", "value": 0.5,
        "low": 0.4, "high": 0.6, "p": None, "q": None, "units": 5, "text": None,
    }  # fmt: skip
    return {
        "samples": table("samples", [sample]),
        "spaces": table("spaces", [space]),
        "activations": table("activations", firing),
        "attention": table("attention", attention),
        "span_contrasts": table("span_contrasts", [contrast]),
    }


def report_of(folder: Path, tokens: int) -> Path:
    """A report with the token section alone."""
    folder.mkdir()
    inputs: Any = TableInputs(long_tables(tokens))
    manifest = {"run": "r", "name": "long", "spec": {}, "stages": []}
    parts = Parts([PluginInfo("tokens", "", "", parts=(PARTS.get("report", "tokens"),))])
    return write_report(folder, manifest, [], inputs, parts)


def test_a_sample_of_512_tokens_stays_light(tmp_path: Path) -> None:
    elements: dict[int, int] = {}
    for tokens in (64, 512):
        page = report_of(tmp_path / str(tokens), tokens)
        begun = time.perf_counter()
        dom = run_chromium(page, tmp_path / f"profile-{tokens}", "--dump-dom").stdout
        loaded = time.perf_counter()
        picture = page.with_name("page.png")
        size = "--window-size=1280,4000"
        run_chromium(page, tmp_path / f"profile-{tokens}", f"--screenshot={picture}", size)
        painted = time.perf_counter()
        assert "Attention from the decision back to the tokens: long" in dom
        assert picture.stat().st_size > 20_000
        elements[tokens] = len(re.findall(r"<[a-z]", dom))
        print(
            f"{tokens} tokens: {page.stat().st_size:,} bytes, {elements[tokens]:,} elements, "
            f"loaded in {loaded - begun:.2f} s, loaded and painted in {painted - loaded:.2f} s"
        )
        assert page.stat().st_size < 2_500_000
        assert elements[tokens] < 20_000
    assert elements[512] < 5 * elements[64]


@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_of_512_tokens_scrolls_and_answers(
    tmp_path: Path, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """How long the browser was busy without a pause is printed, and asserted nowhere."""
    page = report_of(tmp_path / "long", 512)
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": width, "height": 900})
        opened.add_init_script(LONG_TASKS)
        opened.goto(page.as_uri())
        loading = opened.evaluate("longTasks.splice(0)")
        for _ in range(10):
            opened.mouse.wheel(0, 400)
        wait_until(opened, "scrollY > 2000")
        opened.get_by_role("link", name="Provenance").click()
        opened.get_by_text("Stages, with versions and keys").click()
        assert opened.evaluate("document.querySelector('details').open")
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert opened.evaluate("document.querySelectorAll('*').length") < 20_000
        with capsys.disabled():
            print(f"\n{width} px: long tasks, ms: {loading} to load, ", end="")
            print(f"{opened.evaluate('longTasks')} to scroll and click")
