"""Running games, and their rows in the tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.samples.games import Condition, Environment, Reply, State, Turn, state_hash

from .params import Play
from .rendering import SeenPrompt

if TYPE_CHECKING:
    from toolkit.models.sessions import Generated

    from .arms import Arm


@dataclass
class LiveGame:
    """A running game: its state, its current decision, and the rows of its replies so far."""

    name: str
    condition: Condition
    repetition: int
    state: State
    draw_name: str
    """Key of its token draws: the name of the same game without an arm."""
    base_condition: Condition
    """Its condition without the arm."""
    round: int = 1
    attempt: int = 1
    outcome: str = ""
    failures: int = 0
    seen: SeenPrompt | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    arm: Arm | None = None
    """The intervention that it is played under."""

    @property
    def request(self) -> str:
        """The name of its current request for a reply."""
        return f"{self.name}/{self.round}/{self.attempt}"


def canonical_json(data: Any) -> str:
    """Plain data as canonical JSON text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def round_row(
    environment: Environment,
    game: LiveGame,
    generated: Generated,
    verdict: Reply,
    turn: Turn | None,
) -> dict[str, Any]:
    """A reply as a row of `rounds`. `turn` is the result of its action, None if it could not be
    read.
    """
    assert game.seen is not None
    numbers = environment.numbers(game.state)
    numbers_after = numbers if turn is None else environment.numbers(turn.state)
    text = game.seen.tokens.text
    return {
        "game": game.name,
        "round": game.round,
        "attempt": game.attempt,
        "prompt": text,
        "prompt_hash": hashlib.sha256(text.encode()).hexdigest(),
        "spans": [
            {"name": name, "start": start, "end": end} for name, start, end in game.seen.spans
        ],
        "state": canonical_json(game.state),
        "state_hash": state_hash(game.state, game.condition.settings),
        "numbers": canonical_json(numbers),
        "reply": generated.text,
        "reply_ids": list(generated.ids),
        "close_draws": generated.close_calls,
        "finish": generated.finish,
        "parse": verdict.failure or "ok",
        "action": verdict.action or "",
        "asked": verdict.amount,
        "bet": None if turn is None else turn.bet,
        "balance_before": numbers.get("balance"),
        "balance_after": numbers_after.get("balance"),
        "won": None if turn is None else turn.won,
    }


def game_row(params: Play, environment: Environment, game: LiveGame) -> dict[str, Any]:
    """A game as a row of `games`. `rounds` counts decisions that do not leave: one that leaves has
    a row in table `rounds` but is not counted.
    """
    bets = [row["bet"] for row in game.rows if row["bet"] is not None]
    decisions = [row for row in game.rows if row["parse"] == "ok"]
    first_options = environment.prompt(environment.start(game.condition.settings)).options
    condition = game.condition
    meta: Mapping[str, Any] = {
        "environment": params.game.uses,
        "event": environment.outcomes[0] if environment.outcomes else "",
        "groups": dict(condition.groups),
        "label": condition.label or condition.id,
        "leaving": list(environment.leaving),
        "parser": f"{params.parser.uses} {params.parser.version}",
        "stakes": any(option.low is not None for option in first_options),
        "switches": dict(condition.switches),
        "temperature": params.temperature,
    }
    return {
        "game": game.name,
        "condition": condition.id,
        "repetition": game.repetition,
        "outcome": game.outcome,
        "rounds": sum(row["action"] not in environment.leaving for row in decisions),
        "final_balance": environment.numbers(game.state).get("balance"),
        "total_bet": float(sum(bets)),
        "arm": game.arm.name if game.arm else None,
        "null_arm": game.arm.is_null if game.arm else None,
        "pair": game.draw_name if game.arm else None,
        "meta": canonical_json(meta),
    }
