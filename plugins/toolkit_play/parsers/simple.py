"""Three parsers that choose among several mentions: the first, the last, and that of the last line
with the prompt's label. `strict` refuses what these read.
"""

from __future__ import annotations

from toolkit.games import Parser, Prompt, Reply
from toolkit.parts import NoParams

from .normal import lines_of, normal
from .options import EMPTY, UNREADABLE, Named, mentions, named_at, numbered


def first(params: NoParams) -> Parser:
    """The option that is named first decides."""
    return lambda reply, prompt: _nth_mention(reply, prompt, 0)


def last(params: NoParams) -> Parser:
    """The option that is named last decides."""
    return lambda reply, prompt: _nth_mention(reply, prompt, -1)


def final_decision(params: NoParams) -> Parser:
    """The last line with the prompt's label decides, by the first option that it names."""
    return _final_decision


def _nth_mention(reply: str, prompt: Prompt, which: int) -> Reply:
    lines = lines_of(reply)
    if not lines:
        return Reply(failure=EMPTY)
    named = [mention for line in lines for mention in _mentions(line, prompt)]
    return named[which].verdict() if named else Reply(failure=UNREADABLE)


def _mentions(line: str, prompt: Prompt) -> list[Named]:
    """Options that a line names: what it begins with, by its number, by a word."""
    begun = named_at(line, prompt)
    later = [*mentions(line, prompt), *numbered(line, prompt)]
    kept = [named for named in later if begun is None or named.start >= begun.end]
    return [*([begun] if begun else []), *sorted(kept, key=lambda named: named.start)]


def _final_decision(reply: str, prompt: Prompt) -> Reply:
    text = normal(reply)
    if not text.strip():
        return Reply(failure=EMPTY)
    label = prompt.label.lower()
    for line in reversed(lines_of(reply)):
        if label in line:
            phrase = line.rpartition(label)[2].lstrip(" :=-")
            named = _mentions(phrase, prompt)
            return named[0].verdict() if named else Reply(failure=UNREADABLE)
    return Reply(failure=UNREADABLE)
