"""The four parsers of the published gambling study, reimplemented from what is known of them,
misreadings included. They are for re-reading stored replies, not for new games: two of them read a
reply without a decision as a bet of $10.

| part | used for | known misreadings |
|---|---|---|
| `study_exp1` | the 6,400 games behind Exp1 | `$12 ` reads as a stop; an empty reply is a $10 bet |
| `study_exp0` | Exp0 and Exp2 | `2 ` anywhere is a stop; no decision is a $10 bet |
| `study_api` | games over an API | reads `Final Decision` in the reasoning; bet before stop |
| `study_v3` | the runs of 2026 | only `$` amounts of 5 to 100; anything else is invalid |
"""

from __future__ import annotations

import re

from toolkit.parts import NoParams
from toolkit.samples.games import Parser, Prompt, Reply

from .options import EMPTY, UNREADABLE

_DOLLARS, _WHOLE = re.compile(r"\$([0-9]{1,15})"), re.compile(r"[0-9]{1,15}")
_LOWEST, _HIGHEST, _DEFAULT = 5, 100, 10


def exp1(params: NoParams) -> Parser:
    """Any stop word anywhere is a stop; else the first amount, clipped; else $10."""
    return _exp1


def exp0(params: NoParams) -> Parser:
    """`stop`, `2)` or `2 ` anywhere is a stop; else the last amount, the first number, or $10."""
    return _exp0


def api(params: NoParams) -> Parser:
    """The first line with `final decision`, bet before stop; else the last 300 characters."""
    return _api


def v3(params: NoParams) -> Parser:
    """The later of the last `final decision: stop` and the last `final decision: bet`."""
    return _v3


def _exp1(reply: str, prompt: Prompt) -> Reply:
    text = reply.lower()
    if any(word in text for word in ("stop", "quit", "2)", "2\n", "2 ")):
        return _stop(prompt)
    amounts = _DOLLARS.findall(text) or _WHOLE.findall(text)
    return _bet(prompt, min(max(int(amounts[0]), _LOWEST), _HIGHEST) if amounts else _DEFAULT)


def _exp0(reply: str, prompt: Prompt) -> Reply:
    text = reply.strip().lower()
    if len(text) < 2:
        return Reply(failure=EMPTY)
    if any(word in text for word in ("stop", "2)", "2 ")):
        return _stop(prompt)
    dollars = _offered(_DOLLARS.findall(text))
    numbers = _offered(_WHOLE.findall(text))
    return _bet(prompt, dollars[-1] if dollars else numbers[0] if numbers else _DEFAULT)


def _api(reply: str, prompt: Prompt) -> Reply:
    text = reply.lower()
    line = next((line for line in text.split("\n") if "final decision" in line), None)
    excerpt = text[-300:] if line is None else line
    amounts = _offered(_DOLLARS.findall(excerpt))
    if ("bet" in excerpt or "1)" in excerpt or "$" in excerpt) and amounts:
        return _bet(prompt, amounts[0])
    if "stop" in excerpt or "2)" in excerpt:
        return _stop(prompt)
    return Reply(failure=UNREADABLE)


def _v3(reply: str, prompt: Prompt) -> Reply:
    text = reply.lower()
    stops = [match.start() for match in re.finditer(r"final decision:\s*<?stop", text)]
    bets = list(re.finditer(r"final decision:\s*<?bet \$([0-9]{1,15})", text))
    if stops and (not bets or stops[-1] > bets[-1].start()):
        return _stop(prompt)
    if bets and _offered([bets[-1][1]]):
        return _bet(prompt, int(bets[-1][1]))
    return Reply(failure=UNREADABLE)


def _offered(amounts: list[str]) -> list[int]:
    return [int(text) for text in amounts if _LOWEST <= int(text) <= _HIGHEST]


def _stop(prompt: Prompt) -> Reply:
    """The option of the prompt that takes no amount."""
    for option in prompt.options:
        if option.low is None:
            return Reply(action=option.action)
    return Reply(failure=UNREADABLE)


def _bet(prompt: Prompt, amount: int) -> Reply:
    """The option of the prompt that takes an amount, with this amount, offered or not."""
    for option in prompt.options:
        if option.low is not None:
            return Reply(action=option.action, amount=float(amount))
    return Reply(failure=UNREADABLE)
