"""The explorer over a store of 9.9 M entries: how long pages and clicks take, and memory.

    python benchmarks/view.py           31 layers x 6,400 samples x 50 of 16,384 features, each with
                                        11 statistics of a comparison (5.6 M rows), in two runs
    python benchmarks/view.py --tiny    64 samples, one request each: no figures
    python benchmarks/view.py --browser CHROMIUM    first paint and clicks as well
    python benchmarks/view.py --questions 400       memory over so many different requests
    python benchmarks/view.py --fill STORE          only makes that store

The first table has the server's time to a whole page, requested without a browser from a fresh
`toolkit view`. With `--browser`, headless Chromium times the first paint of each page, and from a
click on a link to the paint of the next page. Features are drawn by popularity, and every page is
requested first ("first") and then with other features and samples ("median", "slowest").
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
import psutil
from _store_data import LAYERS, SAMPLES, drawn, sample
from _view_store import COMPARISON, PART, RUN, fill


class Server(NamedTuple):
    """A running `toolkit view`."""

    base: str
    process: psutil.Process


@contextmanager
def served(store: Path) -> Iterator[Server]:
    """`toolkit view` in a process of its own."""
    command = [sys.executable, "-m", "toolkit", "view", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            base = server.stdout.readline().strip().rstrip("/")
            yield Server(base, psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait()


def get(server: Server, path: str, values: Mapping[str, object]) -> float:
    """Seconds until a whole page has arrived."""
    connection = http.client.HTTPConnection(server.base.removeprefix("http://"), timeout=600)
    start = time.perf_counter()
    connection.request("GET", f"{path}?{urlencode(values)}" if values else path)
    answer = connection.getresponse()
    while answer.read(1 << 20):
        pass
    spent = time.perf_counter() - start
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"{path} {dict(values)}: {answer.status}")
    return spent


Requests = dict[str, tuple[str, Sequence[Mapping[str, object]]]]


def requests(samples: int, rounds: int, seed: int = 0) -> Requests:
    """Each kind of page: its path and its queries."""
    rng = np.random.default_rng(seed)
    features = [
        (layer, int(rng.choice(drawn(0, min(64, samples), layer)[1])))
        for layer in rng.integers(LAYERS, size=rounds)
    ]
    names = [sample(int(number)) for number in rng.integers(samples, size=rounds)]
    pages: Requests = {
        "runs": ("/", [{}] * rounds),
        "run": (f"/run/{RUN}", [{}] * rounds),
        "what was found": (f"/run/{RUN}/findings", [{}] * rounds),
        "features": (f"/run/{RUN}/features", [{}] * rounds),
        "features of a layer": (
            f"/run/{RUN}/features",
            [
                {"layer": layer} | ({"significant": 1} if index % 2 else {})
                for index, (layer, _) in enumerate(features)
            ],
        ),
        "a comparison": (
            f"/run/{RUN}/comparison",
            [
                {"comparison": COMPARISON} | ({"low": round(index / rounds, 3)} if index else {})
                for index in range(rounds)
            ],
        ),
        "samples": (
            f"/run/{RUN}/samples",
            [{"offset": index * 100 % samples} for index in range(rounds)],
        ),
        "feature": (
            f"/run/{RUN}/feature",
            [{"address": f"{layer}/{index}"} for layer, index in features],
        ),
        "neighbours of a feature": (
            f"/run/{RUN}/neighbours",
            [{"address": f"{layer}/{index}"} for layer, index in features],
        ),
        "sample": (f"/run/{RUN}/sample", [{"sample": name} for name in names]),
        "token of a sample": (
            f"/run/{RUN}/sample",
            [{"sample": name, "position": int(name[-7:]) * 7 % 300} for name in names],
        ),
        "games": (f"/run/{RUN}/games", [{}] * rounds),
        "two runs": ("/compare", [{"a": PART, "b": RUN}] * rounds),
        "search an address": (
            "/search",
            [{"q": f"{layer}/{index}"} for layer, index in features],
        ),
        "search a word": ("/search", [{"q": f"word{index}"} for _, index in features]),
    }
    return pages


def downloads(rounds: int) -> Requests:
    """Files: all features, those of a layer, all samples."""
    formats = [{"as": kind} for kind in ("csv", "parquet")] * rounds
    return {
        "all features as a file": (
            f"/run/{RUN}/features",
            [{"table": "features", **formats[index]} for index in range(rounds)],
        ),
        "all samples as a file": (
            f"/run/{RUN}/samples",
            [{"table": "samples", **formats[index]} for index in range(rounds)],
        ),
    }


def measure(server: Server, samples: int, rounds: int) -> dict[str, list[float]]:
    """Ask for each page, print the times, and return them in milliseconds."""
    print(f"memory before the first page: {memory(server)}")
    early = [1000 * get(server, f"/run/{RUN}/{page}", {}) for page in ("features", "ranking")]
    print("asked as soon as the server stands:", end=" ")
    print(f"the page of features {early[0]:,.0f} ms, and their ranking {early[1]:,.0f}")
    times = {}
    print(f"{'page':24} {'first':>8} {'median':>8} {'slowest':>8}  ms")
    for name, (path, values) in requests(samples, rounds).items():
        times[name] = [1000 * get(server, path, each) for each in values]
        show(name, times[name])
    for name, (path, values) in downloads(min(rounds, 2)).items():
        show(name, [1000 * get(server, path, each) for each in values])
    print(f"memory at the end: {memory(server)}")
    return times


def show(name: str, spent: Sequence[float]) -> None:
    """Print one line of a table."""
    later = spent[1:] or spent
    print(
        f"{name:24} {spent[0]:8.0f} {statistics.median(later):8.0f} {max(later):8.0f}", flush=True
    )


def ask_many(server: Server, samples: int, questions: int) -> list[float]:
    """Ask so many different questions, files among them, and return the resident memory in MiB
    after each tenth of them.
    """
    kinds = [*requests(samples, 1), *downloads(1)]
    each = max(1, questions // len(kinds))
    asked = requests(samples, each, seed=1) | downloads(max(1, each // 20))
    todo = [(path, query) for path, queries in asked.values() for query in queries]
    np.random.default_rng(2).shuffle(todo)
    sizes = []
    for part in np.array_split(np.arange(len(todo)), 10):
        for number in part:
            get(server, *todo[number])
        sizes.append(resident(server))
        print(f"after {part[-1] + 1 if len(part) else 0:5} questions: {memory(server)}", flush=True)
    return sizes


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


CLICKS = {
    "a run": ("/", "#grid-runs ~ .scroll td a", "**/run/*"),
    "features": (f"/run/{RUN}", "nav a[href$='/features']", "**/features"),
    "samples": (f"/run/{RUN}", "nav a[href$='/samples']", "**/samples"),
    "games": (f"/run/{RUN}", "nav a[href$='/games']", "**/games"),
    "a feature": (f"/run/{RUN}/features", "#grid-features ~ .scroll td a", "**/feature?*"),
    "significant only": (f"/run/{RUN}/features?significant=1", ".choose button", "**/features?*"),
    "a comparison": (f"/run/{RUN}", "main a[href*='/comparison?']", "**/comparison?*"),
    "a sample": (f"/run/{RUN}/samples", "#grid-samples ~ .scroll td a", "**/sample?*"),
    "two runs": ("/", "form[action='/compare'] button", "**/compare?*"),
    "runs": (f"/run/{RUN}", "nav a[href='/']", "**/"),
}
"""What is clicked on: the page, the link or button, and the address that it leads to."""


def click(page: Any, selector: str, glob: str, number: int) -> float:
    """Milliseconds from a click until the next page is seen; then goes back."""
    links = page.locator(selector)
    links.nth(number % links.count()).click()
    page.wait_for_url(glob)
    spent = painted(page)
    page.go_back()
    return spent


def measure_in_browser(
    server: Server, samples: int, rounds: int, chromium: str
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Open each page in Chromium, follow links, and print and return when pages painted."""
    from playwright.sync_api import sync_playwright

    paints, clicks = {}, {}
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        print(f"{'first paint':24} {'first':>8} {'median':>8} {'slowest':>8}  ms")
        for name, (path, values) in requests(samples, rounds).items():
            if name == "what was found":
                continue  # a part of another page
            paints[name] = [paint(page, f"{server.base}{path}?{urlencode(v)}") for v in values]
            show(name, paints[name])
        print(f"{'click on':24} {'first':>8} {'median':>8} {'slowest':>8}  ms")
        for name, (path, selector, glob) in CLICKS.items():
            page.goto(server.base + path)
            clicks[name] = [click(page, selector, glob, number) for number in range(rounds)]
            show(name, clicks[name])
        browser.close()
    return paints, clicks


