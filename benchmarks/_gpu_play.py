"""Play at the shape of a model with random weights: the second part of gpu.py."""

from __future__ import annotations

import torch
from play import Ask, Script, Took, lab, ours

from toolkit._plugins.loading import load_parts
from toolkit.samples.games import Reply
from toolkit.statistics.randomness import generator
from toolkit_hf.engine import CausalModel

PUBLISHED = 16_000
"""Tokens a second: the best published offline rate at 8B on an H100."""
DESIGN_GAMES = 6400
MAX_ROUNDS = 12
STOPS = 0.2
"""How often a game is left at a decision."""
LENGTHS = {"restart_128": ("terse", 8, 50), "corrected_64": ("reasoned", 150, 1024)}
"""By design: the name, the mean length of a reply and the longest."""


def play(model: CausalModel, games: int, *, tiny: bool = False) -> None:
    """Measure both designs, one complete line each; `tiny`: replies of an eighth of the length."""
    for design, (name, mean, longest) in LENGTHS.items():
        if tiny:
            mean, longest = mean // 8, longest // 8
        script = step_script(design, games, mean, longest, model.decoder.embedding.num_embeddings)
        ours(model, script[: min(8, games)])
        _say(name, ours(model, script), script)


def _say(name: str, took: Took, script: Script) -> None:
    decisions = sum(map(len, script))
    minutes = took.seconds / took.games * DESIGN_GAMES / 60
    peak = ""
    if torch.cuda.is_available():
        peak = f"; peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    print(
        f"{name}: {took.games} games, {decisions} decisions, {took.tokens} tokens of replies, "
        f"{took.tokens / decisions:.1f} each; {took.tokens / took.seconds:,.0f} tokens/s (best "
        f"published offline rate at 8B on an H100: {PUBLISHED:,}); {took.reused:.0%} of prefill "
        f"saved; {DESIGN_GAMES:,} games: {minutes:.1f} min{peak}"
    )


def step_script(design: str, games: int, mean: int, longest: int, vocabulary: int) -> Script:
    """The prompts of a step of the design, played by chance and read by the lab model's tokeniser,
    and replies of gamma-distributed lengths.
    """
    parts = load_parts()
    part = parts.get("environment", "slot_machine")
    game = part.make(part.params(design=design, max_rounds=MAX_ROUNDS))
    conditions, encode = game.conditions(), lab().encode
    script = []
    for at in range(games):
        rng = generator(0, "benchmark.game", at)
        state, asks = game.start(conditions[at % len(conditions)].settings), []
        while game.outcome(state) is None and len(asks) < MAX_ROUNDS:
            ids = tuple(token % vocabulary for token in encode(game.prompt(state).text).ids)
            asks.append(Ask(ids, int(min(longest, max(4, rng.gamma(3.0, mean / 3))))))
            leaves = rng.random() < STOPS
            reply = Reply("stop") if leaves else Reply("bet", float(rng.choice((10, 20, 50))))
            state = game.step(state, reply, rng).state
        script.append(asks)
    return script
