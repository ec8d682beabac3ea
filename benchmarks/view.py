"""The explorer over a store of 9.9 M entries: how long each page takes to make, and memory.

    python benchmarks/view.py           31 layers x 6,400 samples x 50 of 16,384 features
    python benchmarks/view.py --tiny    64 samples, asked once: whether it runs, no figures
    python benchmarks/view.py --browser CHROMIUM    first paint and clicks as well

The first table has the server's time to a whole page, requested without a browser. With
`--browser`, headless Chromium then opens `toolkit view` and times the first paint of each page, and
from a click on a link to the paint of the next page. Features are drawn by popularity, and every
page is requested first in a fresh process ("first") and then with other features and samples
("median", "slowest").
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil
import pyarrow as pa
from _store_data import LAYERS, SAMPLES, WIDTH, drawn, sample, space, steps

from toolkit._view.app import make_app
from toolkit._view.guard import Guard
from toolkit._view.library import Library
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import open_store

RUN = "benchmark"
TOKENS = 300


def fill(folder: Path, samples: int) -> None:
    """A finished run: texts, spaces, activations and their index."""
    store = open_store(folder, create=True)
    keys = ["texts"]
    with store.writer():
        store.commit(make_step("texts", run=RUN), {"samples": texts(samples), "spaces": spaces()})
        for key, rows in steps(samples):
            store.commit(make_step(key, run=RUN), {"activations": rows})
            keys.append(key)
        store.index(keys, run=RUN)
        store.record_run(run=RUN, name=RUN, state="done", steps=keys, done=len(keys))
    record = folder / "runs" / RUN
    record.mkdir(parents=True)
    (record / "manifest.json").write_text(json.dumps({"run": RUN, "stages": []}))


def texts(samples: int) -> pa.Table:
    """Texts of 300 tokens."""
    pieces = [f" word{number}" for number in range(TOKENS)]
    rows = [
        {
            "sample": sample(number),
            "unit": sample(number),
            "cluster": sample(number),
            "text": "".join(pieces),
            "token_ids": list(range(TOKENS)),
            "pieces": pieces,
            "spans": [],
            "prompt_hash": sample(number),
        }
        for number in range(samples)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("samples"))


def spaces() -> pa.Table:
    """One SAE at each layer."""
    rows = [
        {
            "space": space(layer),
            "model": "benchmark",
            "revision": "0",
            "hookpoint": f"resid_post.{layer}",
            "sae": "sae",
            "sae_hash": str(layer),
            "recipe": "topk",
            "width": WIDTH,
            "address": f"benchmark/resid_post.{layer}/sae",
        }
        for layer in range(LAYERS)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("spaces"))


def get(app: Guard, path: str, values: Mapping[str, object]) -> float:
    """Seconds until a whole page has arrived."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "query_string": urlencode(values).encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 8765),
        "headers": [(b"host", b"127.0.0.1")],
    }
    statuses = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, object]) -> None:
        statuses.append(message.get("status"))

    start = time.perf_counter()
    asyncio.run(app(scope, receive, send))
    spent = time.perf_counter() - start
    if statuses[0] != 200:
        raise SystemExit(f"{path}: {statuses[0]}")
    return spent


def requests(samples: int, rounds: int) -> dict[str, tuple[str, list[dict[str, object]]]]:
    """Each kind of page: its path and its queries."""
    rng = np.random.default_rng(0)
    features = [
        (layer, int(rng.choice(drawn(0, min(64, samples), layer)[1])))
        for layer in rng.integers(LAYERS, size=rounds)
    ]
    names = [sample(int(number)) for number in rng.integers(samples, size=rounds)]
    return {
        "runs": ("/", [{}] * rounds),
        "run": (f"/run/{RUN}", [{}] * rounds),
        "samples": (f"/run/{RUN}/samples", [{}] * rounds),
        "feature": (
            f"/run/{RUN}/feature",
            [{"address": f"{layer}/{index}"} for layer, index in features],
        ),
        "sample": (f"/run/{RUN}/sample", [{"sample": name} for name in names]),
        "token of a sample": (
            f"/run/{RUN}/sample",
            [{"sample": name, "position": int(name[-7:]) * 7 % 300} for name in names],
        ),
        "search": ("/search", [{"q": f"{layer}/{index}"} for layer, index in features]),
    }


