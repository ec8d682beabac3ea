"""`games`: decisions of played games as samples. A prompt is read from its row as the model saw it,
never rendered again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from toolkit.errors import DataError
from toolkit.models import Model, Tokens
from toolkit.parts import Params
from toolkit.samples.rows import metadata_row, sample_row
from toolkit.samples.selectors import GENERATION
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

_COLUMNS = [
    "game",
    "round",
    "prompt",
    "prompt_hash",
    "spans",
    "state_hash",
    "numbers",
    "reply_ids",
    "parse",
    "action",
    "bet",
]
_PICKS: dict[str, slice] = {
    "last_decision": slice(-1, None),
    "first_decision": slice(1),
    "all_decisions": slice(None),
}
META_ROWS = 16
"""Rows of metadata of a decision to expect."""

_Row = Mapping[str, Any]


class Games(Params):
    """Which decisions of which games become samples."""

    pick: Literal["last_decision", "first_decision", "all_decisions"] = Field(
        "last_decision",
        description="Which decisions of a game become samples; decisions with unreadable replies "
        "never do.",
    )
    with_reply: bool = Field(
        False,
        description="Append the tokens of the reply to those of the prompt, as span `generation`, "
        "for selectors with `phase`.",
    )
    every: int = Field(
        1,
        ge=1,
        description="Keep every n-th game, ordered by name (condition, then repetition).",
    )


def max_rows(params: Games, available: Mapping[str, int]) -> Mapping[str, int] | None:
    """One decision per game, or every round that the games can have."""
    rows = available.get("rounds" if params.pick == "all_decisions" else "games")
    return None if rows is None else {"samples": -(-rows // params.every)}


def expected_rows(params: Games, available: Mapping[str, int]) -> Mapping[str, int] | None:
    """One decision per game, or every round to expect, with their metadata."""
    rows = max_rows(params, available)
    return None if rows is None else {**rows, "sample_meta": META_ROWS * rows["samples"]}


def decisions(work: Work) -> Rows:
    """One sample per decision; its unit is the game, its cluster the prompt."""
    import pyarrow as pa

    games, picked = _games(work), _picked_decisions(work)
    rows = [row for game in _kept_games(work, games, picked) for row in picked[game]]
    tokenise = _tokeniser(work)
    work.report.phase("compute")
    samples = []
    for index, row in enumerate(rows):
        tokens = tokenise(row)
        tokens = _with_reply(work.model, tokens, row) if work.params.with_reply else tokens
        samples.append(sample_row(_sample_name(row), row["game"], tokens, row["prompt_hash"]))
        work.report.progress(index + 1, len(rows))
    meta = [
        metadata_row(_sample_name(row), key, value)
        for row in rows
        for key, value in _metadata(games[row["game"]], row).items()
        if value is not None
    ]
    yield "samples", pa.Table.from_pylist(samples, schema=arrow_schema("samples"))
    yield "sample_meta", pa.Table.from_pylist(meta, schema=arrow_schema("sample_meta"))


def _games(work: Work) -> dict[str, _Row]:
    rows = (
        work.inputs.read("games")
        .select(["game", "condition", "repetition", "outcome", "meta"])
        .to_pylist()
    )
    if not rows:
        raise DataError(
            "games: no game was played. Run the play stage that `from:` names, or name another one."
        )
    return {row["game"]: row for row in rows}


def _picked_decisions(work: Work) -> dict[str, Sequence[_Row]]:
    """The chosen decisions of each game that has any, in the order of play."""
    by_game: dict[str, list[_Row]] = defaultdict(list)
    for row in work.inputs.read("rounds").select(_COLUMNS).to_pylist():
        if row["parse"] == "ok":
            by_game[row["game"]].append(row)
    pick = _PICKS[work.params.pick]
    return {
        game: sorted(rows, key=lambda row: int(row["round"]))[pick]
        for game, rows in by_game.items()
    }


def _kept_games(work: Work, games: Mapping[str, _Row], picked: Mapping[str, Any]) -> list[str]:
    """Every n-th game. A limit keeps the lowest repetitions, to cover as many conditions as
    possible.
    """
    every_nth = sorted(games)[:: work.params.every]
    readable = [game for game in every_nth if game in picked]
    if not readable:
        raise DataError(
            f"games: no reply in {len(every_nth)} of {len(games)} played games could be read as a "
            "decision. Look at the replies in table rounds (columns reply, parse, finish): the "
            "layout, the chat template or max_new_tokens may not suit the model. Play again, "
            "or lower every."
        )
    by_repetition = sorted(readable, key=lambda game: (games[game]["repetition"], game))
    return sorted(by_repetition[: work.limit_units])


def _tokeniser(work: Work) -> Callable[[_Row], Tokens]:
    """A tokeniser that caches equal prompts. Chat prompts are stored as rendered, so the template
    is not applied again.
    """
    cache: dict[str, Tokens] = {}

    def tokenise(row: _Row) -> Tokens:
        if row["prompt_hash"] not in cache:
            spans = [(span["name"], span["start"], span["end"]) for span in row["spans"]]
            cache[row["prompt_hash"]] = work.model.tokenise(
                row["prompt"], chat=False, spans=spans, name=_sample_name(row)
            )
        return cache[row["prompt_hash"]]

    return tokenise


def _with_reply(model: Model, prompt: Tokens, row: _Row) -> Tokens:
    """The prompt followed by the exact tokens that the model sampled. The reply is not tokenised
    again, which could split it differently.
    """
    ids = [*prompt.ids, *row["reply_ids"]]
    if len(ids) > model.context:
        raise DataError(
            f"sample '{_sample_name(row)}' has {len(ids)} tokens with its reply; "
            f"{model.identity.name} reads at most {model.context}. Leave out with_reply, or play "
            "with a smaller max_new_tokens."
        )
    pieces = _pieces(model, row["reply_ids"])
    spans = (*prompt.spans, (GENERATION, len(prompt.ids), len(ids)))
    text = prompt.text + "".join(pieces)
    return Tokens(text, tuple(ids), (*prompt.pieces, *pieces), spans, prompt.bos)


def _pieces(model: Model, ids: Sequence[int]) -> list[str]:
    """The text that each token adds. A character of several tokens belongs to the last of them;
    special tokens add nothing.
    """
    pieces, decoded = [], ""
    for end in range(1, len(ids) + 1):
        text = model.decode(ids[:end])
        is_complete = end == len(ids) or not text.endswith("\ufffd")
        pieces.append(text[len(decoded) :] if is_complete else "")
        decoded = text if is_complete else decoded
    return pieces


def _sample_name(row: _Row) -> str:
    return f"{row['game']}/{row['round']}"


def _metadata(game: _Row, row: _Row) -> dict[str, float | str | None]:
    """The metadata of a decision: its game, its condition, and the numbers of its state. `state` is
    the same for decisions with bit-identical states.
    """
    meta = json.loads(game["meta"])
    switches = {name: float(is_on) for name, is_on in meta.get("switches", {}).items()}
    return {
        **meta.get("groups", {}),
        **switches,
        **json.loads(row["numbers"]),
        "outcome": game["outcome"],
        "condition": game["condition"],
        "round": float(row["round"]),
        "state": row["state_hash"],
        "action": row["action"],
        "bet": row["bet"],
    }
