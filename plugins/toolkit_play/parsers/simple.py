"""Three parsers that choose among several mentions: the first, the last, and the one in the last
line with the prompt's label. `strict` refuses such replies.
"""

from __future__ import annotations

from toolkit.parts import NoParams
from toolkit.samples.games import Parser, Prompt, Reply, lines_of, normal

from .options import EMPTY, UNREADABLE, Mention, mention_at, mentions, numbered


def first(params: NoParams) -> Parser:
    """The option that is named first decides."""
    return lambda reply, prompt: _nth_mention(reply, prompt, 0)


def last(params: NoParams) -> Parser:
    """The option that is named last decides."""
    return lambda reply, prompt: _nth_mention(reply, prompt, -1)


def final_decision(params: NoParams) -> Parser:
    """The last line with the prompt's label decides, by the first option that it names."""
    return _final_decision


def _nth_mention(reply: str, prompt: Prompt, index: int) -> Reply:
    lines = lines_of(reply)
    if not lines:
        return Reply(failure=EMPTY)
    all_mentions = [mention for line in lines for mention in _mentions(line, prompt)]
    return all_mentions[index].verdict() if all_mentions else Reply(failure=UNREADABLE)


def _mentions(line: str, prompt: Prompt) -> list[Mention]:
    """Mentions in a line: the one it starts with, then those by number or by word."""
    leading = mention_at(line, prompt)
    others = [*mentions(line, prompt), *numbered(line, prompt)]
    following = [mention for mention in others if leading is None or mention.start >= leading.end]
    return [*([leading] if leading else []), *sorted(following, key=lambda mention: mention.start)]


def _final_decision(reply: str, prompt: Prompt) -> Reply:
    text = normal(reply)
    if not text.strip():
        return Reply(failure=EMPTY)
    label = prompt.label.lower()
    for line in reversed(lines_of(reply)):
        if label in line:
            phrase = line.rpartition(label)[2].lstrip(" :=-")
            found_mentions = _mentions(phrase, prompt)
            return found_mentions[0].verdict() if found_mentions else Reply(failure=UNREADABLE)
    return Reply(failure=UNREADABLE)