def resident(server: Server) -> float:
    """The server's resident memory in MiB."""
    return float(server.process.memory_info().rss) / 2**20


def memory(server: Server) -> str:
    """The server's resident memory, and the share of file pages, which the system can reclaim."""
    files = getattr(server.process.memory_info(), "shared", 0) / 2**20
    return f"{resident(server):,.0f} MiB, {files:,.0f} MiB of them pages of files"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="64 samples, asked once")
    parser.add_argument("--rounds", type=int, default=30, help="pages of each kind")
    parser.add_argument("--browser", metavar="CHROMIUM", help="the program of a Chromium")
    parser.add_argument("--questions", type=int, default=0, help="different requests for memory")
    parser.add_argument("--fill", metavar="STORE", type=Path, help="only make this store")
    parser.add_argument("--store", metavar="STORE", type=Path, help="a store made by --fill")
    options = parser.parse_args()
    samples, rounds = (64, 1) if options.tiny else (SAMPLES, options.rounds)
    if options.fill:
        fill(options.fill, samples)
        return
    folder = Path(tempfile.mkdtemp())
    try:
        store = options.store or folder / "store"
        if not options.store:
            fill(store, samples)
        with served(store) as server:
            measure(server, samples, rounds)
        if options.browser:
            with served(store) as server:
                measure_in_browser(server, samples, rounds, options.browser)
        if options.questions:
            with served(store) as server:
                ask_many(server, samples, options.questions)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
