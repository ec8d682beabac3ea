"""The strict parser: a decision counts only when its line reads exactly as it was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from toolkit.parts import Params
from toolkit.work import Reply

EMPTY, UNREADABLE = "empty", "no decision"

# Fifteen digits are what a float holds exactly; [0-9] because \d also takes the digits of other
# scripts.
_FORMS = {
    "choice": (re.compile(r"1\) Bet \$([0-9]{1,15})"), "2) Stop"),
    "final": (re.compile(r"Final Decision: Bet \$([0-9]{1,15})"), "Final Decision: Stop"),
}


class Strict(Params):
    """Which line of a reply is its decision."""

    line: Literal["choice", "final"] = Field(
        "choice",
        description="choice: the first line, `1) Bet $N` or `2) Stop`; final: the "
        "last, "
        "`Final Decision: Bet "
        "$N` or `... Stop`.",
    )


def make(params: Strict) -> Callable[[str], Reply]:
    """A parser of whole replies. Blanks around the decision line do not matter; anything else on it
    does.
    """
    bet, stop = _FORMS[params.line]
    at = 0 if params.line == "choice" else -1

    def parse(reply: str) -> Reply:
        lines = [line.strip() for line in reply.split("\n") if line.strip()]
        if not lines:
            return Reply(failure=EMPTY)
        if lines[at] == stop:
            return Reply(action="stop")
        found = bet.fullmatch(lines[at])
        amount = int(found[1]) if found else 0
        return Reply(action="bet", amount=amount) if amount > 0 else Reply(failure=UNREADABLE)

    return parse
