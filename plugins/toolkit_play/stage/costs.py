"""The most that playing can cost. The model decides how long games last, so the bound assumes that
every game reaches its last round with new prompts and uses all attempts at every reply.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.costs import ANSWERED, Cost, Workload, head_flops, key_bytes, pass_bytes, token_flops

from .params import Play

ROUND_BYTES, GAME_BYTES = 500, 300
"""Bytes of a round without its prompt and reply (mostly its state), and of a game."""
PROMPT_TOKEN_BYTES, REPLY_TOKEN_BYTES = 5, 8
"""Bytes per prompt token, stored as text, and per reply token, stored as text and id."""
SAMPLING_BYTES = 24
"""Bytes per vocabulary entry while a token is sampled: logits, and probabilities in float64."""


def max_rows(params: Play, available: Mapping[str, int]) -> Mapping[str, int]:
    """The most rows: every game plays all its rounds and uses all its attempts."""
    games = available["units"]
    rounds = games * params.game.make().max_rounds
    return {"games": games, "rounds": rounds * params.attempts}


def playing(params: Play, load: Workload) -> Cost:
    """The cost if every game reaches its last round, every prompt is read once and every reply has
    its maximum length.
    """
    model, prompt_length = load.model, load.longest
    replies = max_rows(params, {"units": load.units})["rounds"]
    concurrent_games = min(params.batch, load.units)
    full_length = prompt_length + params.reply_budget
    body_flops = (full_length - 1) * token_flops(model, full_length)
    tokens_in_memory = min(concurrent_games * full_length, max(ANSWERED, full_length))
    cache_bytes = (
        tokens_in_memory * key_bytes(model)
        + concurrent_games * model.get("vocabulary", 0) * SAMPLING_BYTES
    )
    return Cost(
        forwards=replies,
        flops=replies * (body_flops + params.reply_budget * head_flops(model)),
        read=int(model.get("bytes", 0)),
        memory=pass_bytes(model, tokens_in_memory, full_length, 1, ANSWERED) + cache_bytes,
        disk=replies
        * (
            ROUND_BYTES
            + prompt_length * PROMPT_TOKEN_BYTES
            + params.reply_budget * REPLY_TOKEN_BYTES
        )
        + load.units * GAME_BYTES,
        exact=False,
    )
