"""What playing costs at most: how long games last is up to the model, so each is taken to go to its
last round with new prompts.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.costs import ANSWERED, Cost, Workload, head_flops, key_bytes, pass_bytes, token_flops

from ._play import Play

ROUND, GAME = 200, 200
"""Bytes of a round beside its prompt and reply, and of a game."""
READ, DRAWN = 5, 8
"""Bytes of a token of a prompt, stored as text, and of one of a reply, stored as text and number.
"""
CHANCES = 24
"""Bytes of a token's probability while it is drawn: as logits, and in float64."""


def max_rows(params: Play, available: Mapping[str, int]) -> Mapping[str, int]:
    """The most rows of so many games: each plays all its rounds."""
    games = available["units"]
    return {"games": games, "rounds": games * params.game.max_rounds}


def playing(params: Play, load: Workload) -> Cost:
    """Every game to its last round: each prompt is read once, and each reply is as long as it may
    be.
    """
    model, prompt = load.model, load.longest
    rounds = max_rows(params, {"units": load.units})["rounds"]
    side_by_side = min(params.batch, load.units)
    written = prompt + params.most
    through = (prompt + params.most - 1) * token_flops(model, written)
    together = min(side_by_side * written, max(ANSWERED, written))
    held = together * key_bytes(model) + side_by_side * model.get("vocabulary", 0) * CHANCES
    return Cost(
        forwards=rounds,
        flops=rounds * (through + params.most * head_flops(model)),
        read=int(model.get("bytes", 0)),
        memory=pass_bytes(model, together, written, 1, ANSWERED) + held,
        disk=rounds * (ROUND + prompt * READ + params.most * DRAWN) + load.units * GAME,
        exact=False,
    )
