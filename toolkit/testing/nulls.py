"""Data whose statistics are known before any test is run: clustered nulls and planted effects.

Rounds of one game resemble each other, so a test that treats rounds as independent finds
"significant" features where none differs. `null_groups` makes such data: labels belong to games,
every feature has a game effect, and no feature depends on the label. `planted_groups` is the same
with an exact Cohen's d, over game means, in chosen features.

Only NumPy is used. Every number is drawn from a counter-based stream named by (seed, purpose), so
that another feature or purpose never changes the numbers of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toolkit.statistics.arrays import Floats, Ints
from toolkit.statistics.randomness import generator

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, eq=False)
class Groups:
    """Sparse rows of rounds within games, as CSR: row i has entries indptr[i] to indptr[i+1]."""

    sample: Ints  # id of each row
    game: Ints  # the unit each row belongs to
    round: Ints
    label: npt.NDArray[np.bool_]  # the same for all rows of a game
    indptr: Ints
    features: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]
    n_features: int
    planted: dict[
        int, float
    ]  # feature -> Cohen's d of game means, label True minus False; empty for a null

    def dense(self) -> Floats:
        """All rows as a (rows, features) array."""
        out = np.zeros((len(self.sample), self.n_features))
        out[np.repeat(np.arange(len(self.sample)), np.diff(self.indptr)), self.features] = (
            self.values
        )
        return out

    def game_means(self) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """The mean row of each game, and the label of each game."""
        games, first, inverse = np.unique(self.game, return_index=True, return_inverse=True)
        sums = np.zeros((len(games), self.n_features))
        np.add.at(sums, inverse, self.dense())
        return sums / np.bincount(inverse)[:, None], self.label[first]


def null_groups(
    seed: int,
    *,
    n_games: int = 200,
    rounds: int = 6,
    n_features: int = 64,
    game_sd: float = 1.0,
    round_sd: float = 1.0,
    density: float = 0.3,
) -> Groups:
    """Half of the games carry the label, every feature has a game effect, and no feature depends on
    the label.

    `density` is the expected share of rows in which a feature fires; `game_sd` against `round_sd`
    sets how alike the rounds of a game are.
    """
    return _groups(seed, n_games, rounds, n_features, game_sd, round_sd, density, {})


def planted_groups(
    seed: int,
    *,
    d: float = 0.8,
    which: Sequence[int] = (0,),
    n_games: int = 200,
    rounds: int = 6,
    n_features: int = 64,
    game_sd: float = 1.0,
    round_sd: float = 1.0,
    density: float = 0.3,
) -> Groups:
    """As `null_groups`, but game means of the features in `which` differ by `d` pooled standard
    deviations.

    `d` is the population value, solved for and not sampled; a negative `d` too large for a sparse
    feature is refused.
    """
    if which and not (0 <= min(which) and max(which) < n_features):
        raise ValueError(f"which={tuple(which)!r} names a feature outside 0..{n_features - 1}")
    planted = dict.fromkeys((int(feature) for feature in which), float(d))
    return _groups(seed, n_games, rounds, n_features, game_sd, round_sd, density, planted)


def _groups(
    seed: int,
    n_games: int,
    rounds: int,
    n_features: int,
    game_sd: float,
    round_sd: float,
    density: float,
    planted: dict[int, float],
) -> Groups:
    if not 0 < density < 1:
        raise ValueError(f"density must lie between 0 and 1, got {density}")
    if n_games < 4 or rounds < 1 or round_sd <= 0 or game_sd < 0:
        raise ValueError(
            "n_games must be at least 4, rounds at least 1, round_sd above 0 and game_sd at least 0"
        )
    game_label = generator(seed, "label").permutation(np.arange(n_games) % 2 == 1)
    threshold = _upper_quantile(density) * math.hypot(game_sd, round_sd)
    latent = np.empty((n_games, rounds, n_features))
    for feature in range(n_features):
        games = game_sd * generator(seed, "game", feature).standard_normal(n_games)
        noise = round_sd * generator(seed, "round", feature).standard_normal((n_games, rounds))
        latent[:, :, feature] = games[:, None] + noise - threshold
    for feature, d in planted.items():
        latent[game_label, :, feature] += _shift_for(d, game_sd, round_sd, rounds, threshold)
    rows = np.maximum(latent.reshape(n_games * rounds, n_features), 0.0)
    return _sparse(
        rows, np.repeat(np.arange(n_games), rounds), np.repeat(game_label, rounds), rounds, planted
    )


def _sparse(
    rows: Floats, game: Ints, label: npt.NDArray[np.bool_], rounds: int, planted: dict[int, float]
) -> Groups:
    row, feature = np.nonzero(rows)
    return Groups(
        sample=np.arange(len(rows)),
        game=game,
        round=np.arange(len(rows)) % rounds,
        label=label,
        indptr=np.searchsorted(row, np.arange(len(rows) + 1)).astype(np.int64),
        features=feature.astype(np.uint32),
        values=rows[row, feature].astype(np.float32),
        n_features=rows.shape[1],
        planted=planted,
    )


def _normal_cdf(x: Floats) -> Floats:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in x])


def _upper_quantile(share: float) -> float:
    """The point that a standard normal variable exceeds with this probability."""
    return _solve(lambda x: 0.5 * math.erfc(-x / math.sqrt(2.0)), 1.0 - share, -10.0, 10.0)


def _game_mean_moments(
    shift: float, game_sd: float, round_sd: float, rounds: int
) -> tuple[float, float]:
    """Mean and variance, over games, of the mean of `rounds` values max(0, shift + game effect +
    round noise).
    """
    centre = shift + game_sd * _NODES
    z = centre / round_sd
    density, cdf = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi), _normal_cdf(z)
    first = centre * cdf + round_sd * density
    second = (centre**2 + round_sd**2) * cdf + centre * round_sd * density
    mean = float(_WEIGHTS @ first)
    within = float(_WEIGHTS @ (second - first**2))
    return mean, float(_WEIGHTS @ (first - mean) ** 2) + within / rounds


def _shift_for(d: float, game_sd: float, round_sd: float, rounds: int, threshold: float) -> float:
    """The shift of the latent value at which game means of the two groups differ by d pooled
    standard deviations.
    """
    mean, variance = _game_mean_moments(-threshold, game_sd, round_sd, rounds)

    def effect(shift: float) -> float:
        shifted_mean, shifted_variance = _game_mean_moments(
            shift - threshold, game_sd, round_sd, rounds
        )
        return (shifted_mean - mean) / math.sqrt(0.5 * (shifted_variance + variance))

    reach = 20.0 * math.hypot(game_sd, round_sd)
    return _solve(effect, d, -reach, reach)


def _solve(function: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Solve for an increasing function by bisection."""
    if not function(low) <= target <= function(high):
        raise ValueError(
            f"{target} cannot be reached: values from {function(low):.3g} to {function(high):.3g} "
            "are possible"
        )
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) < target else (low, middle)
    return 0.5 * (low + high)


