"""Pairs of a feature and a word: discovered on one half, tested again on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit_words.replies.halves import (
    HalfCounts,
    SpaceHalves,
)
from toolkit_words.replies.params import ReplyWords

if TYPE_CHECKING:
    import numpy as np

    from toolkit_words.replies.corpus import ReplyCorpus

BLOCK_PAIRS = 4_000_000
"""Pairs of features and words counted at a time."""

SCREEN = 1.6
"""Pairs closer to expectation than this many standard deviations have p above 0.1, which is written
as 1.
"""

CONFIRMED, REFUTED, UNTESTED = "confirmed", "not confirmed", "not in the confirm half"


@dataclass(frozen=True)
class DiscoveredPairs:
    """Discovered pairs: indices of space, column and word, and the counts."""

    space: np.ndarray[Any, Any]
    column: np.ndarray[Any, Any]
    word: np.ndarray[Any, Any]
    both: np.ndarray[Any, Any]
    p: np.ndarray[Any, Any]
    q: np.ndarray[Any, Any]
    above: np.ndarray[Any, Any]
    """Whether the word is more frequent where the feature is high."""


def discovered_pairs(
    spaces: Sequence[SpaceHalves], words: Any, family: int, params: ReplyWords
) -> DiscoveredPairs:
    """Pairs with q of at most alpha. Pairs with p above alpha cannot qualify and are dropped
    early.
    """
    import numpy as np

    from toolkit.statistics.corrections import CORRECTIONS
    from toolkit_words.replies.log_odds import count, exact_tails, two_sided

    parts = []
    block = max(1, BLOCK_PAIRS // max(1, len(words)))
    for number, space in enumerate(spaces):
        for start in range(0, len(space.tested), block):
            columns = space.tested[start : start + block]
            counts = count(space.select.high[:, columns], space.select.present)
            deviations = counts.score()
            feature, word = np.nonzero(np.abs(deviations) >= SCREEN)
            margins = (counts.both[feature, word], counts.high[feature], counts.words[word])
            p = two_sided(*exact_tails(*margins, counts.clusters))
            good = p <= params.alpha
            feature, word = feature[good], word[good]
            parts.append(
                (
                    np.full(len(feature), number),
                    columns[feature],
                    word,
                    margins[0][good],
                    p[good],
                    deviations[feature, word] > 0,
                )
            )
    if not parts:
        none = np.empty(0, np.int64)
        return DiscoveredPairs(none, none, none, none, np.empty(0), np.empty(0), none)
    columns_of = [np.concatenate(part) for part in zip(*parts, strict=True)]
    q = CORRECTIONS[params.correct](columns_of[4], max(family, 1))
    discovered = q <= params.alpha
    space_at, column, word, both, p, above = (part[discovered] for part in columns_of)
    return DiscoveredPairs(space_at, column, word, both, p, q[discovered], above)


def confirmed_rows(
    spaces: Sequence[SpaceHalves],
    corpus: ReplyCorpus,
    words: Any,
    pairs: DiscoveredPairs,
    family: int,
    params: ReplyWords,
) -> list[dict[str, Any]]:
    """Rows of the discovered pairs, with their test on the confirm half."""
    from toolkit.statistics.corrections import CORRECTIONS

    total = len(pairs.p)
    stats, possible = _pair_stats(spaces, pairs, params.prior)
    q = CORRECTIONS[params.correct](stats["confirm_p"], max(total, 1))
    stats |= {"confirm_q": q, "possible": possible}
    return [
        _pair_row(
            spaces,
            corpus,
            words,
            pairs,
            index,
            {name: column[index] for name, column in stats.items()},
        )
        | {"family": family, "verdict": _verdict(bool(possible[index]), q[index], params.alpha)}
        for index in range(total)
    ]


def _pair_stats(
    spaces: Sequence[SpaceHalves], pairs: DiscoveredPairs, prior: float
) -> tuple[dict[str, Any], Any]:
    """Effects of the pairs on both halves with p on the confirm half, which is 1 where no test is
    possible; and where one is.
    """
    import numpy as np

    from toolkit_words.replies.log_odds import exact_tails

    total = len(pairs.p)
    select = {name: np.zeros(total) for name in ("delta", "z", "high", "low", "m", "rest")}
    confirm = {name: np.zeros(total) for name in ("delta", "z", "p")}
    possible = np.zeros(total, bool)
    for number, space in enumerate(spaces):
        indices = np.flatnonzero(pairs.space == number)
        if not len(indices):
            continue
        columns, words = pairs.column[indices], pairs.word[indices]
        select_effects = _effects(space.select, columns, words, pairs.both[indices], prior)
        for name in select:
            select[name][indices] = select_effects[name]
        both = _both(space.confirm, columns, words)
        effects = _effects(space.confirm, columns, words, both, prior)
        confirm["delta"][indices], confirm["z"][indices] = effects["delta"], effects["z"]
        clusters = space.confirm.present.shape[0]
        upper, lower = exact_tails(both, effects["m"], effects["k"], clusters)
        confirm["p"][indices] = np.where(pairs.above[indices], upper, lower)
        possible[indices] = (effects["m"] > 0) & (effects["rest"] > 0) & (effects["k"] > 0)
    confirm["p"][~possible] = 1.0
    return {**select, **{f"confirm_{name}": values for name, values in confirm.items()}}, possible


def _verdict(tested: bool, q: float, alpha: float) -> str:
    if not tested:
        return UNTESTED
    return CONFIRMED if q <= alpha else REFUTED


def _pair_row(
    spaces: Sequence[SpaceHalves],
    corpus: ReplyCorpus,
    words: Any,
    pairs: DiscoveredPairs,
    index: int,
    stats: Mapping[str, Any],
) -> dict[str, Any]:
    """The row of one pair; what could not be tested in the confirm half has no numbers."""
    space = spaces[int(pairs.space[index])]
    confirm = {
        "confirm_value": float(stats["confirm_delta"]),
        "confirm_z": float(stats["confirm_z"]),
        "confirm_p": float(stats["confirm_p"]),
        "confirm_q": float(stats["confirm_q"]),
    }
    return {
        "space": space.id,
        "feature": int(space.features[pairs.column[index]]),
        "method": "log_odds",
        "word": corpus.words[int(words[pairs.word[index]])],
        "value": float(stats["delta"]),
        "z": float(stats["z"]),
        "p": float(pairs.p[index]),
        "q": float(pairs.q[index]),
        "high": float(stats["high"]),
        "low": float(stats["low"]),
        "high_clusters": int(stats["m"]),
        "low_clusters": int(stats["rest"]),
        **(confirm if stats["possible"] else dict.fromkeys(confirm)),
    }


def _both(side: HalfCounts, column: Any, word: Any) -> np.ndarray[Any, Any]:
    """For each pair the number of clusters that have the word and where the feature is high."""
    import numpy as np

    features, feature_index = np.unique(column, return_inverse=True)
    counted = (side.high[:, features].T @ side.present).toarray()
    both: np.ndarray[Any, Any] = np.asarray(counted[feature_index, word], np.int64)
    return both


def _effects(side: HalfCounts, column: Any, word: Any, both: Any, prior: float) -> dict[str, Any]:
    """delta and z of pairs, the shares of clusters with the word, and the margins."""
    import numpy as np

    from toolkit_words.replies.log_odds import log_odds

    clusters = side.present.shape[0]
    m = np.asarray(side.high.sum(axis=0)).ravel()[column].astype(np.int64)
    k = np.asarray(side.present.sum(axis=0)).ravel()[word].astype(np.int64)
    first_totals = np.asarray(side.high.T @ side.words).ravel()[column]
    with np.errstate(divide="ignore", invalid="ignore"):
        delta, z = log_odds(both, k, first_totals, float(side.words.sum()), prior)
        high, low = both / m, (k - both) / (clusters - m)
    return {"delta": delta, "z": z, "high": high, "low": low, "m": m, "rest": clusters - m, "k": k}
