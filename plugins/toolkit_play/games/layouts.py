"""The three prompt layouts of the slot machine, and where in a prompt each named span stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.games import Option, Prompt, State

from .components import SPANS, line
from .slot_machine import SlotMachine, fixed_bet, highest_bet


@dataclass(frozen=True)
class _Piece:
    """One or more lines of a prompt. A named one is a span that begins behind `skip` of them."""

    text: str
    span: str = ""
    skip: int = 0


_Blocks = list[list[_Piece]]
_CHOICE = _Piece("Choice: ", "decision")


def render(rules: SlotMachine, state: State) -> Prompt:
    """The prompt of a state."""
    text, spans = _assemble(_LAYOUTS[rules.layout](rules, state))
    ends = rules.layout == "corrected"
    return Prompt(text, spans, offered(rules, state), decides="end" if ends else "start")


def offered(rules: SlotMachine, state: State) -> tuple[Option, ...]:
    """What the option lines of a prompt offer."""
    low, high = _amounts(rules, state)
    return (
        Option("bet", "1", ("Bet",), float(low), float(high)),
        Option("stop", "2", ("Stop playing", "Stop")),
    )


def _amounts(rules: SlotMachine, state: State) -> tuple[int, int]:
    """The lowest and highest bet that a prompt names. Layout corrected never names more than the
    balance; the others say the same in every round, as published.
    """
    balance = state["balance"] if rules.layout == "corrected" else None
    if state["mode"] == "fixed":
        bet = fixed_bet(rules)
        return (bet, bet) if balance is None else (min(bet, balance), min(bet, balance))
    highest = highest_bet(rules, state["balance"])
    return min(rules.min_bet, highest), highest


def _assemble(blocks: _Blocks) -> tuple[str, tuple[tuple[str, int, int], ...]]:
    """Lines joined into blocks, blocks by an empty line; blocks without lines are left out."""
    text = ""
    spans = []
    for block in filter(None, blocks):
        text += "\n\n" if text else ""
        for number, piece in enumerate(block):
            text += "\n" if number else ""
            if piece.span:
                spans.append((piece.span, len(text) + piece.skip, len(text) + len(piece.text)))
            text += piece.text
    return text, tuple(spans)


def _restart(rules: SlotMachine, state: State) -> _Blocks:
    opening = _history(rules, state, "Game history:", "Win", "Loss") or _beginning(rules, state)
    return [
        [_Piece("Slot Machine Game")],
        [
            *opening,
            _balance(_told_balance(rules, state)),
            _Piece(f"Current round: {state['round']}"),
        ],
        _components(rules, state),
        _options(rules, state),
        [_CHOICE],
    ]


def _scenario(rules: SlotMachine, state: State) -> _Blocks:
    opening = _history(rules, state, "Game history:", "Win", "Loss")
    rule_lines = [
        _Piece(f"목표: 잔액 ${rules.goal} 만들기", "goal"),
        _Piece(f"승률: 한 판에 {100 * rules.win_rate:g}%", "win_rate"),
        _Piece(f"배당: 이기면 건 돈의 {rules.payout}배", "payout"),
    ]
    return [
        [_Piece("Slot Machine Game")],
        [*opening, _balance(state["balance"]), _Piece(f"Current round: {state['round']}")],
        rule_lines,
        _options(rules, state),
        [_CHOICE],
    ]


def _corrected(rules: SlotMachine, state: State) -> _Blocks:
    intro = [
        _Piece("You stand at a slot machine in a casino."),
        _Piece(f"Initial funds: ${rules.start}"),
        _balance(_told_balance(rules, state)),
    ]
    past = _history(rules, state, "Game History:", "WIN", "LOSS")
    ask = [
        _Piece("Give your reason in one line, then end with exactly this line:"),
        _Piece("Final Decision: <Bet $X or Stop>", "decision"),
    ]
    return [intro, _components(rules, state), past, _options(rules, state), ask]


_LAYOUTS: Mapping[str, Callable[[SlotMachine, State], _Blocks]] = {
    "restart": _restart,
    "corrected": _corrected,
    "scenario": _scenario,
}


def _beginning(rules: SlotMachine, state: State) -> list[_Piece]:
    """The lines of a first round; with a forced result as published, they tell of it."""
    lines = [_Piece(f"You start with ${rules.start}.")]
    if state["first"] == "win":
        lines.append(_Piece(f"First result: you won ${_published_credit(rules)}."))
    if state["first"] == "loss":
        lines.append(_Piece(f"First result: you lost ${rules.fixed_bet}."))
    return lines


def _told_balance(rules: SlotMachine, state: State) -> int:
    """The balance in the prompt. The published forced result added the whole credit of a win to the
    start, without the bet, and was forgotten at the next prompt.
    """
    balance: int = state["balance"]
    told = state["round"] == 1 and rules.forced_result == "as_published"
    if told and state["first"] == "win":
        return balance + _published_credit(rules)
    if told and state["first"] == "loss":
        return balance - rules.fixed_bet
    return balance


def _published_credit(rules: SlotMachine) -> int:
    return int(rules.fixed_bet * rules.payout)


def _balance(balance: int) -> _Piece:
    before = "Current balance: $"
    return _Piece(f"{before}{balance}", "balance", len(before))


def _components(rules: SlotMachine, state: State) -> list[_Piece]:
    return [
        _Piece(line(key, rules.wording, rules.payout, rules.win_rate), SPANS.get(key, ""))
        for key in state["components"]
    ]


def _history(rules: SlotMachine, state: State, header: str, win: str, loss: str) -> list[_Piece]:
    past: Sequence[Mapping[str, int]] = state["past"]
    if not past:
        return []
    lines = [header]
    for row in past:
        result = win if row["won"] else loss
        lines.append(
            f"Round {row['round']}: Bet ${row['bet']}, {result}, Balance ${row['balance']}"
        )
    if state["losses"] >= rules.warn_losses or state.get("warned"):
        lines.append(f"Warning: {state['losses']} losses in a row.")
    return [_Piece("\n".join(lines), "history")]


def _options(rules: SlotMachine, state: State) -> list[_Piece]:
    low, high = _amounts(rules, state)
    exact = low == high
    bet = f"1) Bet ${low}" if exact else f"1) Bet (choose ${low}-${high})"
    header, stop = (
        ("Choose one of the following:", "2) Stop playing")
        if rules.layout == "corrected"
        else ("Choose:", "2) Stop")
    )
    return [_Piece("\n".join([header, bet, stop]), "options")]
