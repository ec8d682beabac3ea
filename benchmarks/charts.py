"""Charts as SVG from the server, as the explorer and reports draw them, beside Vega-Lite's.

    python benchmarks/charts.py           bytes of pages and scripts, and time to make a page
    python benchmarks/charts.py --browser CHROMIUM    time to the painted chart and memory as well
    python benchmarks/charts.py --browser CHROMIUM --tiny    100 points, opened once: no figures

The same data three times: a volcano of 4,000 features that can be brushed, a histogram of 50,000
values in 30 bins, and a heatmap of 31 layers by their 24 strongest features, drawn by
`toolkit._view.charts` and `toolkit_stats.figures.heatmap`, and by Vega-Lite from a specification
with these values in the page, on a canvas (its default) and as SVG. Vega-Lite's bundle comes from
vl-convert (`pip install 'sae-toolkit[figures]'`) and runs with Vega's expression interpreter, since
the explorer's policy allows no `unsafe-eval`; whether it draws without it is printed.

Pages and scripts are served from this machine. Each round opens every page in a fresh browser
context ("first": nothing is kept) and then three times more ("again": the script comes from the
browser's cache), one way after another. A chart is painted when the page is loaded, the chart is
drawn and the browser has finished the next frame, in milliseconds since navigation began. Memory is
what `measureUserAgentSpecificMemory` reports, scripts and document together, and the JavaScript
heap after a collection.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import threading
import timeit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import vl_convert
from _chart_data import Chart, made_charts

from toolkit._report.page import report_resource
from toolkit._view.guard import POLICY
from toolkit._view.page import resource

POINTS, VALUES = 4_000, 50_000
STYLES = "style-src 'self' 'unsafe-inline'"
"""Both ways may style their page: a report's figures and Vega's tooltips do."""
INTERPRETED, COMPILED = "interpreted", "compiled"
WAYS = {
    "ours": None,
    "vega canvas": ("canvas", INTERPRETED),
    "vega svg": ("svg", INTERPRETED),
}
DRAW = """
const { renderer, expressions } = document.body.dataset;
const spec = JSON.parse(document.querySelector("#spec").textContent);
vegaEmbed("#chart", spec, { renderer, ast: expressions === "interpreted" }).then(
  () => { document.documentElement.dataset.drawn = "yes"; },
  (error) => { document.documentElement.dataset.drawn = `no: ${error.message}`; });
"""
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  refused.push(`${event.effectiveDirective} ${event.blockedURI}`));
window.painted = new Promise((done) => {
  const frameEnds = () => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done(performance.now());
    channel.port2.postMessage(null);
  };
  const look = () => {
    const drawn = document.readyState === "complete" && document.documentElement.dataset.drawn;
    if (drawn) frameEnds(); else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
"""


class Served(NamedTuple):
    """A file of the server: its bytes and type, and the policy of its page."""

    body: bytes
    kind: str
    policy: str = ""


# --- pages ----------------------------------------------------------------------------------------


def page(scripts: Sequence[str], main: str, body: str = "", drawn: bool = False) -> str:
    """A page with the explorer's style sheets."""
    tags = "".join(f'<script src="/{name}" defer></script>' for name in scripts)
    return (
        f'<!doctype html><html lang="en"{" data-drawn=yes" if drawn else ""}><head>'
        '<meta charset="utf-8"><link rel="icon" href="data:,"><title>Chart</title>'
        '<link rel="stylesheet" href="/report.css"><link rel="stylesheet" href="/view.css">'
        f"{tags}</head><body{body}><main><h1>Chart</h1>{main}</main></body></html>"
    )


def page_of(chart: Chart, way: tuple[str, str] | None) -> str:
    """The page of a chart: drawn by us, or by Vega-Lite with this renderer and expressions."""
    if way is None:
        return page(OURS, chart.ours(), drawn=True)
    renderer, expressions = way
    spec = json.dumps(chart.vega, separators=(",", ":")).replace("<", "\\u003c")
    main = f'<div id="chart"></div><script type="application/json" id="spec">{spec}</script>'
    body = f' data-renderer="{renderer}" data-expressions="{expressions}"'
    return page(VEGA, main, body)


OURS, VEGA = ("sort.js", "view.js"), ("vega.js", "draw.js")


def all_files(made: Mapping[str, Chart]) -> dict[str, Served]:
    """What is served: style sheets, scripts, and a page for each chart and way."""
    texts = {
        "report.css": report_resource("report.css"),
        "view.css": resource("view.css"),
        "sort.js": report_resource("report.js"),
        "view.js": resource("view.js"),
        "vega.js": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        "draw.js": DRAW,
    }
    kinds = {"css": "text/css", "js": "text/javascript"}
    files = {
        name: Served(text.encode(), kinds[name.rpartition(".")[2]]) for name, text in texts.items()
    }
    widened = POLICY.replace("style-src 'self'", STYLES)
    assert widened != POLICY
    for name, chart in made.items():
        for way, how in WAYS.items():
            body = page_of(chart, how).encode()
            files[address(name, way)] = Served(body, "text/html", widened)
            files[address(name, way, "strict")] = Served(body, "text/html", POLICY)
        compiled = page_of(chart, ("canvas", COMPILED)).encode()
        files[address(name, COMPILED)] = Served(compiled, "text/html", widened)
    return files


def address(chart: str, way: str, policy: str = "styled") -> str:
    """The name of a page."""
    return f"{chart}-{way.replace(' ', '-')}-{policy}.html"


