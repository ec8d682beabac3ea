"""What playing costs at most: how long games last is up to the model, so each is taken to go to its
last round with new prompts and every reply to be asked for as often as allowed.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.costs import ANSWERED, Cost, Workload, head_flops, key_bytes, pass_bytes, token_flops

from .params import Play

ROUND, GAME = 500, 300
"""Bytes of a round beside its prompt and reply (its state is the most), and of a game."""
READ, DRAWN = 5, 8
"""Bytes of a token of a prompt, stored as text, and of one of a reply, stored as text and number.
"""
CHANCES = 24
"""Bytes of a token's probability while it is drawn: as logits, and in float64."""


def max_rows(params: Play, available: Mapping[str, int]) -> Mapping[str, int]:
    """The most rows of so many games: each plays all its rounds, and asks as often as it may."""
    games = available["units"]
    rounds = games * params.game.make().max_rounds
    return {"games": games, "rounds": rounds * params.attempts}


def playing(params: Play, load: Workload) -> Cost:
    """Every game to its last round: each prompt is read once, and each reply is as long as it may
    be.
    """
    model, prompt = load.model, load.longest
    replies = max_rows(params, {"units": load.units})["rounds"]
    side_by_side = min(params.batch, load.units)
    written = prompt + params.max_new_tokens
    through = (written - 1) * token_flops(model, written)
    together = min(side_by_side * written, max(ANSWERED, written))
    held = together * key_bytes(model) + side_by_side * model.get("vocabulary", 0) * CHANCES
    return Cost(
        forwards=replies,
        flops=replies * (through + params.max_new_tokens * head_flops(model)),
        read=int(model.get("bytes", 0)),
        memory=pass_bytes(model, together, written, 1, ANSWERED) + held,
        disk=replies * (ROUND + prompt * READ + params.max_new_tokens * DRAWN) + load.units * GAME,
        exact=False,
    )
