"""Candidates that pass on their own are held against random directions. A candidate that some of
them have beaten so often that it cannot pass is not held against the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .arms import SpaceEdits
from .points import weights_of
from .pool import (
    BLOCK,
    Against,
    Pool,
    compare,
    effects_at,
    feature_pool,
    kind_of,
    live_features,
    may_pass,
    mixture_pool,
)

if TYPE_CHECKING:
    from toolkit.arrays import Floats

    from .passes import Reading
    from .stage import Screen


def hold_against_directions(screen: Screen, passing: Any) -> dict[int, Against]:
    """By candidate of this step, for those that are `passing`, what random directions do."""
    import numpy as np

    spaces = np.unique(screen.candidates.space[passing]).tolist()
    if not spaces:
        return {}
    kind = kind_of(screen.params.null, screen.everything, screen.family, spaces)
    against: dict[int, Against] = {}
    for space in spaces:
        against |= _of_space(screen, space, passing, kind)
    return against


def _of_space(screen: Screen, space: int, passing: Any, kind: str) -> dict[int, Against]:
    import numpy as np

    pool = _pool(screen, space, kind)
    edits = _edits_of(screen, space, passing)
    numbers = _points(screen)
    effects, lengths = _own(screen, edits, numbers)
    nulls: list[list[Floats]] = [[] for _ in effects]
    beyond, live = np.zeros(len(effects), int), np.arange(len(effects))
    for first, last in ((0, BLOCK), (BLOCK, len(pool))):
        block = pool.directions[first:last]
        if not len(block) or not len(live):
            break
        found = _try(screen, edits, numbers, block, lengths[:, live])
        for place, column in zip(live.tolist(), found.T, strict=True):
            nulls[place].append(column)
            beyond[place] += int((abs(column) >= abs(effects[place])).sum())
        live = live[may_pass(pool, beyond[live], screen.params.alpha)]
        screen.work.report.progress(min(last, len(pool)), len(pool))
    return {
        member: compare(pool, np.concatenate(nulls[place]), float(effects[place]))
        for place, member in enumerate(edits.members.tolist())
    }


def _points(screen: Screen) -> list[int]:
    """The decision points at which directions are tried, drawn by seed."""
    order = screen.work.rng("patch.direction_points").permutation(len(screen.points))
    return sorted(order[: screen.params.direction_points].tolist())


def _pool(screen: Screen, space: int, kind: str) -> Pool:
    sae, everything, most = screen.saes[space], screen.everything, screen.params.directions
    rng = screen.work.rng("patch.pool", everything.spaces[space])
    if kind == "directions":
        return mixture_pool(sae, everything, space, most, rng)
    prompts = [point.ids for point in screen.points]
    fired = everything.feature[everything.of_space(space)]
    live = live_features(screen.model, sae, prompts, fired)
    return feature_pool(sae, everything, space, screen.family, live, most, rng)


def _edits_of(screen: Screen, space: int, passing: Any) -> SpaceEdits:
    """The edits of the passing candidates of a space."""
    import torch

    sae, members = screen.saes[space], screen.candidates.of_space(space)
    members = members[passing[members]]
    features = screen.candidates.feature[members].tolist()
    rows = sae.decoder_rows(features).float()
    values = torch.from_numpy(screen.candidates.values[members]).to(rows)
    return SpaceEdits(sae, members, torch.tensor(features), values, rows, None, None)


def _own(screen: Screen, edits: SpaceEdits, numbers: list[int]) -> tuple[Floats, Floats]:
    """The candidates' specific effects over these points (C,), and how far their two values move
    the stream at each point (points, C, 2).
    """
    import numpy as np

    from .stage import push_all

    bare = replace(screen, params=screen.params.model_copy(update={"arms": ()}))
    effects, lengths = [], []
    for number in numbers:
        reading = screen.read(screen.points[number])
        there = {arm: chances for _, arm, chances, _ in push_all(bare, reading, [edits])}
        effects.append((there["set_a"] - there["set_b"])[:, screen.column])
        change = edits.values - edits.own_values(reading)[:, None]
        lengths.append((change * edits.rows.norm(dim=1, keepdim=True)).double().cpu().numpy())
    weights = weights_of([screen.points[number] for number in numbers])
    return np.average(effects, axis=0, weights=weights), np.stack(lengths)


def _try(
    screen: Screen, edits: SpaceEdits, numbers: list[int], directions: Any, lengths: Floats
) -> Floats:
    """(R, C): means over the points of what each direction does at each candidate's lengths."""
    import numpy as np

    def at(reading: Reading, own: Floats) -> Floats:
        return effects_at(
            screen.model, screen.outcomes, screen.column, reading, edits.sae, directions, own
        )

    weights = weights_of([screen.points[number] for number in numbers])
    found = [
        at(screen.read(screen.points[number]), own)
        for number, own in zip(numbers, lengths, strict=True)
    ]
    means: Floats = np.average(found, axis=0, weights=weights)
    return means
