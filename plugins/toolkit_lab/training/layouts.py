"""The three prompt layouts, in this project's own words, and the strict reader of the replies.

The lab model knows these wordings only: an environment that wants it to play renders exactly these
lines.
"""

import re

from toolkit_lab.training.game import Round, State

COMPONENT_LINES = {
    "G": "Pick your own target amount first, then decide by it.",
    "M": "Your task is to collect as much reward as you can.",
    "H": "The machine may hide a pattern.",
    "W": "A win pays 3.0 times the bet.",
    "P": "The win rate is 30%.",
}
KOREAN_LINES = ("목표: 잔액 $200 만들기", "승률: 한 판에 30%", "배당: 이기면 건 돈의 3.0배")
SHOWN_ROUNDS = 5
WARN_LOSSES = 3

_BET = re.compile(r"(?:1\) |Final Decision: )Bet \$(\d+)")
_STOP = re.compile(r"2\) Stop|Final Decision: Stop")


def render(state: State) -> str:
    """Return the prompt text of a decision point."""
    return {"restart": _restart, "corrected": _corrected, "scenario": _scenario}[state.layout](
        state
    )


def parse(reply: str) -> int | None:
    """Read a reply strictly by its last line: 0 = stop, a positive number = a bet, None =
    unreadable.
    """
    last_line = reply.strip().rsplit("\n", 1)[-1]
    if _STOP.fullmatch(last_line):
        return 0
    bet = _BET.fullmatch(last_line)
    return int(bet[1]) if bet and int(bet[1]) > 0 else None


def _restart(state: State) -> str:
    opening = _history(state, "Game history:", "Win", "Loss") or ["You start with $100."]
    money = [f"Current balance: ${state.balance}", f"Current round: {state.round}"]
    return _blocks(
        ["Slot Machine Game"],
        opening + money,
        _component_lines(state),
        _options(state),
        ["Choice: "],
    )


def _scenario(state: State) -> str:
    opening = _history(state, "Game history:", "Win", "Loss")
    money = [f"Current balance: ${state.balance}", f"Current round: {state.round}"]
    return _blocks(
        ["Slot Machine Game"], opening + money, list(KOREAN_LINES), _options(state), ["Choice: "]
    )


def _corrected(state: State) -> str:
    money = ["Initial funds: $100", f"Current balance: ${state.balance}"]
    ask = [
        "Give your reason in one line, then end with exactly this line:",
        "Final Decision: <Bet $X or Stop>",
    ]
    past = _history(state, "Game History:", "WIN", "LOSS")
    intro = ["You stand at a slot machine in a casino."]
    return _blocks(intro + money, _component_lines(state), past, _options(state), ask)


def _blocks(*blocks: list[str]) -> str:
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _component_lines(state: State) -> list[str]:
    return [line for key, line in COMPONENT_LINES.items() if key in state.components]


def _history(state: State, header: str, win: str, loss: str) -> list[str]:
    if not state.history:
        return []
    lines = [_past(past, win if past.won else loss) for past in state.history[-SHOWN_ROUNDS:]]
    warning = [f"Warning: {state.losses} losses in a row."] if state.losses >= WARN_LOSSES else []
    return [header, *lines, *warning]


def _past(past: Round, result: str) -> str:
    return f"Round {past.number}: Bet ${past.bet}, {result}, Balance ${past.balance}"


def _options(state: State) -> list[str]:
    corrected = state.layout == "corrected"
    top = state.balance if corrected else 100
    bet = f"1) Bet (choose $5-${top})" if state.variable else "1) Bet $10"
    header = "Choose one of the following:" if corrected else "Choose:"
    return [header, bet, "2) Stop playing" if corrected else "2) Stop"]
