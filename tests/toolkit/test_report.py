"""The report: everything escaped, nothing loaded, plugins' sections kept in their place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from toolkit._report.page import write_report
from toolkit.parts import ReportSection
from toolkit.work import Figure, Inputs

EVIL = "<script>alert(1)</script>"
MANIFEST = {
    "format": 1,
    "run": "r1",
    "name": f"name {EVIL}",
    "spec": {"version": 1, "name": EVIL, "question": "Does it escape?"},
    "stages": [
        {
            "id": "count",
            "part": "count",
            "version": "1",
            "needs": [],
            "writes": ["samples"],
            "key": "k",
        }
    ],
    "devices": [{"physical": 5, "visible": 0}],
    "command": "toolkit run r1",
}
EVENTS = [
    {"at": "2026-01-01T00:00:00+00:00", "event": "run_started"},
    {"at": "2026-01-01T00:00:01+00:00", "event": "stage_ready", "stage": "count", "steps": 3},
    {
        "at": "2026-01-01T00:00:02+00:00",
        "event": "step_reused",
        "key": "a",
        "stage": "count",
        "index": 0,
    },
    {
        "at": "2026-01-01T00:00:03+00:00",
        "event": "step_started",
        "key": "b",
        "stage": "count",
        "index": 1,
        "reason": EVIL,
    },
    {
        "at": "2026-01-01T00:00:09+00:00",
        "event": "step_done",
        "key": "b",
        "stage": "count",
        "index": 1,
        "seconds": 6,
        "rows": {"samples": 7},
    },
    {
        "at": "2026-01-01T00:00:10+00:00",
        "event": "step_failed",
        "key": "c",
        "stage": "count",
        "index": 2,
        "error": EVIL,
    },
    {"at": "2026-01-01T00:00:11+00:00", "event": "run_failed", "error": EVIL},
]


class Tables:
    """Inputs from a dict."""

    def __init__(self, **tables: pa.Table) -> None:
        self._tables = tables

    def read(self, table: str) -> pa.Table:
        return self._tables[table]

    def tables(self) -> list[str]:
        return sorted(self._tables)


def shows(inputs: Inputs) -> Iterable[Figure]:
    yield Figure("A figure", "<p>plain content</p>", f"alt {EVIL}")


def raises(inputs: Inputs) -> Iterable[Figure]:
    yield Figure("First", "<p>lost</p>")
    raise RuntimeError(f"broken {EVIL}")


def section(
    name: str, run: object, order: int = 50, reads: tuple[str, ...] = ("samples",)
) -> ReportSection:
    return ReportSection(
        name=name, help=f"help {EVIL}", title=f"Title {name}", reads=reads, run=run, order=order
    )  # type: ignore[arg-type]


def written(
    folder: Path, *sections: ReportSection, events: list[dict[str, object]] = EVENTS
) -> str:  # type: ignore[assignment]
    inputs = Tables(
        samples=pa.table({"sample": ["s"]}),
        features=pa.table({"feature": pa.array([], pa.uint32())}),
    )
    return write_report(folder, MANIFEST, events, inputs, sections).read_text(encoding="utf-8")


def test_everything_is_escaped(tmp_path: Path) -> None:
    page = written(tmp_path, section("good", shows), section("bad", raises))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, section("good", shows))
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:|//)""", page) == []
    assert "@import" not in page
    assert "url(" not in page


def test_sections_stand_in_order_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        section("late", shows, 90),
        section("early", shows, 10),
        section("empty", shows, reads=("features", "games")),
    )
    assert page.index("Title early") < page.index("Title late")
    assert "Title empty" not in page


def test_a_section_that_raises_is_a_box_with_its_plugin(tmp_path: Path) -> None:
    page = written(tmp_path, section("bad", raises, 10), section("good", shows, 20))
    assert "This section failed" in page
    assert "RuntimeError" in page
    assert __name__.split(".")[0] in page
    assert "plain content" in page
    assert "Provenance" in page


def test_state_counts_and_command(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert "Failed." in page
    assert "2 of 3" in page
    assert "toolkit run r1" in page
    assert "Done." in written(
        tmp_path, events=[*EVENTS[:5], {"at": "2026-01-01T00:01:00+00:00", "event": "run_done"}]
    )
    assert "Partial" in written(tmp_path, events=EVENTS[:5])  # type: ignore[arg-type]


def test_captions_stand_outside_of_what_scrolls(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert "<caption" not in page
    captions = re.findall(
        r'<p class="caption">(.*?)</p><div class="scroll" role="region" tabindex="0" aria-label="(.*?)"><table>',
        page,
    )
    assert len(captions) == page.count("<table>") > 1
    assert all(shown == spoken for shown, spoken in captions)


def test_a_run_that_did_nothing_yet_has_a_report(tmp_path: Path) -> None:
    assert "Partial" in written(tmp_path, events=[])


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, section("good", shows))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_warning_says_its_text_and_no_more(tmp_path: Path) -> None:
    events = [
        {
            "event": "warning",
            "at": "",
            "stage": "count",
            "index": 0,
            "text": "nothing there",
            "worker": "worker-0",
        }
    ]
    page = written(tmp_path, events=[*EVENTS, *events])
    assert "<pre>nothing there</pre>" in page
    assert "count [0]" in page


def test_odd_characters_are_kept_printable(tmp_path: Path) -> None:
    events = [
        *EVENTS,
        json.loads('{"event": "warning", "at": "", "text": "lone \\ud800 and \\u0000"}'),
    ]
    assert "lone \\ud800" in written(tmp_path, events=events)
