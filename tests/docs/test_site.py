"""The documentation site's own code: links of the repository become links of the site, and faults
of a built site are named.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES: Any = runpy.run_path(str(ROOT / "docs" / "site_pages.py"))
CHECK: Any = runpy.run_path(str(ROOT / "docs" / "check_site.py"))


@pytest.mark.parametrize(
    ("link", "site"),
    [
        ("../../specs/toy.yaml", "../source/specs/toy.yaml.md"),
        ("../../specs/data/README.md", "../source/specs/data/README.md"),
        ("../notebooks/results.ipynb", "../notebooks/results.md"),
        ("../faq.md#is-it-stuck", "../faq.md#is-it-stuck"),
        ("#a-heading", "#a-heading"),
        ("https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_a_link_of_a_page_leads_to_a_page_of_the_site(link: str, site: str) -> None:
    text = f"See [this]({link}).\n\n```text\n[code]({link})\n```\n"
    written = PAGES["site_links"](text, "experiments/exp1.md")
    assert written == f"See [this]({site}).\n\n```text\n[code]({link})\n```\n"


def test_a_page_of_a_file_outside_docs_links_back() -> None:
    written = PAGES["site_links"]("[games](../../docs/faq.md)", "source/specs/data/README.md")
    assert written == "[games](../../../faq.md)"


def test_files_that_pages_link_to_are_found_with_those_that_they_link_to() -> None:
    found = PAGES["linked_outside"](["docs/experiments/gemma.md", "docs/how-to/run-the-studies.md"])
    assert "specs/gemma_top_features.yaml" in found
    assert "specs/data/README.md" in found
    assert not any(path.startswith("docs/") for path in found)


def test_a_spec_is_a_page_with_its_text() -> None:
    page = PAGES["source_page"]("specs/toy.yaml")
    assert page.startswith("# toy.yaml\n\n`specs/toy.yaml`\n\n````yaml\n")
    assert (ROOT / "specs" / "toy.yaml").read_text(encoding="utf-8").rstrip() in page


def test_a_notebook_is_a_page_with_its_outputs() -> None:
    path = ROOT / "docs" / "notebooks" / "results.ipynb"
    page = PAGES["notebook_page"](json.loads(path.read_text(encoding="utf-8")))
    assert page.startswith("# ")
    assert "````python\nimport toolkit" in page
    assert '<div class="output">\n<' in page


def faults(folder: Path, **pages: str) -> list[str]:
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return list(CHECK["faults"](folder))


def test_a_whole_site_has_no_faults(tmp_path: Path) -> None:
    there = '<h2 id="x">X</h2><img src="data:,"><a href="index.html#y">y</a>'
    assert faults(tmp_path, index='<a id="y" href="other.html#x">x</a>', other=there) == []


@pytest.mark.parametrize(
    ("html", "message"),
    [
        ('<a href="gone.html">', "gone.html leads nowhere"),
        ('<a href="#gone">', "#gone leads nowhere"),
        ('<img src="gone.png">', "gone.png leads nowhere"),
        ('<script src="https://example.org/a.js"></script>', "loads https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "loads //example.org/a.css"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, html: str, message: str) -> None:
    assert faults(tmp_path, index=html) == [f"index.html: {message}"]


def test_a_style_sheet_that_loads_from_elsewhere_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@import url(https://example.org/font.css);")
    assert faults(tmp_path, index="") == ["a.css: loads https://example.org/font.css"]


def test_no_pages_are_a_fault(tmp_path: Path) -> None:
    assert faults(tmp_path) == [f"{tmp_path}: no pages; build them with nox -s site"]
