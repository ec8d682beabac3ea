"""The null of a screen: effects of random directions of equal length at the same decision points.

One pool of directions is shared by all candidates of a space. Each direction is tried at every
length that a candidate needs or, if there are many, at some of them, with a curve through the
results. A candidate's p is the share of directions that move the outcome at least as much.

Shapes: R directions, C candidates, T lengths, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from toolkit.models import Model
    from toolkit.saes import Sae
    from toolkit.statistics.arrays import Floats, Ints

    from .candidates import ComparedFeatures
    from .outcomes import Outcomes
    from .passes import Reading


LENGTHS = 12
"""Most lengths at which a direction is tried at a point; others are interpolated."""
MIN_DIRECTIONS = 19
"""Fewest directions with which p can reach 5 %."""
PASS_PROMPTS = 16
"""Prompts per pass when looking for the features that fire."""
BLOCK = 128
"""Directions that are tried for every candidate; the others are tried for those that can still
pass.
"""
TAIL = 0.1
"""Share of the mixtures from which their tail is fitted."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Unit directions (R, W) of one space. `kind`: `features` (decoder rows of other features) or
    `directions` (mixtures of all decoder rows that fire).
    """

    kind: str
    directions: Tensor

    def __len__(self) -> int:
        return len(self.directions)


def feature_pool(
    sae: Sae,
    compared: ComparedFeatures,
    space: int,
    family: Ints,
    live: Ints,
    max_directions: int,
    rng: np.random.Generator,
) -> Pool:
    """Decoder rows of features of the space that fire (`live`) and are not screened, in an order
    drawn by seed; at most `max_directions`, those whose firing rate is nearest to a candidate's.
    """
    import numpy as np
    import torch

    rows = compared.of_space(space)
    candidates = np.intersect1d(rows, family)
    others = np.setdiff1d(live, compared.feature[candidates])
    rate = np.zeros(int(max(live.max(initial=0), compared.feature[rows].max())) + 1)
    rate[compared.feature[rows]] = compared.rate[rows]
    distances = _nearest_distances(np.sort(compared.rate[candidates]), rate[others])
    chosen = np.sort(others[np.lexsort((others, distances))][:max_directions])
    if len(chosen) < MIN_DIRECTIONS:
        raise DataError(
            f"null: {len(chosen)} features of space {compared.spaces[space]} fire and are no "
            f"candidates; at least {MIN_DIRECTIONS} are needed. Screen fewer features, or "
            "set `null: directions`."
        )
    decoder_rows = sae.decoder_rows(rng.permutation(chosen).tolist()).float()
    return Pool("features", torch.nn.functional.normalize(decoder_rows, dim=1))


def _nearest_distances(rates: Floats, others: Floats) -> Floats:
    """The distance of each rate to the nearest of some sorted rates."""
    import numpy as np

    right = np.searchsorted(rates, others).clip(0, len(rates) - 1)
    left = (right - 1).clip(0)
    return np.asarray(np.minimum(abs(others - rates[right]), abs(others - rates[left])))


def live_features(model: Model, sae: Sae, prompts: Sequence[Sequence[int]], fired: Ints) -> Ints:
    """Features that fire at any token of the prompts except BOS, or `fired` in the samples of the
    comparison.
    """
    import numpy as np

    indices = [np.asarray(fired, dtype=np.int64)]
    for start in range(0, len(prompts), PASS_PROMPTS):
        batch = prompts[start : start + PASS_PROMPTS]
        streams = model.run(batch, [sae.hookpoint])[sae.hookpoint]
        for row, ids in zip(streams, batch, strict=True):
            skipped = int(ids[0] == model.bos_id)
            active = sae.sparse(row[skipped : len(ids)].float()).features
            indices.append(np.unique(active.cpu().numpy()))
    return np.unique(np.concatenate(indices))


def mixture_pool(
    sae: Sae, compared: ComparedFeatures, space: int, max_directions: int, rng: np.random.Generator
) -> Pool:
    """Normal mixtures of the decoder rows that fire: random directions in the subspace that the SAE
    writes to.
    """
    import torch

    rows = compared.of_space(space)
    decoder_rows = sae.decoder_rows(compared.feature[rows].tolist()).float()
    decoder_rows = torch.nn.functional.normalize(decoder_rows, dim=1)
    weights = torch.from_numpy(rng.standard_normal((max_directions, len(rows)))).to(decoder_rows)
    return Pool("directions", torch.nn.functional.normalize(weights @ decoder_rows, dim=1))


def effects_at(
    model: Model,
    outcomes: Outcomes,
    column: int,
    reading: Reading,
    sae: Sae,
    directions: Tensor,
    lengths: Floats,
) -> Floats:
    """(R, C): the specific effect of each direction at one point, where `lengths` (C, 2) are how
    far a candidate's two values move the stream along its own row.
    """
    import numpy as np
    import torch

    from .passes import EditedStreams, push_edits

    nodes = _nodes(lengths)
    stream = reading.streams[sae.output_hookpoint]
    steps = torch.from_numpy(nodes).to(stream)
    moved_streams = stream + (steps[:, None, None] * directions.to(stream)).reshape(-1, len(stream))
    moved = EditedStreams(sae.output_hookpoint, moved_streams)
    ((chances, _),) = push_edits(model, outcomes, reading, [moved])
    curves = chances[:, column].reshape(len(nodes), len(directions))
    return np.asarray(
        _interpolated(nodes, curves, lengths[:, 0]) - _interpolated(nodes, curves, lengths[:, 1])
    ).T


def _nodes(lengths: Floats) -> Floats:
    """The lengths themselves if they are few, else some that span them."""
    import numpy as np

    distinct = np.unique(lengths)
    if len(distinct) <= LENGTHS:
        return distinct
    return np.unique(np.quantile(distinct, np.linspace(0, 1, LENGTHS)))


def _interpolated(nodes: Floats, curves: Floats, lengths: Floats) -> Floats:
    """(C, R): values of the curves at these lengths, by monotone cubics between the nodes."""
    import numpy as np
    from scipy.interpolate import PchipInterpolator

    indices = np.searchsorted(nodes, lengths).clip(0, len(nodes) - 1)
    if (nodes[indices] == lengths).all():
        return np.asarray(curves[indices])
    values: Floats = PchipInterpolator(nodes, curves, axis=0)(lengths)
    return values


@dataclass(frozen=True, eq=False)
class DirectionTest:
    """One candidate against its pool: how many of the tried directions have at least its effect,
    the p of that, and the range that holds 95 % of their effects.
    """

    null: str
    directions: int
    beyond: int
    p_directions: float
    null_low: float
    null_high: float


def direction_test(pool: Pool, null: Floats, effect: float) -> DirectionTest:
    """A candidate's `effect` against that of each tried direction (R,), both means over the same
    points.

    For features, p is a rank: (1 + those with at least the effect) / (1 + all), exact if the
    candidate's row is exchangeable with theirs. There is no limit to mixtures: beyond the largest,
    their tail is taken as exponential, which is heavier than the normal tail that mixtures have.
    """
    import numpy as np

    beyond = int((abs(null) >= abs(effect)).sum())
    p = (1 + beyond) / (1 + len(null))
    if pool.kind == "directions" and not beyond:
        p = min(p, _tail(abs(null), abs(effect)))
    low, high = np.quantile(null, (0.025, 0.975))
    return DirectionTest(pool.kind, len(null), beyond, p, float(low), float(high))


def may_pass(pool: Pool, beyond: Ints, alpha: float) -> Any:
    """Which candidates can still reach a p of at most alpha, whatever the other directions do."""
    return (1 + beyond) / (1 + len(pool)) <= alpha


def _tail(sizes: Floats, effect: float) -> float:
    """An exponential tail above the largest tenth of the sizes."""
    import numpy as np

    cut = float(np.quantile(sizes, 1 - TAIL))
    above = sizes[sizes > cut] - cut
    if not len(above) or effect <= cut:
        return 1.0
    return float(TAIL * np.exp(-(effect - cut) / above.mean()))


def kind_of(
    null: str, compared: ComparedFeatures, family: np.ndarray[Any, Any], spaces: Sequence[int]
) -> str:
    """`features` or `directions`. `auto` means features if every space has at least MIN_DIRECTIONS
    unscreened ones, and no fewer than candidates.
    """
    import numpy as np

    if null != "auto":
        return null
    for space in spaces:
        rows = compared.of_space(space)
        screened = len(np.intersect1d(rows, family))
        if len(rows) - screened < max(MIN_DIRECTIONS, screened):
            return "directions"
    return "features"
