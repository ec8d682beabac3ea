"""`words.replies`: which words go with each feature, found on one half of the units and tested
again on the other.

Activations and words are joined once for each space: a sparse product of clusters by features and
clusters by words gives every count that a test needs. Correction runs over every pair of a feature
and a word whose margins allow a test, in all spaces together; margins do not depend on the
association. What is discovered in the select half is tested in the confirm half in the direction
that was found, and corrected over all that was discovered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.kept_positions import Activations, AtKept

if TYPE_CHECKING:
    import numpy as np

    from toolkit.work import Rows, Work
    from toolkit_words.replies.corpus import ReplyCorpus

BLOCK_PAIRS = 4_000_000
"""Pairs of features and words counted at a time."""
SCREEN = 1.6
"""Pairs closer to expectation than this many standard deviations have p above 0.1, which is written
as 1.
"""
CONFIRMED, REFUTED, UNTESTED = "confirmed", "not confirmed", "not in the confirm half"
PUBLISHED = "as published, not tested"


class ReplyWords(AtKept):
    """Which words and features are tested, and the limits of a discovery."""

    span: str | None = Field(
        "generation",
        description="The span whose words are read: the reply. null: the whole text.",
    )
    min_length: int = Field(3, ge=1, description="Letters or digits that a word has at least.")
    min_clusters: int = Field(
        5,
        ge=2,
        description="Clusters of the select half that have a word, and that do not, at least; "
        "and in which a feature is high, and is not.",
    )
    prior: float = Field(
        100.0, gt=0, description="Sum of the prior counts of all words (Dirichlet)."
    )
    correct: Literal["bh", "by", "holm", "bonferroni"] = Field(
        "bh", description="Correction over all pairs of features and words."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Limit of q in either half.")
    top: int = Field(20, ge=1, description="Words that are kept of a feature and direction.")
    contexts: int = Field(
        5, ge=0, description="Places where a feature with words fires hardest that are kept."
    )
    covariates: tuple[str, ...] = Field(
        (),
        description="Numbers of the samples' metadata, such as balance: beside each word stands "
        "the one that goes with it most, and how much.",
    )
    tf_idf: bool = Field(True, description="Also list words by TF-IDF as published.")
    pool: Literal["mean", "max"] = Field(
        "mean", description="What several positions of a sample are together."
    )


@dataclass(frozen=True)
class HalfCounts:
    """One half of a space: the clusters where features are high, their words, and the margins."""

    high: Any
    present: Any
    words: np.ndarray[Any, Any]
    """Words of a cluster, one number each."""


@dataclass(frozen=True)
class SpaceHalves:
    """A space with both halves; `features` are those that fired, `tested` the columns that are
    tested.
    """

    id: str
    features: np.ndarray[Any, Any]
    tested: np.ndarray[Any, Any]
    select: HalfCounts
    confirm: HalfCounts


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


def reply_words(work: Work) -> Rows:
    """Rows of `feature_words` and `feature_contexts`."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema
    from toolkit_words.replies.corpus import one_each, read_words

    params = work.params
    rows = work.inputs.read("samples").to_pylist()
    corpus = read_words(rows, params.span, params.min_length)
    activations = Activations(work.inputs, params.at)
    activations.check_looked(corpus.samples)
    measured = activations.measured & frozenset(corpus.samples)
    halves = [one_each(work.seed, rows, half, measured) for half in ("select", "confirm")]
    _check_halves(halves, params.min_clusters)
    words = _tested_words(corpus, halves[0], params.min_clusters)
    work.report.phase("compute")
    spaces, listed = [], []
    facts = sorted(work.inputs.read("spaces").to_pylist(), key=lambda row: str(row["space"]))
    for done, space in enumerate(row for row in facts if row["space"] in activations.spaces):
        matrices = [
            _matrix(activations, space, samples, params.pool)
            for samples in (halves[0], halves[1], sorted(measured))
        ]
        spaces.append(_space(str(space["space"]), matrices, corpus, halves, words, params))
        if params.tf_idf:
            listed += _published(
                str(space["space"]), matrices[2], corpus.take(sorted(measured)), params.top
            )
        work.report.progress(done + 1, len(facts))
    family = sum(len(space.tested) for space in spaces) * len(words)
    pairs = _discovered(spaces, words, family, params)
    confirmed = _confirmed(spaces, corpus, words, pairs, family, params)
    _add_covariates(work, corpus, halves[0], words, confirmed)
    work.report.event(
        "feature_words",
        pairs=family,
        words=len(words),
        clusters=[len(half) for half in halves],
        discovered=len(pairs.p),
        confirmed=sum(row["verdict"] == CONFIRMED for row in confirmed),
    )
    kept = [*_strongest(confirmed, params.top), *listed]
    yield "feature_words", pa.Table.from_pylist(kept, schema=arrow_schema("feature_words"))
    if params.contexts and confirmed:
        from toolkit_words.replies.contexts import contexts

        named = sorted({(row["space"], row["feature"]) for row in confirmed})
        yield "feature_contexts", contexts(work.inputs, rows, named, params.contexts)