# --- designs: how many clusters, of which sizes, with which values --------------------------------

VALUES = ("normal", "uniform", "sparse", "wide")
"""The kinds of values of `clusters_of_groups`: normal; uniform; gamma values that fire in some
samples; normal with a spread twice as large in the larger group and equal means.
"""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Dense rows of samples, the cluster of each, and whether it is of the first group."""

    values: Floats
    cluster: Ints
    first: npt.NDArray[np.bool_]


def clusters_of_groups(
    seed: int,
    counts: tuple[int, int],
    n_features: int,
    values: str = "sparse",
    *,
    rounds: tuple[int, int] = (1, 1),
    later: float = 0.0,
    d: float = 0.0,
    rates: tuple[float, float] = (0.02, 0.4),
) -> Clusters:
    """Draw two groups of clusters; no feature differs between them unless `d` is given.

    A cluster has between `rounds[0]` and `rounds[1]` samples, which share an effect. `later` is the
    share of clusters whose size is the larger of two draws in the first group, and the smaller in
    the second. `rates` bound the share of samples in which a sparse feature fires; `d` moves the
    first group by this many standard deviations.
    """
    if values not in VALUES:
        raise ValueError(f"values must be one of {', '.join(VALUES)}, got {values!r}")
    rng = generator(seed, "clusters", values)
    least, highest = rounds
    sizes = rng.integers(least, highest + 1, sum(counts))
    if later:
        longer = rng.integers(least, highest + 1, (2, counts[0])).max(axis=0)
        sizes[: counts[0]] = np.where(rng.random(counts[0]) < later, longer, sizes[: counts[0]])
        sizes[counts[0] :] = np.where(
            rng.random(counts[1]) < later,
            rng.integers(least, highest + 1, (2, counts[1])).min(axis=0),
            sizes[counts[0] :],
        )
    cluster = np.repeat(np.arange(sum(counts)), sizes)
    first = cluster < counts[0]
    shape = (len(cluster), n_features)
    shared = rng.standard_normal((sum(counts), n_features))[cluster]
    latent = rng.standard_normal(shape)
    if highest > 1:
        latent = (latent + shared) / math.sqrt(2.0)
    if values == "uniform":
        made = rng.random(shape)
    elif values == "sparse":
        rate = np.exp(rng.uniform(math.log(rates[0]), math.log(rates[1]), n_features))
        cut = np.array([_upper_quantile(float(probability)) for probability in rate])
        made = np.where(latent > cut, rng.gamma(2.0, 1.0, shape), 0.0)
    else:
        made = latent
    if values == "wide":
        made = made * np.where(first, 1.0, 2.0)[:, None]
    made[first] += d * made.std(axis=0) if d else 0.0
    return Clusters(made, cluster, first)
