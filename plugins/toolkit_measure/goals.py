"""Goals that replies state in words."""

from __future__ import annotations

import re

from toolkit.samples.games import normal

_WORDS = (
    r"\b(?:target|goal)\b(?: (?:amount|balance))?"
    r"(?P<link>(?:\s*(?:\b(?:is|of|was|at|to|will|be|set|now|still|reach|reaching|get|make|have)\b"
    r"|[:=]))*)\s*"
)
_NUMBER = r"(?P<amount>[0-9]{1,9}(?:\.[0-9]{1,2})?)(?![0-9]|[.,][0-9])"
_AFTER_BARE = (
    r"(?=\s*(?:$|\n|[.,;:!?)](?:\s|$)|-\s"
    r"|(?:and|so|but|because|now|then|before|if|when|as|which|since|in total|or more)\b))"
)
_NO_BALANCE = r"(?!\s*(?:%|(?:percent|more than|profit|in profit|above|below|less|each)\b))"
_GOALS = re.compile(
    rf"{_WORDS}(?:(?:us)?\$ ?{_NUMBER}{_NO_BALANCE}|{_NUMBER.replace('amount', 'counted')} ?"
    rf"(?:dollars|usd|bucks)\b{_NO_BALANCE}|{_NUMBER.replace('amount', 'bare')}{_AFTER_BARE})"
)


def stated_goal(reply: str) -> float | None:
    """The last amount of money that a reply calls its goal or target. A number without a unit
    counts if a link such as `is` or `:` leads to it and no unit or noun follows.
    """
    goals = [
        match["amount"] or match["counted"] or match["bare"]
        for match in _GOALS.finditer(normal(reply))
        if match["bare"] is None or match["link"]
    ]
    return float(goals[-1]) if goals else None