def _add_covariates(
    work: Work,
    corpus: ReplyCorpus,
    samples: Sequence[str],
    words: Any,
    rows: Sequence[dict[str, Any]],
) -> None:
    """Put beside each word the metadata number that goes with it most in the select half."""
    from toolkit_words.replies.covariates import strongest

    params = work.params
    if not params.covariates or not len(words):
        return
    meta = work.inputs.read("sample_meta").to_pylist()
    present = corpus.take(samples).present
    best = strongest(meta, params.covariates, samples, present, words, params.prior)
    by_word = {corpus.words[int(word)]: one for word, one in zip(words, best, strict=True)}
    for row in rows:
        row["covariate"], row["covariate_z"] = by_word[row["word"]] or (None, None)


def _check_halves(halves: Sequence[Sequence[str]], least: int) -> None:
    from toolkit.errors import DataError

    if min(len(half) for half in halves) < 2 * least:
        select, confirm = (len(half) for half in halves)
        raise DataError(
            f"words: {select} independent clusters in the select half and {confirm} in the confirm "
            f"half; a test needs {2 * least} in each (twice min_clusters). Give more games or "
            "prompts, or lower min_clusters."
        )


def summary(events: Sequence[Mapping[str, Any]]) -> str:
    """How many pairs were tested, discovered and confirmed, for the report's Methods."""
    sentences = []
    for event in events:
        if event.get("name") != "feature_words":
            continue
        select, confirm = event["clusters"]
        sentences.append(
            f"{event['pairs']:,} pairs of a feature and one of {event['words']:,} words were "
            f"tested on {select} clusters of the select half, one reply each; "
            f"{event['discovered']:,} were discovered, and {event['confirmed']:,} confirmed on "
            f"{confirm} clusters of the other half."
        )
    return " ".join(sentences)


# --- both halves of a space -----------------------------------------------------------------------


def _matrix(
    activations: Activations, space: Mapping[str, Any], samples: Sequence[str], pool: str
) -> Any:
    from toolkit.activation_matrix import read_space

    named = f"{space['space']} ({space['address']})"
    rows = activations.of(space["space"], samples, named)
    return read_space(rows, list(samples), space["width"], pool, named)


def _space(
    id: str,
    matrices: Sequence[Any],
    corpus: ReplyCorpus,
    halves: Sequence[Sequence[str]],
    words: Any,
    params: ReplyWords,
) -> SpaceHalves:
    """The features that fired in the select half, and those that can be tested."""
    import numpy as np

    from toolkit_words.replies.levels import cuts, high

    select, confirm = matrices[0], _columns_of(matrices[1], matrices[0].features)
    cut = cuts(select.matrix)
    sides = [
        _side(high(matrix, cut), corpus.take(samples), words)
        for matrix, samples in ((select.matrix, halves[0]), (confirm, halves[1]))
    ]
    count = np.asarray(sides[0].high.sum(axis=0)).ravel()
    least = params.min_clusters
    tested = np.flatnonzero((count >= least) & (len(halves[0]) - count >= least))
    return SpaceHalves(id, select.features, tested, sides[0], sides[1])


def _side(high: Any, corpus: ReplyCorpus, words: Any) -> HalfCounts:
    import numpy as np

    present = corpus.present
    return HalfCounts(
        high.tocsc(), present[:, words].tocsr(), np.asarray(present.sum(axis=1)).ravel()
    )


def _columns_of(fired: Any, features: Any) -> Any:
    """The matrix with the columns of these features; those that did not fire are empty."""
    import numpy as np
    from scipy import sparse

    coo = fired.matrix.tocoo()
    feature = fired.features[coo.col] if len(fired.features) else coo.col
    column = np.searchsorted(features, feature)
    known = column < len(features)
    known[known] = features[column[known]] == feature[known]
    cells = (coo.data[known], (coo.row[known], column[known]))
    return sparse.csr_array(cells, shape=(fired.matrix.shape[0], len(features)))


def _tested_words(corpus: ReplyCorpus, samples: Sequence[str], least: int) -> np.ndarray[Any, Any]:
    """Words that enough clusters have and enough lack."""
    import numpy as np

    present = np.asarray(corpus.take(samples).present.sum(axis=0)).ravel()
    chosen: np.ndarray[Any, Any] = np.flatnonzero(
        (present >= least) & (len(samples) - present >= least)
    )
    return chosen


