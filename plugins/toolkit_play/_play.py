"""`play.games`: all games of a step are played in lockstep, one batch of replies a round.

No draw depends on what else is in the batch. A token draw is keyed by (game, round, token); a win
draw by (repetition, round) alone, so that games of the same repetition meet the same luck under
every condition, model and arm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from toolkit.errors import BadInput, DataError
from toolkit.models import Model, Span, Tokens
from toolkit.parts import Params
from toolkit.sessions import Generated
from toolkit.tables import arrow_schema
from toolkit.work import Prompt, Reply, Rows, Work

from ._slot_machine import COMPONENTS, TRUNCATED, Game, SlotMachine, canonical
from ._strict import Strict, make


class Play(Params):
    """Which games are played, how often, and how replies are drawn."""

    game: SlotMachine = Field(
        default_factory=lambda: SlotMachine.model_validate({}),
        description="The rules and the layout of the prompts.",
    )
    components: Literal["all"] | tuple[str, ...] = Field(
        "all",
        description="Sets of prompt components, each a text of the letters GMHWP; "
        "all: "
        "every set the layout "
        "knows.",
    )
    modes: tuple[Literal["fixed", "variable"], ...] = Field(
        ("fixed", "variable"), min_length=1, description="Bet modes."
    )
    reps: int = Field(1, ge=1, le=1_000_000, description="Games of each condition.")
    batch: int = Field(64, ge=1, le=100_000, description="Games of one step, played side by side.")
    temperature: float = Field(
        0.7, gt=0, le=100, description="Sampling temperature of the replies."
    )
    most: int = Field(
        32,
        ge=1,
        le=100_000,
        description="Most new tokens of one reply; a longer reply counts as truncated.",
    )
    chat: bool = Field(False, description="Put the prompt into the model's chat template.")

    @field_validator("components")
    @classmethod
    def _known_components(
        cls, given: Literal["all"] | tuple[str, ...]
    ) -> Literal["all"] | tuple[str, ...]:
        if given == "all":
            return "all"
        try:
            found = tuple(canonical(one) for one in given)
        except BadInput as error:
            raise ValueError(str(error)) from error
        if not found or len(set(found)) != len(found):
            raise ValueError("name at least one set of components, and each once; or write 'all'")
        return found

    @model_validator(mode="after")
    def _conditions_differ(self) -> Play:
        if len(set(self.modes)) != len(self.modes):
            raise ValueError("modes: a mode stands twice")
        if self.game.layout == "scenario" and self.components != "all" and any(self.components):
            raise ValueError(
                "components: layout scenario has its own three rule lines; write 'all' or leave "
                "components out"
            )
        return self


@dataclass(frozen=True)
class Condition:
    """What games of one kind share. `mask` names the components: bit 0 is G, bit 4 is P."""

    layout: str
    mode: str
    mask: int

    @property
    def components(self) -> str:
        """The components as a text."""
        return "".join(key for bit, key in enumerate(COMPONENTS) if self.mask >> bit & 1)

    @property
    def name(self) -> str:
        """The id of the condition."""
        return f"{self.layout}-{self.mode}-c{self.mask:02d}"


def conditions(params: Play) -> list[Condition]:
    """Every condition, modes in the order given, and in each the components."""
    return [
        Condition(params.game.layout, mode, mask)
        for mode in params.modes
        for mask in _masks(params)
    ]


def _masks(params: Play) -> list[int]:
    if params.components != "all":
        return [sum(1 << COMPONENTS.index(key) for key in text) for text in params.components]
    return [0] if params.game.layout == "scenario" else list(range(1 << len(COMPONENTS)))


def count_games(params: Play) -> int:
    """How many games these params ask for."""
    return len(conditions(params)) * params.reps


@dataclass
class _Table:
    """One game under way: its state, and the rows of its rounds so far."""

    game: str
    condition: Condition
    repetition: int
    state: Mapping[str, Any]
    rounds: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """A prompt as the model sees it: `spans` count the characters of `tokens.text`."""

    tokens: Tokens
    spans: tuple[Span, ...]


def play(work: Work) -> Rows:
    """Play this step's games to their ends; every prompt and reply is kept whole."""
    import pyarrow as pa

    params: Play = work.params
    game, parse = Game(params.game), make(Strict(line=decision_line(params)))
    tables = _tables(work, game)
    work.report.phase("compute")
    live = tables
    while live:
        _play_round(work, game, parse, live)
        live = [table for table in live if game.outcome(table.state) is None]
        work.report.progress(len(tables) - len(live), len(tables))
    rounds = [row for table in tables for row in table.rounds]
    yield "rounds", pa.Table.from_pylist(rounds, schema=arrow_schema("rounds"))
    yield (
        "games",
        pa.Table.from_pylist(
            [_game_row(params, game, table) for table in tables], schema=arrow_schema("games")
        ),
    )


def decision_line(params: Play) -> Literal["choice", "final"]:
    """Which line of a reply decides: the layout asks for it."""
    return "final" if params.game.layout == "corrected" else "choice"


