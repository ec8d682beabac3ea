"""Say which relative links in the Markdown files lead nowhere. `python docs/check_links.py` exits
with 1 if there are any.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def broken_links(root: Path) -> list[str]:
    """`file: link` for each relative link to a file or heading that does not exist."""
    files = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "plugins").rglob("*.md")]
    return [
        f"{path.relative_to(root)}: {link}"
        for path in sorted(files)
        for link in _links(path)
        if not _leads(path, link)
    ]


def _links(path: Path) -> list[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def _leads(path: Path, link: str) -> bool:
    name, _, heading = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists():
        return False
    return not heading or heading in _headings(target)


def _headings(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


if __name__ == "__main__":
    found = broken_links(Path(__file__).resolve().parents[1])
    print("\n".join(found) or "all relative links lead somewhere")
    sys.exit(bool(found))
