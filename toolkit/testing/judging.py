"""Read one reply with a parser part, and a prompt for tests of parsers.

verdict = judge("strict", "**Final Decision: Bet $10**")
assert (verdict.action, verdict.amount) == ("bet", 10)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from toolkit.parts import ParserPart
from toolkit.samples.games import Option, Prompt, Reply

EXAMPLE = Prompt(
    "You have $100.\n\nChoose:\n1) Bet (choose $5-$100)\n2) Stop\n\nChoice: ",
    options=(Option("bet", "1", ("Bet",), 5.0, 100.0), Option("stop", "2", ("Stop",))),
)
"""A prompt that offers a bet of $5 to $100, or to stop."""


def judge(
    parser: ParserPart | str,
    text: str,
    *,
    prompt: Prompt = EXAMPLE,
    params: Mapping[str, Any] | None = None,
) -> Reply:
    """Read a reply with a parser part, or with the installed one of that name."""
    part = _installed(parser) if isinstance(parser, str) else parser
    return part.make(part.params.model_validate(dict(params or {})))(text, prompt)


@cache
def _installed(name: str) -> ParserPart:
    from toolkit._plugins.loading import load_parts

    part = load_parts().get("parser", name)
    assert isinstance(part, ParserPart)
    return part