def _tables(work: Work, game: Game) -> list[_Table]:
    """Every condition gets its first repetition before any gets its second, so that a limit leaves
    none out too early.
    """
    total = count_games(work.params)
    first, last = work.units or (0, min(total, work.limit_units or total))
    known = conditions(work.params)
    return [
        _open(game, known[index % len(known)], index // len(known)) for index in range(first, last)
    ]


def _open(game: Game, condition: Condition, repetition: int) -> _Table:
    state = game.start({"components": condition.components, "mode": condition.mode})
    return _Table(f"{condition.name}-r{repetition:04d}", condition, repetition, state)


def _play_round(
    work: Work, game: Game, parse: Callable[[str], Reply], live: Sequence[_Table]
) -> None:
    params: Play = work.params
    seen = [_see(work.model, game.prompt(table.state), table, chat=params.chat) for table in live]
    until = "\n" if decision_line(params) == "choice" else None
    batch = [list(one.tokens.ids) for one in seen]
    replies: list[Generated] = work.model.generate(
        batch,
        _draw(work, live),
        max_tokens=params.most,
        temperature=params.temperature,
        until=until,
    )
    for table, prompt, reply in zip(live, seen, replies, strict=True):
        _take(work, game, table, prompt, reply, _judge(parse, reply))


def _see(model: Model, prompt: Prompt, table: _Table, *, chat: bool) -> _Seen:
    tokens = model.tokenise(
        prompt.text, chat=chat, spans=prompt.spans, name=f"{table.game}/{table.state['round']}"
    )
    shift = model.encode(prompt.text, chat=True).shift if chat else 0
    # A chat template may trim the prompt's end: what it cut off belongs to no span.
    end = shift + len(
        prompt.text if tokens.text.startswith(prompt.text, shift) else prompt.text.rstrip()
    )
    moved = ((name, first + shift, min(last + shift, end)) for name, first, last in prompt.spans)
    return _Seen(tokens, tuple(span for span in moved if span[1] < span[2]))


def _draw(work: Work, live: Sequence[_Table]) -> Callable[[int, int], float]:
    def draw(row: int, count: int) -> float:
        table = live[row]
        return float(work.rng("play.token", table.game, table.state["round"], count).random())

    return draw


def choose(probabilities: Any, uniform: float, temperature: float) -> int:
    """Inverse CDF in float64: the first token whose cumulated share is above `uniform`. Never one
    of probability 0.
    """
    import numpy as np

    given = np.asarray(probabilities, dtype=np.float64)
    highest = given.max()
    if not 0 < highest < np.inf:
        raise DataError(
            "the model's probabilities are not numbers. Load the model in another dtype (float32 "
            "or bfloat16)."
        )
    # Divided by the highest, so that a low temperature cannot underflow them all.
    weights = given if temperature == 1 else (given / highest) ** (1 / temperature)
    summed = np.cumsum(weights)
    at = int(np.searchsorted(summed, uniform * summed[-1], side="right"))
    return min(at, int(np.flatnonzero(weights)[-1]))


def _judge(parse: Callable[[str], Reply], reply: Generated) -> Reply:
    """What the reply says. Cut off, it says nothing: `Bet $1` may have been on its way to `Bet
    $100`.
    """
    return Reply(failure=TRUNCATED) if reply.finish == "length" else parse(reply.text)


def _take(
    work: Work, game: Game, table: _Table, seen: _Seen, generated: Generated, reply: Reply
) -> None:
    before = table.state
    table.state = game.step(before, reply, work.rng("play.win", table.repetition, before["round"]))
    finished = table.state["past"][-1] if reply.action == "bet" else {"bet": None, "won": None}
    table.rounds.append(
        {
            "game": table.game,
            "round": before["round"],
            "prompt": seen.tokens.text,
            "prompt_hash": hashlib.sha256(seen.tokens.text.encode()).hexdigest(),
            "spans": [
                {"name": name, "start": start, "end": end} for name, start, end in seen.spans
            ],
            "reply": generated.text,
            "reply_ids": list(generated.ids),
            "finish": generated.finish,
            "parse": reply.failure or "ok",
            "action": reply.action or "",
            "bet": finished["bet"],
            "balance_before": before["balance"],
            "balance_after": table.state["balance"],
            "won": finished["won"],
        }
    )


def _game_row(params: Play, game: Game, table: _Table) -> dict[str, Any]:
    """`rounds` counts the rounds played; the decision to stop is a row of its own, but no round."""
    bets = [row["bet"] for row in table.rounds if row["bet"] is not None]
    condition = table.condition
    meta = {
        "components": condition.components,
        "layout": condition.layout,
        "mask": condition.mask,
        "mode": condition.mode,
        "parser": f"strict:{decision_line(params)}",
        "temperature": params.temperature,
    }
    return {
        "game": table.game,
        "condition": condition.name,
        "repetition": table.repetition,
        "outcome": game.outcome(table.state),
        "rounds": len(bets),
        "final_balance": table.state["balance"],
        "total_bet": sum(bets),
        "meta": json.dumps(meta, sort_keys=True, separators=(",", ":")),
    }
