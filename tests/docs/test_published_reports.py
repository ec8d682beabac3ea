"""The reports in docs/reports: each page of an experiment links one, they are small, they say which
command made them, and nothing about the machine that did.
"""

from __future__ import annotations

import html
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PICTURES: Any = runpy.run_path(str(DOCS / "pictures.py"))
REPORTS = sorted((DOCS / "reports").glob("*.html"))
LINK = re.compile(r"\]\((?:\.\./)?reports/([\w-]+)\.html\)")
A_PLACE = re.compile(
    r"(?<![\w./-])/(?:home|root|tmp|opt|work|usr|var|mnt|data|srv|scratch|Users|private)/[\w.-]+"
)
MAX_BYTES, MAX_TOGETHER = 1_500_000, 10_000_000


def linked(page: Path) -> list[str]:
    return LINK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", sorted((DOCS / "experiments").glob("*.md")), ids=lambda p: p.stem)
def test_the_page_of_an_experiment_links_its_report(page: Path) -> None:
    assert page.stem in linked(page)
    assert {f"{name}.html" for name in linked(page)} <= {report.name for report in REPORTS}


def test_every_report_is_linked_and_all_are_small() -> None:
    pages = [page for page in DOCS.rglob("*.md") if page.name != "README.md"]
    assert {report.stem for report in REPORTS} == {name for page in pages for name in linked(page)}
    assert {report.stem for report in REPORTS} == set(PICTURES["SPECS"])
    sizes = [report.stat().st_size for report in REPORTS]
    assert max(sizes) <= MAX_BYTES
    assert sum(sizes) <= MAX_TOGETHER


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.stem)
def test_a_report_says_the_command_and_nothing_about_the_machine(report: Path) -> None:
    text = html.unescape(report.read_text(encoding="utf-8"))
    assert " ".join(["toolkit", *PICTURES["arguments_of"](report.stem)]) in text
    assert re.findall(r"<dt>host</dt><dd>(.*?)</dd>", text) == ["<code>(left out)</code>"]
    assert A_PLACE.findall(text) == []
    assert not re.search(r"https?://(?!www\.w3\.org/|www\.neuronpedia\.org/)[\w.]*", text)


def test_names_of_the_machine_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PICTURES["socket"], "gethostname", lambda: "a-machine")
    root, store = PICTURES["ROOT"], PICTURES["STORE"]
    report = (
        f"toolkit run exp0-1 --store {store} {root}/specs/exp0_llama.yaml "
        "<dt>host</dt><dd><code>a-machine</code>"
    )
    assert PICTURES["placeless"](report, "exp0", "exp0-1") == (
        "toolkit run specs/exp0_llama.yaml --overlay specs/lab.yaml specs/exp0_llama.yaml "
        f"{PICTURES['HOST']}"
    )
