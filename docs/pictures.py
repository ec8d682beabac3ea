"""Take the screenshots of docs/images again: reports of the studies on the packaged model, and
pages of `toolkit view`, in headless Chromium at 1280 and 400 pixels.

    nox -s pictures                      all of them; runs that a store has are not computed again
    nox -s pictures -- quickstart exp1   those whose names begin so
    nox -s pictures -- --reports         and write the reports to docs/reports

Needs Chromium (TOOLKIT_CHROMIUM, or on the PATH). The runs take about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
STORE = ROOT / "out" / "pictures"
REPORTS = ROOT / "docs" / "reports"
MAX_BYTES = 200_000
WIDE, NARROW = 1280, 400
SPECS = {
    "quickstart": "quickstart",
    "exp0": "exp0_llama",
    "exp0-gemma": "exp0_gemma",
    "exp1": "exp1_sae_l1_31",
    "exp1-residual": "exp1_residual_l1_31",
    "exp1-pathway": "exp1_pathway",
    "exp2": "exp2_patching_l1_31",
    "exp2-as-published": "exp2_as_published",
    "exp3": "exp3_feature_words",
    "exp3-cross-reference": "exp3_cross_reference",
    "exp5": "exp5_persistent",
    "exp6": "exp6_tokens",
    "exp6-attention": "exp6_attention_only",
    "exp6-attribution": "exp6_attribution",
    "exp6-games": "exp6_games",
    "exp6-path": "trace_decision",
    "steering": "exp2_steering",
    "gemma": "gemma_top_features",
    "gemma-extract": "gemma_135_extract",
}
"""Study -> its spec. Each has a report in docs/reports."""
WITHOUT_PICTURE = frozenset({"exp0-gemma", "exp1-residual", "exp6-attention", "gemma-extract"})
"""Studies of which the documentation links the report and shows no picture."""
HOST = "<dt>host</dt><dd><code>(left out)</code>"
"""What a report in docs/reports says about the machine."""


@dataclass(frozen=True)
class Picture:
    """One picture. `page` is an address of the explorer below the run's, or empty for the report;
    `part` is the element to show instead of the top of the page.
    """

    name: str
    study: str
    page: str = ""
    part: str = ""
    width: int = WIDE
    height: int = 900


def pictures() -> Iterator[Picture]:
    """All pictures of the documentation."""
    for study in SPECS:
        if study not in WITHOUT_PICTURE:
            yield Picture(study, study)
    yield Picture("quickstart-narrow", "quickstart", width=NARROW, height=800)
    for name, page in (
        ("feature", "feature?address=3/65"),
        ("sample", "sample?sample={sample}&position={position}"),
    ):
        yield Picture(name, "quickstart", page)
        yield Picture(f"{name}-narrow", "quickstart", page, width=NARROW, height=800)
    yield Picture("volcano", "quickstart", "comparison?comparison={comparison}", height=760)
    yield Picture("game", "quickstart", "game?game={game}", height=760)
    yield Picture("search", "quickstart", "/search?q=3/65", height=420)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing and take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of the names of pictures; all if none")
    parser.add_argument("--reports", action="store_true", help="write docs/reports as well")
    options = parser.parse_args(arguments)
    chosen = [
        each
        for each in pictures()
        if not options.names or each.name.startswith(tuple(options.names))
    ]
    studies = dict.fromkeys(each.study for each in chosen)
    if options.reports:
        without = sorted(WITHOUT_PICTURE)
        names = tuple(options.names)
        studies |= dict.fromkeys(s for s in without if not names or s.startswith(names))
    reports = {study: run(study) for study in studies}
    if options.reports:
        REPORTS.mkdir(parents=True, exist_ok=True)
        for study, report in reports.items():
            text = placeless(report.read_text(encoding="utf-8"), study, report.parent.name)
            (REPORTS / f"{study}.html").write_text(text, encoding="utf-8")
    with explorer() as address, browser() as chromium:
        for picture in chosen:
            take(picture, reports[picture.study], address, chromium)


def run(study: str) -> Path:
    """Run a study on the packaged model; the path of its report, made anew, since a run that was
    complete before keeps the one it had.
    """
    print(" ".join(["toolkit", *arguments_of(study)]), flush=True)
    report = Path(_last_line(*arguments_of(study), "-q"))
    return Path(_last_line("report", report.parent.name))


def _last_line(*arguments: str) -> str:
    """The last line that a `toolkit` command on the pictures' store prints."""
    command = [toolkit(), *arguments, "--store", str(STORE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.splitlines()[-1]


def arguments_of(study: str) -> list[str]:
    """The arguments of `toolkit` that run a study on the packaged model."""
    overlay = [] if study == "quickstart" else ["--overlay", "specs/lab.yaml"]
    return ["run", f"specs/{SPECS[study]}.yaml", *overlay]


def placeless(report: str, study: str, run_id: str) -> str:
    """The text of a report without the names of this machine and of its folders, and with the
    command that anyone can give.
    """
    replaced = {
        f"toolkit run {run_id} --store {STORE}": " ".join(["toolkit", *arguments_of(study)]),
        f"{ROOT}/": "",
        f"<dt>host</dt><dd><code>{socket.gethostname()}</code>": HOST,
    }
    for here, anywhere in replaced.items():
        report = report.replace(here, anywhere)
    return report


def toolkit() -> str:
    """The program of this environment."""
    return str(Path(sys.executable).with_name("toolkit"))


@contextmanager
def explorer() -> Iterator[str]:
    """The address of `toolkit view` on the store of the runs."""
    command = [toolkit(), "view", str(STORE), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().rstrip("/")
        finally:
            server.terminate()


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("TOOLKIT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        sys.exit("There is no Chromium. Install it, or set TOOLKIT_CHROMIUM to its program.")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


def take(picture: Picture, report: Path, address: str, chromium: Any) -> None:
    """Take one picture and keep it small."""
    size = {"width": picture.width, "height": picture.height}
    page = chromium.new_page(viewport=size, color_scheme="light")
    page.goto(report.as_uri() if not picture.page else _url(picture, report, address, page))
    page.wait_for_load_state("networkidle")
    target = page.locator(picture.part).first if picture.part else page
    content = smaller(target.screenshot())
    if len(content) > MAX_BYTES:
        sys.exit(f"{picture.name}: {len(content):,} bytes; at most {MAX_BYTES:,} are committed")
    (IMAGES / f"{picture.name}.png").write_bytes(content)
    print(f"{picture.name}.png {len(content):,} bytes", flush=True)
    page.close()


def _url(picture: Picture, report: Path, address: str, page: Any) -> str:
    """The address of a page of the explorer; names in braces are taken from links of its pages."""
    base = f"{address}/run/{report.parent.name}"
    if picture.page.startswith("/"):
        return address + picture.page
    values: dict[str, str] = {}
    if "{sample}" in picture.page:
        page.goto(f"{base}/feature?address=3/65")
        values = _query(page.locator(".texts a").first.get_attribute("href"))
    elif "{comparison}" in picture.page:
        page.goto(f"{base}/features")
        values = _query(page.locator("a[href*='comparison?']").first.get_attribute("href"))
    elif "{game}" in picture.page:
        page.goto(f"{base}/games?outcome=bankruptcy")
        values = _query(page.locator("a[href*='game?game']").nth(3).get_attribute("href"))
    return f"{base}/{picture.page.format(**values)}"


def _query(href: str) -> dict[str, str]:
    from urllib.parse import parse_qsl, quote, urlsplit

    return {name: quote(value) for name, value in parse_qsl(urlsplit(href).query)}


def smaller(content: bytes) -> bytes:
    """A PNG with a palette of 256 colours, which a screenshot hardly misses."""
    from PIL import Image

    picture = Image.open(io.BytesIO(content)).convert("RGB")
    out = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
