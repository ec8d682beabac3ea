"""Specs that nobody means: each is planned or refused in a sentence, none ends in a traceback."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fuzzing import FUZZ_COUNT, LONG
from toolkit import _flow
from toolkit._run.options import RunOptions
from toolkit.errors import ToolkitError

ROOT = Path(__file__).parents[2]
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 70,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "toy",
    "off",
    "compare.welch",
    "x" * 3000,
    "../../etc",
    "${env:HOME}",
    "${env:",
    "\u202e\x1b[31m",
    [],
    [[]],
    [None, {}],
    {},
    {"uses": "toy"},
    {"uses": 1, "with": []},
    {"": {"": None}},
    {"from": {"stage": "features"}},
)
BYTES = (
    b"",
    b"\x00",
    b"\xff",
    b"\t",
    b"&a *a",
    b"!!python/object:os.system ls",
    b": ",
    b"{",
    b"- ",
)


def sound(folder: Path) -> list[str]:
    """The specs that are shipped, without overlays."""
    texts = [path.read_text() for path in sorted(folder.glob("*.yaml"))]
    return [text for text in texts if "\nversion: 1\n" in text]


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a spec with each of its keys."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


def spoil_tree(draw: random.Random, text: str) -> bytes:
    """Another value, key or place for some nodes."""
    tree = yaml.safe_load(text)
    for _ in range(draw.choice((1, 1, 2, 3))):
        results = list(places(tree))
        node, key = draw.choice(results)
        action = draw.randrange(4)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, dict):
            node[draw.choice(("uses", "with", "id", "needs", "from", "x", 1))] = node.pop(key)
        elif action == 2:
            other, place = draw.choice(results)
            node[key] = other[place] if not isinstance(other[place], dict | list) else "a"
        else:
            node[key] = draw.choice(ODD)
        if not tree:
            break
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()


def spoil_bytes(draw: random.Random, text: str) -> bytes:
    """Cut, doubled or replaced bytes."""
    content = bytearray(text.encode())
    for _ in range(draw.choice((1, 2, 5))):
        start = draw.randrange(len(content) + 1)
        end = min(len(content), start + draw.choice((0, 1, 3, 40)))
        middle = draw.choice((*BYTES, bytes(content[start:end]) * 2))
        content[start:end] = middle
    return bytes(content)


@pytest.mark.parametrize("count", [60, pytest.param(FUZZ_COUNT, marks=LONG)])
def test_no_spec_ends_in_a_traceback(
    tmp_path: Path,
    count: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "specs"
    shutil.copytree(ROOT / "specs", folder)
    monkeypatch.chdir(folder)
    specs, ends = sound(folder), Counter[str]()
    path = folder / "spoilt.yaml"
    path.touch()
    before, longest = sorted(tmp_path.rglob("*")), 0
    for number in range(count):
        draw = random.Random(f"spec {number}")
        spoil = spoil_bytes if draw.random() < 0.4 else spoil_tree
        path.write_bytes(spoil(draw, draw.choice(specs)))
        try:
            _flow.plan(str(path), RunOptions(store=str(tmp_path / "store"), gpu="none"))
            ends["planned"] += 1
        except ToolkitError as error:
            ends["refused"] += 1
            longest = max(longest, len(str(error)))
        except Exception as error:
            raise AssertionError(f"spec {number}: {error!r}") from error
    assert sorted(tmp_path.rglob("*")) == before
    assert longest < 20_000
    assert ends["planned"] > count // 50
    assert ends["refused"] > count // 3
    with capsys.disabled():
        print(f"\n{count} spoilt specs: {dict(ends)}, no traceback")
