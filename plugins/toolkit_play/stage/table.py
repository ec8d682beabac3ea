"""Games under way: what each is, and the rows it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.games import Condition, Environment, Reply, State, Turn, state_hash

from .params import Play
from .rendering import SeenPrompt

if TYPE_CHECKING:
    from toolkit.sessions import Generated


@dataclass
class LiveGame:
    """One game: its state, the decision it is at, and the rows of its replies so far."""

    name: str
    condition: Condition
    repetition: int
    state: State
    drawn_as: str
    """The name by which its tokens are drawn: that of the game without an intervention."""
    plain: Condition
    """Its condition without an intervention."""
    round: int = 1
    attempt: int = 1
    outcome: str = ""
    failures: int = 0
    seen: SeenPrompt | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    arm: str | None = None
    """The intervention that it is played under."""

    @property
    def request(self) -> str:
        """The name of the reply that it waits for."""
        return f"{self.name}/{self.round}/{self.attempt}"


def canonical_json(data: Any) -> str:
    """The one JSON text of plain data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def round_row(
    environment: Environment,
    game: LiveGame,
    generated: Generated,
    verdict: Reply,
    turn: Turn | None,
) -> dict[str, Any]:
    """A reply as a row of `rounds`. `turn` is what its action did; None if it could not be read."""
    assert game.seen is not None
    numbers = environment.numbers(game.state)
    after = numbers if turn is None else environment.numbers(turn.state)
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
        "balance_after": after.get("balance"),
        "won": None if turn is None else turn.won,
    }


def game_row(params: Play, environment: Environment, game: LiveGame) -> dict[str, Any]:
    """A game as a row of `games`. `rounds` counts the stakes; a decision to leave is a row of
    `rounds`, but no round of its own.
    """
    bets = [row["bet"] for row in game.rows if row["bet"] is not None]
    condition = game.condition
    meta: Mapping[str, Any] = {
        "environment": params.game.uses,
        "event": environment.outcomes[0] if environment.outcomes else "",
        "groups": dict(condition.groups),
        "label": condition.label or condition.id,
        "parser": f"{params.parser.uses} {params.parser.version}",
        "switches": dict(condition.switches),
        "temperature": params.temperature,
    }
    return {
        "game": game.name,
        "condition": condition.id,
        "repetition": game.repetition,
        "outcome": game.outcome,
        "rounds": len(bets),
        "final_balance": environment.numbers(game.state).get("balance"),
        "total_bet": float(sum(bets)),
        "meta": canonical_json(meta),
    }
