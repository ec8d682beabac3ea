"""Say what is wrong with the built documentation site: links that lead nowhere, and anything that
a page would load from another host. `python docs/check_site.py out/site` exits with 1 if so.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""The attribute by which an element loads a file; of links only `rel=canonical` does not."""
ELSEWHERE = re.compile(r"(https?:)?//")
CSS_LOAD = re.compile(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")]+)")


class Page(HTMLParser):
    """The links, loads and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element loads, links to and is called."""
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in LOADS and LOADS[tag] in values and values.get("rel") != "canonical":
            self.loads.append(values[LOADS[tag]])


def faults(root: Path) -> Iterator[str]:
    """`file: what is wrong` for each fault of the site."""
    pages = sorted(root.rglob("*.html"))
    if not pages:
        yield f"{root}: no pages; build them with nox -s site"
    for path in pages:
        page = _page(path)
        name = path.relative_to(root)
        for link in page.loads:
            if ELSEWHERE.match(link):
                yield f"{name}: loads {link}"
        for link in (*page.links, *page.loads):
            if not _leads(root, path, link):
                yield f"{name}: {link} leads nowhere"
    for path in sorted(root.rglob("*.css")):
        for link in CSS_LOAD.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(root)}: loads {link}"


def _leads(root: Path, path: Path, link: str) -> bool:
    """Whether a link leads somewhere; links to other hosts are not looked up."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.path.startswith("/"):
        target = root / unquote(parts.path).lstrip("/")
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return False
    anchor = unquote(parts.fragment)
    return not anchor or target.suffix != ".html" or anchor in _page(target).anchors


@cache
def _page(path: Path) -> Page:
    return Page(path)


if __name__ == "__main__":
    site = Path(sys.argv[1]).resolve()
    wrong = list(faults(site))
    count = len(list(site.rglob("*.html")))
    print("\n".join(wrong) or f"{count} pages: every link leads somewhere, nothing from elsewhere")
    sys.exit(bool(wrong))
