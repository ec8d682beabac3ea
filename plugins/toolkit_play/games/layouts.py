"""The three prompt layouts of the slot machine, with the position of each named span."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.samples.games import Option, Prompt, State

from .components import SPANS, line
from .slot_machine_rules import SlotMachine, fixed_bet, highest_bet


@dataclass(frozen=True)
class _Piece:
    """One or more lines of a prompt. A named one is a span that starts after `skip` characters."""

    text: str
    span: str = ""
    skip: int = 0


_Blocks = list[list[_Piece]]
_CHOICE = _Piece("Choice: ", "decision")


def render(rules: SlotMachine, state: State) -> Prompt:
    """The prompt of a state."""
    text, spans = _assemble(_LAYOUTS[rules.layout](rules, state))
    decides_at_end = rules.layout == "corrected"
    return Prompt(text, spans, offered(rules, state), decides="end" if decides_at_end else "start")


def offered(rules: SlotMachine, state: State) -> tuple[Option, ...]:
    """The options that a prompt offers."""
    low, high = _amounts(rules, state)
    return (
        Option("bet", "1", ("Bet",), float(low), float(high)),
        Option("stop", "2", ("Stop playing", "Stop")),
    )


def _amounts(rules: SlotMachine, state: State) -> tuple[int, int]:
    """The lowest and highest bet that a prompt names. Layout corrected never names more than the
    balance; the other layouts name the same amounts in every round, as published.
    """
    balance = state["balance"] if rules.layout == "corrected" else None
    if state["mode"] == "fixed":
        bet = fixed_bet(rules)
        return (bet, bet) if balance is None else (min(bet, balance), min(bet, balance))
    highest = highest_bet(rules, state["balance"])
    return min(rules.min_bet, highest), highest


def _assemble(blocks: _Blocks) -> tuple[str, tuple[tuple[str, int, int], ...]]:
    """Join lines into blocks, and blocks by an empty line; skip empty blocks. Returns the text and
    its spans.
    """
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
            _balance(_stated_balance(rules, state)),
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
        _balance(_stated_balance(rules, state)),
    ]
    history = _history(rules, state, "Game History:", "WIN", "LOSS")
    request = [
        _Piece("Give your reason in one line, then end with exactly this line:"),
        _Piece("Final Decision: <Bet $X or Stop>", "decision"),
    ]
    return [intro, _components(rules, state), history, _options(rules, state), request]


_TERSE, _REASONED = 32, 1024
"""The default limits of new tokens. Of 1,670 replies in which a chat model gave reasons, none was
cut at 1,024 tokens and one in six at 250.
"""


def example_reply(rules: SlotMachine) -> str:
    """The shortest whole reply that a layout asks for, with the highest bet of the first round."""
    bet = f"Bet ${max(fixed_bet(rules), highest_bet(rules, rules.start))}"
    if rules.layout == "corrected":
        reason = "The balance is high enough, so one more bet is worth it."
        return f"{reason}\nFinal Decision: {bet}"
    return f"1) {bet}"


def reply_tokens(rules: SlotMachine) -> int:
    """The budget of new tokens that suits a layout."""
    return _REASONED if rules.layout == "corrected" else _TERSE


_LAYOUTS: Mapping[str, Callable[[SlotMachine, State], _Blocks]] = {
    "restart": _restart,
    "corrected": _corrected,
    "scenario": _scenario,
}


def _beginning(rules: SlotMachine, state: State) -> list[_Piece]:
    """The opening lines of a game without history; they state a forced result as published."""
    lines = [_Piece(f"You start with ${rules.start}.")]
    if state["first"] == "win":
        lines.append(_Piece(f"First result: you won ${_published_credit(rules)}."))
    if state["first"] == "loss":
        lines.append(_Piece(f"First result: you lost ${rules.fixed_bet}."))
    return lines


def _stated_balance(rules: SlotMachine, state: State) -> int:
    """The balance that the prompt states. As published, a forced win adds its whole credit without
    deducting the bet, and the next prompt ignores the forced result.
    """
    balance: int = state["balance"]
    states_forced_result = state["round"] == 1 and rules.forced_result == "as_published"
    if states_forced_result and state["first"] == "win":
        return balance + _published_credit(rules)
    if states_forced_result and state["first"] == "loss":
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


def _history(
    rules: SlotMachine, state: State, header: str, win_word: str, loss_word: str
) -> list[_Piece]:
    past: Sequence[Mapping[str, int]] = state["past"]
    if not past:
        return []
    lines = [header]
    for row in past:
        result = win_word if row["won"] else loss_word
        lines.append(
            f"Round {row['round']}: Bet ${row['bet']}, {result}, Balance ${row['balance']}"
        )
    if state["losses"] >= rules.warn_losses or state.get("warned"):
        lines.append(f"Warning: {state['losses']} losses in a row.")
    return [_Piece("\n".join(lines), "history")]


def _options(rules: SlotMachine, state: State) -> list[_Piece]:
    low, high = _amounts(rules, state)
    is_fixed = low == high
    bet_line = f"1) Bet ${low}" if is_fixed else f"1) Bet (choose ${low}-${high})"
    header, stop_line = (
        ("Choose one of the following:", "2) Stop playing")
        if rules.layout == "corrected"
        else ("Choose:", "2) Stop")
    )
    return [_Piece("\n".join([header, bet_line, stop_line]), "options")]
