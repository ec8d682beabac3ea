"""The map of the program names what is there, and quotes the program as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = ("docs/explanation/architecture.md", "docs/how-to/write-an-executor.md")
PLACE = re.compile(r"`((?:toolkit|store|plugins|specs|docs)/[\w/.-]+)`")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(root: Path, page: str) -> None:
    named = PLACE.findall((root / page).read_text(encoding="utf-8"))
    assert len(named) > 1
    assert [name for name in named if not (root / name).exists()] == []


def test_the_flow_is_quoted_as_it_is(root: Path) -> None:
    page = (root / PAGES[0]).read_text(encoding="utf-8")
    (quoted,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert quoted in (root / "toolkit" / "_flow.py").read_text(encoding="utf-8")


def test_every_folder_of_the_flow_and_all_that_is_public_is_on_the_map(root: Path) -> None:
    page = (root / PAGES[0]).read_text(encoding="utf-8")
    entries = [path for path in (root / "toolkit").glob("[!_]*") if path.name != "py.typed"]
    entries += [path for path in (root / "toolkit").glob("_[!_]*") if path.is_dir()]
    assert len(entries) > 30
    names = [path.relative_to(root).as_posix() for path in entries]
    assert [name for name in names if f"`{name}`" not in page] == []
