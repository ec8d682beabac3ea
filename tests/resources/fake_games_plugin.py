"""A scratch plugin for tests of the host: games without a model, samples made of them, and SAEs
that say whether they fit.
"""

import hashlib
import json

import pyarrow as pa
from pydantic import Field

from toolkit import hookimpl
from toolkit.identity import Identity
from toolkit.parts import UNHASHED, Params, SaePart, SourcePart, StagePart, Steps
from toolkit.tables import arrow_schema


class Plays(Params):
    """How many games."""

    games: int = Field(10, description="Games.")
    batch: int = Field(4, description="Games of one step.")
    note: str = Field("", description="Changes nothing.", json_schema_extra=UNHASHED)


class Fitting(Params):
    """Whether the SAEs fit."""

    fits: bool = Field(True, description="Pass the examination.")


class Nothing(Params):
    """No params."""


def table(name, rows):
    return pa.Table.from_pylist(rows, schema=arrow_schema(name))


def play(work):
    first, last = work.units
    rows = [
        {
            "game": f"g{n:03d}",
            "condition": "c",
            "repetition": n,
            "outcome": "won",
            "rounds": 1,
            "final_balance": 1.0,
            "total_bet": 1.0,
            "meta": "{}",
        }
        for n in range(first, last)
    ]
    yield "games", table("games", rows)


def of_games(work):
    rows = []
    for game in work.inputs.read("games").to_pylist():
        digest = hashlib.sha256(game["game"].encode()).hexdigest()
        same = {
            "unit": game["game"],
            "cluster": digest,
            "text": game["game"],
            "prompt_hash": digest,
        }
        rows.append({"sample": game["game"], "token_ids": [], "pieces": [], "spans": [], **same})
    yield "samples", table("samples", rows)


def look(work):
    message = "" if work.saes else "SAE fake does not fit at resid_post.0: it is a fake."
    numbers = dict.fromkeys(("l0", "declared_l0", "explained_variance", "cosine", "dead_share"))
    count = work.inputs.read("samples").num_rows
    row = {
        "space": "fake",
        "site": "resid_post.0",
        "tokens": count,
        "verdict": "fits",
        "message": message,
    }
    yield "saes", table("saes", [{**numbers, **row}])


def use(work):
    rows = [
        {"space": "fake", "sample": row["sample"], "position": 0, "features": [1], "values": [1.0]}
        for row in work.inputs.read("samples").to_pylist()
    ]
    yield "activations", table("activations", rows)


@hookimpl
def toolkit_parts():
    yield StagePart(
        name="play.fake_games",
        help="Games.",
        params=Plays,
        run=play,
        reads=(),
        writes=("games",),
        steps=Steps(size="batch", units=lambda params: params.games),
    )
    yield SourcePart(
        name="game_texts",
        help="Games as samples.",
        run=of_games,
        reads=("games",),
        writes=("samples",),
    )
    yield SaePart(
        name="fake_saes",
        help="SAEs that fit or do not.",
        params=Fitting,
        identify=lambda params: Identity("fake_saes", "1", json.dumps(params.fits)),
        load=lambda params, report: params.fits,
        examine="examine.fake_games",
    )
    yield StagePart(
        name="examine.fake_games",
        help="Says whether they fit.",
        params=Nothing,
        run=look,
        reads=("samples",),
        writes=("saes",),
        steps=Steps(sample_limit=3),
        uses_saes=True,
    )
    yield StagePart(
        name="trace.fake_games",
        help="Uses the SAEs on what is extracted already.",
        params=Nothing,
        run=lambda work: iter(()),
        reads=("activations",),
        writes=("features",),
        uses_saes=True,
    )
    yield StagePart(
        name="extract.fake_games",
        help="Uses the SAEs.",
        params=Nothing,
        run=use,
        reads=("samples",),
        writes=("activations",),
        uses_saes=True,
    )
