"""The report: everything escaped, nothing loaded, plugins' sections kept in their place."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from toolkit._plugins.registry import Parts, PluginInfo
from toolkit._report.findings import findings_of
from toolkit._report.page import write_report
from toolkit._report.summaries import summaries_of
from toolkit._run import events as ev
from toolkit._run.progress import progress_of
from toolkit.parts import ReportSection, StagePart
from toolkit.work import Figure, Finding, Inputs

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
    "executors": [{"executor": "local", "workers": 1, "gpus": []}],
    "command": "toolkit run r1",
}
PLACE = {"stage": "count", "worker": "w"}
EVENTS: list[ev.RunEvent] = [
    ev.RunStarted(at="2026-01-01T00:00:00+00:00", run="r1", stages=1, log="log.txt"),
    ev.StageReady(
        at="2026-01-01T00:00:01+00:00", stage="count", part="count", steps=3, reused=1, todo=2
    ),
    ev.StepReused(at="2026-01-01T00:00:02+00:00", key="a", stage="count", index=0),
    ev.StepStarted(at="2026-01-01T00:00:03+00:00", key="b", index=1, reason=EVIL, **PLACE),
    ev.StepDone(
        at="2026-01-01T00:00:09+00:00", key="b", index=1, seconds=6, rows={"samples": 7}, **PLACE
    ),
    ev.StepFailure(at="2026-01-01T00:00:10+00:00", key="c", index=2, error=EVIL, **PLACE),
    ev.RunFailed(at="2026-01-01T00:00:11+00:00", error=EVIL),
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


def written(folder: Path, *sections: ReportSection, events: list[ev.RunEvent] = EVENTS) -> str:  # type: ignore[assignment]
    inputs = Tables(
        samples=pa.table({"sample": ["s"]}),
        features=pa.table({"feature": pa.array([], pa.uint32())}),
    )
    parts = Parts([PluginInfo("drawing", "", "", parts=sections)])
    return write_report(folder, MANIFEST, events, inputs, parts).read_text(encoding="utf-8")


def test_everything_is_escaped(tmp_path: Path) -> None:
    page = written(tmp_path, section("good", shows), section("bad", raises))
    assert page.count("<script") == 1  # the page's own
    assert page.count("&lt;script&gt;") >= 6


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, section("good", shows))
    assert "default-src 'none'" in html.unescape(page)
    assert re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:|//)""", page) == []
    assert "@import" not in page
    assert "url(" not in page


def test_no_script_runs_but_the_one_that_the_policy_names(tmp_path: Path) -> None:
    page = written(tmp_path, section("good", shows))
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(page)


def test_the_question_and_what_was_found_come_first(tmp_path: Path) -> None:
    def found(inputs: Inputs) -> Iterable[Finding]:
        yield Finding(
            sentence=f"Something differs {EVIL}",
            number=0.8,
            interval=(0.7, 0.9),
            n=96,
            baseline="balance alone reaches AUROC 0.850",
        )

    part = replace(section("good", shows), findings=found)
    page = written(tmp_path, part)
    order = [
        "<h1>",
        "Something differs",
        "interval 0.7 to 0.9; 96 independent units; balance alone reaches AUROC 0.850",
        'aria-label="Contents"',
        "Title good",
        '<h2 id="methods">',
        '<h2 id="limits">',
        '<h2 id="provenance">',
        '<h2 id="steps">',
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


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
    assert "of plugin <code>drawing</code> raised" in page
    assert "plain content" in page
    assert "Provenance" in page


def test_state_counts_and_command(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert "Failed." in page
    assert "2 of 3" in page
    assert "toolkit run r1" in page
    end = ev.RunDone(at="2026-01-01T00:01:00+00:00", computed=1, reused=1, seconds=60.0)
    assert "Done." in written(tmp_path, events=[*EVENTS[:5], end])
    assert "Partial" in written(tmp_path, events=EVENTS[:5])  # type: ignore[arg-type]


def test_captions_stand_outside_of_what_scrolls(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert "<caption" not in page
    captions = re.findall(
        r'<p class="caption">(.*?)</p>\s*<div class="scroll" role="group" tabindex="0" '
        r'aria-label="(.*?)"><table>',
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


def test_a_warning_says_where_and_what(tmp_path: Path) -> None:
    warning = ev.PartWarning(key="a", index=0, text="nothing there", **PLACE)
    page = written(tmp_path, events=[*EVENTS, warning])
    assert '<pre tabindex="0">warning of count[0]: nothing there</pre>' in page


def test_odd_characters_are_kept_printable(tmp_path: Path) -> None:
    line = (
        '{"event": "warning", "key": "a", "stage": "count", "index": 0, "worker": "w", '
        '"text": "lone \\ud800 and \\u0000"}'
    )
    event = ev.read_run_event(line)
    assert event is not None
    assert "lone \\ud800" in written(tmp_path, events=[*EVENTS, event])


def test_findings_are_ranked_and_a_section_that_fails_gives_none() -> None:
    def finds(*ranks: int) -> Callable[[Inputs], list[Finding]]:
        return lambda inputs: [Finding(sentence=f"rank {rank}", rank=rank) for rank in ranks]

    def fails(inputs: Inputs) -> list[Finding]:
        raise RuntimeError("broken")

    sections = [
        replace(section("a", shows), findings=finds(30, 10)),
        replace(section("b", shows), findings=fails),
        replace(section("c", shows), findings=finds(20, 40, 50, 60)),
        replace(section("d", shows, reads=("features",)), findings=finds(1)),
    ]
    parts: Any = SimpleNamespace(of=lambda kind: sections)
    inputs = Tables(samples=pa.table({"sample": ["s"]}), features=pa.table({"feature": []}))
    results = [finding.sentence for finding in findings_of(inputs, parts)]
    assert results == ["rank 10", "rank 20", "rank 30", "rank 40", "rank 50"]


def test_methods_have_what_a_part_says_of_its_own_events() -> None:
    def summary(events: Sequence[Mapping[str, Any]]) -> str:
        return f"{sum(event['texts'] for event in events)} texts."

    part = StagePart(name="extract.x", help="x", run=lambda work: iter(()), summary=summary)
    facts = [
        ev.PartEvent(key=key, index=0, name="extracted", facts={"texts": 3}, **PLACE)
        for key in "ab"
    ]
    plan = ev.BatchPlan(stage="count", device="cuda", free=80 << 30, plan={"tokens": 8192})
    run = progress_of([EVENTS[0], plan, *facts])
    manifest = {"stages": [{"id": "count", "part": "extract.x"}, {"id": "b", "part": "none"}]}
    assert list(summaries_of(run, manifest, [part])) == [
        "count: 6 texts. Batch plan: tokens 8,192, chosen for 80.0 GiB free (cuda)."
    ]
