"""Queries that nobody means: each is answered or refused in a sentence, and none ends in a
traceback.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.fuzzing import FUZZ_COUNT, LONG
from toolkit._cli import query
from toolkit.errors import ToolkitError

WORDS = (
    "2/5",
    "2/99",
    "9/5",
    "s1:5",
    "s1:99999999999999999999",
    "m/gpt/resid_post.9/thin:5",
    "gemma-2-2b/20-gemmascope-res-16k/1",
    "L2-5",
    "2:5",
    "a1",
    "a2",
    "full-1",
    "part-1",
    "none-1",
    "",
    " ",
    "/",
    ":",
    "-1",
    "2/-5",
    "2/5/",
    "'; DROP TABLE steps; --",
    "\x1b[2J",
    "\u202e",
    "é" * 300,
    "x" * 5000,
    "../../etc",
    "9" * 400,
    "*",
    "NaN",
    "SELECT * FROM features",
    "SELECT",
)
COMMANDS = sorted(query.command.commands)
LIKELY = ("2/5", "2/7", "m/gpt/resid_post.9/thin:5", "a1", "a2", "full-1", "SELECT * FROM features")
NOT_DRAWN = ("--store", "--parquet", "--help")


def arguments(draw: random.Random) -> list[str]:
    """A command, mostly with as many words as it takes, and some of its options."""
    name = draw.choice(COMMANDS)
    params = query.command.commands[name].params
    takes = sum(isinstance(param, click.Argument) for param in params)
    count = takes if draw.random() < 0.9 else draw.randrange(4)
    words = [name, *(word(draw) for _ in range(count))]
    options = [
        param
        for param in params
        if isinstance(param, click.Option) and param.opts[0] not in NOT_DRAWN
    ]
    for option in draw.sample(options, k=draw.choice((0, 0, 1, 1, 2))):
        words.append(option.opts[0])
        if not option.is_flag:
            words.append(draw.choice((word(draw), str(draw.randrange(-2, 200)))))
    return words


def word(draw: random.Random) -> str:
    return draw.choice(LIKELY if draw.random() < 0.5 else WORDS)


@pytest.mark.parametrize("count", [40, pytest.param(FUZZ_COUNT, marks=LONG)])
def test_no_query_ends_in_a_traceback(
    folder: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, ends = random.Random(count), Counter[str]()
    for _ in range(count):
        words = [*arguments(draw), "--store", str(folder)]
        result = CliRunner().invoke(query.command, words)
        error = result.exception
        assert error is None or isinstance(
            error, ToolkitError | click.ClickException | SystemExit
        ), (words, error)
        ends["answered" if error is None else type(error).__name__] += 1
    assert ends["answered"] > count // 25
    assert ends["BadInput"] > count // 25
    with capsys.disabled():
        print(f"\n{count} queries: {dict(ends)}, no traceback")
