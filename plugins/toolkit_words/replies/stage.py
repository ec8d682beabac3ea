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
from typing import TYPE_CHECKING, Any

from toolkit.activations.kept_positions import Activations
from toolkit_words.replies.halves import (
    check_halves,
    half_matrix,
    halves_of_space,
    tested_words,
)
from toolkit_words.replies.pairs import CONFIRMED, confirmed_rows, discovered_pairs

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Rows, Work
    from toolkit_words.replies.corpus import ReplyCorpus

PUBLISHED = "as published, not tested"


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
    check_halves(halves, params.min_clusters)
    words = tested_words(corpus, halves[0], params.min_clusters)
    work.report.phase("compute")
    spaces, listed = [], []
    facts = sorted(work.inputs.read("spaces").to_pylist(), key=lambda row: str(row["space"]))
    for done, space in enumerate(row for row in facts if row["space"] in activations.spaces):
        matrices = [
            half_matrix(activations, space, samples, params.pool)
            for samples in (halves[0], halves[1], sorted(measured))
        ]
        spaces.append(halves_of_space(str(space["space"]), matrices, corpus, halves, words, params))
        if params.tf_idf:
            listed += _published(
                str(space["space"]), matrices[2], corpus.take(sorted(measured)), params.top
            )
        work.report.progress(done + 1, len(facts))
    family = sum(len(space.tested) for space in spaces) * len(words)
    pairs = discovered_pairs(spaces, words, family, params)
    confirmed = confirmed_rows(spaces, corpus, words, pairs, family, params)
    _add_covariates(work, corpus, halves[0], words, confirmed)
    work.report.event(
        "feature_words",
        pairs=family,
        words=len(words),
        clusters=[len(half) for half in halves],
        discovered=len(pairs.p),
        confirmed=sum(row["verdict"] == CONFIRMED for row in confirmed),
    )
    shown = [*_strongest(confirmed, params.top), *listed]
    yield "feature_words", pa.Table.from_pylist(shown, schema=arrow_schema("feature_words"))
    if params.contexts and confirmed:
        yield "feature_contexts", _contexts(work, rows, confirmed)


def _contexts(
    work: Work, samples: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> pa.Table:
    """The contexts of the features of these rows."""
    from toolkit.activations.rows import BySpace
    from toolkit_words.contexts import contexts

    features = sorted({(row["space"], row["feature"]) for row in rows})
    by_space = BySpace(work.inputs.read("activations"))
    return contexts(by_space, samples, features, work.params.contexts)


def _add_covariates(
    work: Work,
    corpus: ReplyCorpus,
    samples: Sequence[str],
    words: Any,
    rows: Sequence[dict[str, Any]],
) -> None:
    """Add to each word the metadata number that goes with it most in the select half."""
    from toolkit_words.replies.covariates import strongest

    params = work.params
    if not params.covariates or not len(words):
        return
    meta = work.inputs.read("sample_meta").to_pylist()
    present = corpus.take(samples).present
    best = strongest(meta, params.covariates, samples, present, words, params.prior)
    by_word = {corpus.words[int(word)]: number for word, number in zip(words, best, strict=True)}
    for row in rows:
        row["covariate"], row["covariate_z"] = by_word[row["word"]] or (None, None)


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
        best = sorted(rows_of_feature, key=lambda row: (-listed.score[row], listed.word[row]))[:top]
        rows += [_listed_row(id, int(fired.features[feature]), corpus, listed, row) for row in best]
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
