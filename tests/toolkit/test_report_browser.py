"""The report in headless Chromium: it renders, it logs no error."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from tests.browsing import IN_A_BROWSER, run_chromium
from toolkit._plugins.registry import Parts, PluginInfo
from toolkit._report.page import write_report
from toolkit._run import events as ev
from toolkit.parts import ReportSection
from toolkit.work import Figure

pytestmark = IN_A_BROWSER


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
    return write_report(tmp_path, manifest, events, Tables(), parts_of(drawn))


def parts_of(section: ReportSection) -> Parts:
    return Parts([PluginInfo("drawing", "", "", parts=(section,))])


def test_it_renders_without_console_errors(page: Path, tmp_path: Path) -> None:
    done = run_chromium(page, tmp_path / "profile", "--enable-logging=stderr", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    for heading in ("toy &lt;b&gt;", "Drawn", "Methods", "Limits", "Steps", "Provenance"):
        assert heading in done.stdout


def test_a_screenshot_shows_something(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    run_chromium(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=800,1200")
    assert picture.stat().st_size > 20_000


HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    '"><svg onload="document.title=\'owned\'">',
    "'><body onload='document.title=`owned`'>",
    "</textarea></style></script></title><script>document.title='owned'</script>",
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\">",
    "javascript:document.title='owned'",
)


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_names_do_nothing_even_without_the_policy(tmp_path: Path, evil: str) -> None:
    """The policy of the page is the second wall; here it is taken down."""
    place = {"key": evil, "stage": evil, "index": 0, "worker": evil}
    events: list[ev.RunEvent] = [
        ev.RunStarted(at="2026-01-01T00:00:00+00:00", run=evil, stages=1, log=evil),
        ev.StageReady(
            at="2026-01-01T00:00:01+00:00", stage=evil, part=evil, steps=1, reused=0, todo=1
        ),
        ev.StepStarted(at="2026-01-01T00:00:01+00:00", reason=evil, **place),
        ev.PartWarning(at="2026-01-01T00:00:02+00:00", text=evil, **place),
        ev.StepFailure(at="2026-01-01T00:00:03+00:00", error=evil, **place),
        ev.RunFailed(at="2026-01-01T00:00:04+00:00", error=evil),
    ]
    manifest = {
        "run": evil,
        "name": evil,
        "spec": {evil: evil, "question": evil},
        "command": evil,
        "stages": [{"id": evil, "part": evil, "help": evil, "params": {evil: evil}}],
    }

    def broken(inputs: object) -> list[Figure]:
        raise RuntimeError(evil)

    section = ReportSection(name="x", help=evil, title=evil, reads=("samples",), run=broken)
    page = write_report(tmp_path, manifest, events, Tables(), parts_of(section))
    text = page.read_text(encoding="utf-8")
    policy = re.compile(r"<meta[^>]*Content-Security-Policy[^>]*>")
    assert len(policy.findall(text)) == 1
    page.write_text(policy.sub("", text), encoding="utf-8")
    done = run_chromium(page, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=2000")
    assert "</html>" in done.stdout
    assert "<title>owned</title>" not in done.stdout
    assert not re.search(r"<(img|iframe|body)[^>]+(onerror|srcdoc|onload)", done.stdout)