def measure(folder: Path, samples: int, rounds: int) -> None:
    """Ask for each page and print the times."""
    library = Library(folder)
    library.states()
    print(f"memory before the first page: {memory()}")
    app = make_app(library)
    print(f"{'page':20} {'first':>8} {'median':>8} {'slowest':>8}  ms")
    for name, (path, values) in requests(samples, rounds).items():
        show(name, [1000 * get(app, path, each) for each in values])
    print(f"memory at the end: {memory()}")


def show(name: str, spent: list[float]) -> None:
    """Print one line of a table."""
    later = spent[1:] or spent
    print(f"{name:20} {spent[0]:8.0f} {statistics.median(later):8.0f} {max(later):8.0f}")


def measure_in_browser(folder: Path, samples: int, rounds: int, chromium: str) -> None:
    """Open each page of a server in Chromium, follow a link on it, and print when it painted."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "toolkit", "view", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        base = server.stdout.readline().strip().rstrip("/")
        with sync_playwright() as playwright:
            flags = ["--no-sandbox", "--disable-gpu"]
            browser = playwright.chromium.launch(executable_path=chromium, args=flags)
            page = browser.new_page()
            print(f"{'first paint':20} {'first':>8} {'median':>8} {'slowest':>8}  ms")
            for name, (path, values) in requests(samples, rounds).items():
                show(name, [paint(page, f"{base}{path}?{urlencode(each)}") for each in values])
            page.goto(f"{base}/run/{RUN}/samples")
            clicks = [click(page, number) for number in range(rounds)]
            show("click on a sample", clicks)
    finally:
        server.terminate()
        server.wait()


PAINTED = "performance.getEntriesByName('first-contentful-paint').at(0)?.startTime ?? null"


def paint(page: Any, address: str) -> float:
    """Milliseconds from requesting a page to its first paint."""
    page.goto(address)
    return painted(page)


def painted(page: Any) -> float:
    """The time of a page's first paint. The pages' policy forbids a script that waits for it."""
    while (moment := page.evaluate(PAINTED)) is None:
        time.sleep(0.005)
    return float(moment)


def click(page: Any, number: int) -> float:
    """Milliseconds from a click on a sample until its page is seen; then goes back."""
    links = page.locator("a[href*='/sample?']")
    links.nth(number % links.count()).click()
    page.wait_for_url("**/sample?*")
    spent = painted(page)
    page.go_back()
    return spent


def memory() -> str:
    """The process's resident memory, and the share of file pages, which the system can reclaim."""
    size = psutil.Process().memory_info()
    files = getattr(size, "shared", 0)
    return f"{size.rss / 2**20:,.0f} MiB, {files / 2**20:,.0f} MiB of them pages of files"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="64 samples, asked once")
    parser.add_argument("--rounds", type=int, default=30, help="pages of each kind")
    parser.add_argument("--browser", metavar="CHROMIUM", help="the program of a Chromium")
    options = parser.parse_args()
    samples, rounds = (64, 1) if options.tiny else (SAMPLES, options.rounds)
    folder = Path(tempfile.mkdtemp())
    try:
        # Not in this process: what filling leaves behind is not the explorer's memory.
        filling = multiprocessing.get_context("spawn").Process(
            target=fill, args=(folder / "store", samples)
        )
        filling.start()
        filling.join()
        if filling.exitcode:
            raise SystemExit("The store could not be filled; its error stands above.")
        measure(folder / "store", samples, rounds)
        if options.browser:
            measure_in_browser(folder / "store", samples, rounds, options.browser)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