@contextmanager
def served(files: Mapping[str, Served]) -> Iterator[str]:
    """A server of these files; scripts and style sheets may be kept by the browser."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            file = files.get(self.path.lstrip("/"))
            self.send_response(200 if file else 404)
            body = file.body if file else b""
            self.send_header("Content-Length", str(len(body)))
            if file:
                self.send_header("Content-Type", f"{file.kind}; charset=utf-8")
                kept = "no-store" if file.policy else "max-age=3600"
                self.send_header("Cache-Control", kept)
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                if file.policy:
                    self.send_header("Content-Security-Policy", file.policy)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Print nothing for a request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- measured -------------------------------------------------------------------------------------


def print_bytes(files: Mapping[str, Served], made: Mapping[str, Chart]) -> None:
    """The bytes of each page and of its scripts, and how long the server takes to make a page."""
    heads = ("page", "scripts", "both", "gzip", "ratio", "made, ms")
    print(f"{'KiB':10} {'way':12} " + " ".join(f"{head:>8}" for head in heads))
    for name, chart in made.items():
        base = None
        for way, how in WAYS.items():
            body = files[address(name, way)].body
            scripts = b"".join(files[each].body for each in (OURS if how is None else VEGA))
            both = len(body) + len(scripts)
            base = base or both
            small = len(gzip.compress(body)) + len(gzip.compress(scripts))
            sizes = [size / 1024 for size in (len(body), len(scripts), both, small)]
            making = timeit.repeat(partial(page_of, chart, how), number=1, repeat=9)
            cells = [*sizes, both / base, 1000 * statistics.median(making)]
            print(f"{name:10} {way:12} " + " ".join(f"{cell:8.1f}" for cell in cells))


class Opened(NamedTuple):
    """What one round measured of a page."""

    first: float
    again: float
    memory: float
    heap: float


def opened(browser: Any, url: str) -> Opened:
    """Open a page in a context of its own, then three times more."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(WATCH)
    tab = context.new_page()
    times = [painted(tab, url) for _ in range(4)]
    memory = tab.evaluate("performance.measureUserAgentSpecificMemory().then((all) => all.bytes)")
    tools = context.new_cdp_session(tab)
    tools.send("HeapProfiler.collectGarbage")
    heap = tab.evaluate("performance.memory.usedJSHeapSize")
    context.close()
    return Opened(times[0], statistics.median(times[1:]), memory / 2**20, heap / 2**20)


def painted(tab: Any, url: str) -> float:
    """Milliseconds from navigation to the painted chart."""
    tab.goto(url)
    spent = float(tab.evaluate("painted"))
    drawn = tab.evaluate("document.documentElement.dataset.drawn")
    if drawn != "yes":
        raise SystemExit(f"{url}: {drawn}")
    return spent


def print_times(browser: Any, base: str, names: Sequence[str], rounds: int) -> None:
    """Medians over all rounds, and their ratios to ours."""
    results: dict[tuple[str, str], list[Opened]] = {}
    for _ in range(rounds):
        for name in names:
            for way in WAYS:
                result = opened(browser, f"{base}/{address(name, way)}")
                results.setdefault((name, way), []).append(result)
    heads = ("first, ms", "again, ms", "memory, MiB", "heap, MiB")
    print(f"\n{'median of':10} {f'{rounds} rounds':12} " + " ".join(f"{h:>18}" for h in heads))
    for name in names:
        ours = medians(results[name, "ours"])
        for way in WAYS:
            cells = [
                f"{value:10.1f} ({value / base:4.1f}x)"
                for value, base in zip(medians(results[name, way]), ours, strict=True)
            ]
            print(f"{name:10} {way:12} " + " ".join(f"{cell:>18}" for cell in cells))


def medians(rounds: Sequence[Opened]) -> list[float]:
    """The median of each column."""
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def print_refused(browser: Any, base: str) -> None:
    """What the explorer's policy refuses of each way, and whether Vega-Lite draws by compiling
    expressions, its default.
    """
    print()
    context = browser.new_context()
    context.add_init_script(WATCH)
    tab = context.new_page()
    pages = {way: address("volcano", way, "strict") for way in WAYS}
    pages["vega, compiled"] = address("volcano", COMPILED)
    for way, name in pages.items():
        tab.goto(f"{base}/{name}")
        tab.evaluate("painted")
        drawn = tab.evaluate("document.documentElement.dataset.drawn")
        refused = tab.evaluate("refused")
        kinds = ", ".join(f"{refused.count(kind)} {kind}" for kind in sorted(set(refused)))
        print(f"{way}: drawn: {drawn[:100]}; refused by the policy: {kinds or 'nothing'}")
    context.close()


def measure_in_browser(
    files: Mapping[str, Served], names: Sequence[str], rounds: int, chromium: str
) -> None:
    """Open the pages in Chromium and print what was measured."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info"]
    flags.append("--enable-blink-features=ForceEagerMeasureMemory")
    with served(files) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        print_times(browser, base, names, rounds)
        print_refused(browser, base)
        browser.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="100 points, opened once")
    parser.add_argument("--rounds", type=int, default=15, help="rounds over all pages")
    parser.add_argument("--browser", metavar="CHROMIUM", help="the program of a Chromium")
    options = parser.parse_args()
    sizes, rounds = ((100, 1_000), 1) if options.tiny else ((POINTS, VALUES), options.rounds)
    made = made_charts(*sizes)
    files = all_files(made)
    print(f"Vega {vl_convert.get_vega_version()}, {len(files['vega.js'].body):,} bytes of script")
    print_bytes(files, made)
    if options.browser:
        measure_in_browser(files, list(made), rounds, options.browser)


if __name__ == "__main__":
    main()