# --- the select half ------------------------------------------------------------------------------


def _discovered(
    spaces: Sequence[SpaceHalves], words: Any, family: int, params: ReplyWords
) -> DiscoveredPairs:
    """Pairs with q of at most alpha. Pairs with p above alpha cannot qualify and are dropped
    early.
    """
    import numpy as np

    from toolkit.corrections import CORRECTIONS
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
    kept = q <= params.alpha
    space_at, column, word, both, p, above = (part[kept] for part in columns_of)
    return DiscoveredPairs(space_at, column, word, both, p, q[kept], above)


# --- the confirm half -----------------------------------------------------------------------------


def _confirmed(
    spaces: Sequence[SpaceHalves],
    corpus: ReplyCorpus,
    words: Any,
    pairs: DiscoveredPairs,
    family: int,
    params: ReplyWords,
) -> list[dict[str, Any]]:
    """Rows of the discovered pairs, with their test on the confirm half."""
    import numpy as np

    from toolkit.corrections import CORRECTIONS
    from toolkit_words.replies.log_odds import exact_tails

    total = len(pairs.p)
    numbers = {name: np.zeros(total) for name in ("delta", "z", "high", "low", "m", "rest")}
    confirmed_stats = {name: np.zeros(total) for name in ("delta", "z", "p")}
    possible = np.zeros(total, bool)
    for number, space in enumerate(spaces):
        at = np.flatnonzero(pairs.space == number)
        if not len(at):
            continue
        own = _effects(space.select, pairs.column[at], pairs.word[at], pairs.both[at], params.prior)
        for name in numbers:
            numbers[name][at] = own[name]
        both = _both(space.confirm, pairs.column[at], pairs.word[at])
        confirm_effects = _effects(
            space.confirm, pairs.column[at], pairs.word[at], both, params.prior
        )
        confirmed_stats["delta"][at], confirmed_stats["z"][at] = (
            confirm_effects["delta"],
            confirm_effects["z"],
        )
        clusters = space.confirm.present.shape[0]
        upper, lower = exact_tails(both, confirm_effects["m"], confirm_effects["k"], clusters)
        confirmed_stats["p"][at] = np.where(pairs.above[at], upper, lower)
        possible[at] = (
            (confirm_effects["m"] > 0) & (confirm_effects["rest"] > 0) & (confirm_effects["k"] > 0)
        )
    confirmed_stats["p"][~possible] = 1.0
    q = CORRECTIONS[params.correct](confirmed_stats["p"], max(total, 1))
    stats = {
        **numbers,
        **{f"confirm_{name}": own for name, own in confirmed_stats.items()},
        "confirm_q": q,
    }
    stats["possible"] = possible
    return [
        _pair_row(spaces, corpus, words, pairs, at, {name: own[at] for name, own in stats.items()})
        | {"family": family, "verdict": _verdict(bool(possible[at]), q[at], params.alpha)}
        for at in range(total)
    ]


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


# --- rows -----------------------------------------------------------------------------------------


def _strongest(rows: Sequence[Mapping[str, Any]], top: int) -> Iterator[Mapping[str, Any]]:
    """The strongest pairs of each feature and direction: confirmed ones first, then by p."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["space"], row["feature"], row["value"] > 0), []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: (row["verdict"] != CONFIRMED, row["p"], row["word"]))
        yield from group[:top]


def _published(id: str, fired: Any, corpus: ReplyCorpus, top: int) -> list[dict[str, Any]]:
    """Rows of the words that TF-IDF ranks first."""
    from toolkit_words.replies.tf_idf import published

    listed = published(fired.matrix, corpus.counts)
    groups: dict[int, list[int]] = {}
    for row, feature in enumerate(listed.column.tolist()):
        groups.setdefault(feature, []).append(row)
    rows = []
    for feature, rows_of_feature in groups.items():
        best = sorted(rows_of_feature, key=lambda at: (-listed.score[at], listed.word[at]))[:top]
        rows += [_listed_row(id, int(fired.features[feature]), corpus, listed, at) for at in best]
    return rows


def _listed_row(
    id: str, feature: int, corpus: ReplyCorpus, listed: Any, index: int
) -> dict[str, Any]:
    tested = ("z", "p", "q", "confirm_value", "confirm_z", "confirm_p", "confirm_q")
    return {
        **dict.fromkeys(tested),
        "space": id,
        "feature": feature,
        "method": "tf_idf",
        "word": corpus.words[int(listed.word[index])],
        "value": float(listed.score[index]),
        "high": float(listed.high[index]),
        "low": float(listed.low[index]),
        "high_clusters": int(listed.high_samples[index]),
        "low_clusters": len(corpus.samples) - int(listed.high_samples[index]),
        "family": 0,
        "verdict": PUBLISHED,
    }
