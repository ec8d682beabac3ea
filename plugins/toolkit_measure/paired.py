"""Interventions: each patched game against the unpatched game with the same luck and draws."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.work import Work

from . import indices
from .intervals import bootstrap_means
from .played import GameRecord
from .rows import row
from .scopes import ALL

NUMBERS = ("rounds", "total_bet", "net", "I")


def paired(
    work: Work, games: Sequence[GameRecord], numbers: Mapping[str, Mapping[str, float]]
) -> Iterator[dict[str, Any]]:
    """For each arm, the mean difference from the unpatched games: of the event, with an exact sign
    test over the pairs that differ, and of the main numbers.
    """
    by_name = {game.name: game for game in games}
    pairs: dict[str, list[tuple[GameRecord, GameRecord]]] = defaultdict(list)
    for game in games:
        if game.arm is not None and game.pair in by_name:
            pairs[game.arm].append((game, by_name[game.pair]))
    for arm, paired_games in sorted(pairs.items()):
        yield from _arm_rows(work, arm, paired_games, numbers)


def _arm_rows(
    work: Work,
    arm: str,
    pairs: Sequence[tuple[GameRecord, GameRecord]],
    numbers: Mapping[str, Mapping[str, float]],
) -> Iterator[dict[str, Any]]:
    differences = [
        [
            float(game.outcome == game.event) - float(base.outcome == base.event),
            *(numbers[game.name][name] - numbers[base.name][name] for name in NUMBERS),
        ]
        for game, base in pairs
    ]
    values = np.array(differences)
    low, high = bootstrap_means(values, work.rng("measure.paired", arm))
    event = pairs[0][0].event or "event"
    up, down = int((values[:, 0] > 0).sum()), int((values[:, 0] < 0).sum())
    for index, name in enumerate((event, *NUMBERS)):
        column = values[:, index]
        finite = column[np.isfinite(column)]
        yield row(
            f"paired:{name}",
            arm,
            ALL,
            float(finite.mean()) if len(finite) else None,
            low[index],
            high[index],
            p=sign_test(up, down) if index == 0 else None,
            n=len(finite),
            text=f"{up} games more, {down} fewer" if index == 0 else indices.version_text(name),
        )


def sign_test(up: int, down: int) -> float:
    """The two-sided exact p of a split of the differing pairs into `up` and `down`."""
    total, fewer = up + down, min(up, down)
    tail = sum(math.comb(total, count) for count in range(fewer + 1)) / 2.0**total
    return min(1.0, 2 * tail)
