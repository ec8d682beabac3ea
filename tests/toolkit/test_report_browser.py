"""The report in headless Chromium: it renders, it logs no error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from toolkit._report.page import write_report
from toolkit._run import events as ev
from toolkit.parts import ReportSection
from toolkit.work import Figure

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


class Tables:
    def read(self, table: str) -> pa.Table:
        return pa.table({"sample": ["s"]})

    def tables(self) -> list[str]:
        return ["samples"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    place = {"key": "a", "stage": "count", "index": 0, "worker": "w"}
    events: list[ev.RunEvent] = [
        ev.RunStarted(at="2026-01-01T00:00:00+00:00", run="r1", stages=1, log="log.txt"),
        ev.StepDone(at="2026-01-01T00:00:03+00:00", seconds=2.5, rows={}, **place),
        ev.RunDone(at="2026-01-01T00:00:04+00:00", computed=1, reused=0, seconds=4.0),
    ]
    manifest = {
        "run": "r1",
        "name": "toy <b>",
        "spec": {"a": "<script>"},
        "stages": [{"id": "count", "part": "count"}],
    }
    drawn = ReportSection(
        name="x",
        help="",
        title="Drawn",
        reads=("samples",),
        run=lambda inputs: [Figure("Shape", "<svg width=9 height=9></svg>")],
    )
    return write_report(tmp_path, manifest, events, Tables(), [drawn])


def browse(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    base = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking "
        "--disable-component-update"
    )
    where = [f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(
        [str(CHROMIUM), *base.split(), "--disable-sync", "--no-first-run", *flags, *where],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_renders_without_console_errors(page: Path, tmp_path: Path) -> None:
    done = browse(page, tmp_path / "profile", "--enable-logging=stderr", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    for heading in ("toy &lt;b&gt;", "At a glance", "Stages", "Drawn", "Timings", "Provenance"):
        assert heading in done.stdout


def test_a_screenshot_shows_something(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    browse(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=800,1200")
    assert picture.stat().st_size > 20_000
