"""Compares candidates that pass on their own with random directions. A candidate that cannot pass
any more after the first block of directions is not compared with the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .arms import SpaceEdits
from .points import weights_of
from .pool import (
    BLOCK,
    DirectionTest,
    Pool,
    direction_test,
    effects_at,
    feature_pool,
    kind_of,
    live_features,
    may_pass,
    mixture_pool,
)

if TYPE_CHECKING:
    from toolkit.statistics.arrays import Floats

    from .passes import Reading
    from .setup import Screen


def run_direction_tests(screen: Screen, passing: Any) -> dict[int, DirectionTest]:
    """The direction tests of the `passing` candidates of this step, by number."""
    import numpy as np

    spaces = np.unique(screen.candidates.space[passing]).tolist()
    if not spaces:
        return {}
    kind = kind_of(screen.params.null, screen.compared, screen.family, spaces)
    tests: dict[int, DirectionTest] = {}
    for space in spaces:
        tests |= _tests_of_space(screen, space, passing, kind)
    return tests


def _tests_of_space(
    screen: Screen, space: int, passing: Any, kind: str
) -> dict[int, DirectionTest]:
    import numpy as np

    pool = _pool(screen, space, kind)
    edits = _edits_of(screen, space, passing)
    point_numbers = _points(screen)
    effects, lengths = _specific_effects(screen, edits, point_numbers)
    nulls: list[list[Floats]] = [[] for _ in effects]
    beyond, live = np.zeros(len(effects), int), np.arange(len(effects))
    for start, stop in ((0, BLOCK), (BLOCK, len(pool))):
        block = pool.directions[start:stop]
        if not len(block) or not len(live):
            break
        direction_effects = _direction_effects(
            screen, edits, point_numbers, block, lengths[:, live], (start, len(pool))
        )
        for index, column in zip(live.tolist(), direction_effects.T, strict=True):
            nulls[index].append(column)
            beyond[index] += int((abs(column) >= abs(effects[index])).sum())
        live = live[may_pass(pool, beyond[live], screen.params.alpha)]
    screen.work.report.progress(len(pool) * len(point_numbers), len(pool) * len(point_numbers))
    return {
        member: direction_test(pool, np.concatenate(nulls[index]), float(effects[index]))
        for index, member in enumerate(edits.members.tolist())
    }


def _points(screen: Screen) -> list[int]:
    """The decision points at which directions are tried, drawn by seed."""
    order = screen.work.rng("patch.direction_points").permutation(len(screen.points))
    return sorted(order[: screen.params.direction_points].tolist())


def _pool(screen: Screen, space: int, kind: str) -> Pool:
    sae, compared, max_directions = screen.saes[space], screen.compared, screen.params.directions
    rng = screen.work.rng("patch.pool", compared.spaces[space])
    if kind == "directions":
        return mixture_pool(sae, compared, space, max_directions, rng)
    prompts = [point.ids for point in screen.points]
    fired = compared.feature[compared.of_space(space)]
    live = live_features(screen.model, sae, prompts, fired)
    return feature_pool(sae, compared, space, screen.family, live, max_directions, rng)


def _edits_of(screen: Screen, space: int, passing: Any) -> SpaceEdits:
    """The edits of the passing candidates of a space."""
    import torch

    sae, members = screen.saes[space], screen.candidates.of_space(space)
    members = members[passing[members]]
    features = screen.candidates.feature[members].tolist()
    rows = sae.decoder_rows(features).float()
    values = torch.from_numpy(screen.candidates.values[members]).to(rows)
    return SpaceEdits(sae, members, torch.tensor(features), values, rows, None, None)


def _specific_effects(
    screen: Screen, edits: SpaceEdits, point_numbers: list[int]
) -> tuple[Floats, Floats]:
    """The candidates' specific effects over these points (C,), and how far their two values move
    the stream at each point (points, C, 2).
    """
    import numpy as np

    from .measure import push_all

    without_arms = replace(screen, params=screen.params.model_copy(update={"arms": ()}))
    effects, lengths = [], []
    for number in point_numbers:
        reading = screen.read(screen.points[number])
        probabilities = {
            arm: arm_probabilities
            for _, arm, arm_probabilities, _ in push_all(without_arms, reading, [edits])
        }
        effects.append((probabilities["set_a"] - probabilities["set_b"])[:, screen.column])
        change = edits.values - edits.own_values(reading)[:, None]
        lengths.append((change * edits.rows.norm(dim=1, keepdim=True)).double().cpu().numpy())
    weights = weights_of([screen.points[number] for number in point_numbers])
    return np.average(effects, axis=0, weights=weights), np.stack(lengths)


def _direction_effects(
    screen: Screen,
    edits: SpaceEdits,
    point_numbers: list[int],
    directions: Any,
    lengths: Floats,
    tried: tuple[int, int],
) -> Floats:
    """(R, C): means over the points of the effect of each direction at each candidate's lengths.
    `tried`: how many directions of the pool came before these, and how many it has.
    """
    import numpy as np

    def point_effects(reading: Reading, point_lengths: Floats) -> Floats:
        return effects_at(
            screen.model,
            screen.outcomes,
            screen.column,
            reading,
            edits.sae,
            directions,
            point_lengths,
        )

    weights = weights_of([screen.points[number] for number in point_numbers])
    effects = []
    before, pool_size = (count * len(point_numbers) for count in tried)
    for number, point_lengths in zip(point_numbers, lengths, strict=True):
        effects.append(point_effects(screen.read(screen.points[number]), point_lengths))
        screen.work.report.progress(before + len(directions) * len(effects), pool_size)
    means: Floats = np.average(effects, axis=0, weights=weights)
    return means
