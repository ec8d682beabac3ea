"""What playing can cost at most, and what to expect. The model decides how long games last: the
bound assumes that every game reaches its last round with new prompts and uses all attempts at every
reply; what is expected are the rounds and replies of the games of the published study.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.costs import ANSWERED, Cost, Workload, head_flops, key_bytes, pass_bytes, token_flops
from toolkit.samples.games import Environment, Reply, State, chance, tokens_of

from .params import Play

ROUND_BYTES, GAME_BYTES = 500, 300
"""Bytes of a round without its prompt and reply (mostly its state), and of a game."""
PROMPT_TOKEN_BYTES, REPLY_TOKEN_BYTES = 5, 8
"""Bytes per prompt token, stored as text, and per reply token, stored as text and id."""
SAMPLING_BYTES = 24
"""Bytes per vocabulary entry while a token is sampled: logits, and probabilities in float64."""

STUDY_ROUNDS = 6
"""The expected rounds of a game: the mean of the twelve cells of the published study is 5.7."""
SHARED_PREFIX = 0.55
"""The expected share of prompt tokens whose keys are already cached: those of equal prompts and of
shared beginnings.
"""
PROMPTS = 32
"""The number of conditions whose prompts are tokenised to estimate their length."""
STORED_ROUND, STORED_PROMPT_TOKEN, STORED_REPLY_TOKEN, STORED_GAME = 80, 0.5, 2, 120
"""The expected stored bytes of a round without its texts, of a prompt token (most prompts repeat
others), of a reply token, and of a game.
"""


def max_rows(params: Play, available: Mapping[str, int]) -> Mapping[str, int]:
    """The most rows: every game plays all its rounds and uses all its attempts."""
    games = available["units"]
    rounds = games * params.game.make().max_rounds
    return {"games": games, "rounds": rounds * params.attempts}


def playing(params: Play, load: Workload) -> Cost:
    """The cost if every game reaches its last round, every prompt is read once and every reply has
    its maximum length.
    """
    replies = max_rows(params, {"units": load.units})["rounds"]
    model, prompt_length = load.model, load.longest
    full_length = prompt_length + params.reply_budget
    body_flops = (full_length - 1) * token_flops(model, full_length)
    return Cost(
        forwards=replies,
        flops=replies * (body_flops + params.reply_budget * head_flops(model)),
        read=int(model.get("bytes", 0)),
        memory=_memory(params, load),
        disk=replies
        * (
            ROUND_BYTES
            + prompt_length * PROMPT_TOKEN_BYTES
            + params.reply_budget * REPLY_TOKEN_BYTES
        )
        + load.units * GAME_BYTES,
        exact=False,
    )


def _memory(params: Play, load: Workload) -> int:
    """Peak memory: the model, and the keys of the games that are played at a time."""
    model, full_length = load.model, load.longest + params.reply_budget
    concurrent_games = min(params.batch, load.units)
    tokens_in_memory = min(concurrent_games * full_length, max(ANSWERED, full_length))
    cache_bytes = (
        tokens_in_memory * key_bytes(model)
        + concurrent_games * model.get("vocabulary", 0) * SAMPLING_BYTES
    )
    return int(pass_bytes(model, tokens_in_memory, full_length, 1, ANSWERED) + cache_bytes)


# --- what to expect -------------------------------------------------------------------------------


def expected_rows(params: Play, available: Mapping[str, int]) -> Mapping[str, int]:
    """The expected rows: games of the study's length, without re-asked replies."""
    games = available["units"]
    rounds = min(STUDY_ROUNDS, params.game.make().max_rounds)
    return {"games": games, "rounds": games * rounds}


def expected_prompts(params: Play) -> list[str]:
    """Prompts of the first rounds under conditions from first to last, in games whose player always
    takes the first option.
    """
    game = params.game.make()
    conditions = game.conditions()
    texts = []
    for condition in conditions[:: -(-len(conditions) // PROMPTS)]:
        texts += _played(game, game.start(condition.settings))
    return texts


def _played(game: Environment, state: State) -> list[str]:
    """The prompts of one game."""
    texts: list[str] = []
    for number in range(1, 1 + min(STUDY_ROUNDS, game.max_rounds)):
        if game.outcome(state) is not None:
            break
        prompt = game.prompt(state)
        texts.append(prompt.text)
        if not prompt.options:
            break
        first = prompt.options[0]
        state = game.step(state, Reply(first.action, first.low), chance(0, 0, number)).state
    return texts


def expected(params: Play, load: Workload) -> Cost:
    """The cost if prompts share keys as usual, and replies have a length between the shortest one
    that is asked for and the most.
    """
    model, prompt_length = load.model, load.longest
    rounds = load.written.get("rounds", 0)
    shortest = tokens_of(params.game.make().example_reply)
    reply = min(params.reply_budget, (shortest * params.reply_budget) ** 0.5)
    computed = (1 - SHARED_PREFIX) * prompt_length + reply
    flops = computed * token_flops(model, prompt_length + reply) + reply * head_flops(model)
    round_bytes = STORED_ROUND + prompt_length * STORED_PROMPT_TOKEN + reply * STORED_REPLY_TOKEN
    return Cost(
        forwards=rounds,
        flops=rounds * flops,
        read=int(model.get("bytes", 0)),
        memory=_memory(params, load),
        disk=int(rounds * round_bytes) + load.written.get("games", 0) * STORED_GAME,
        table_rows=sum(load.written.values()),
        exact=False,
    )
