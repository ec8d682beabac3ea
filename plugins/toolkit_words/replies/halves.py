"""Both halves of a space: where its features are high, and which words the replies have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.activations.kept_positions import Activations
from toolkit_words.replies.params import ReplyWords

if TYPE_CHECKING:
    import numpy as np

    from toolkit_words.replies.corpus import ReplyCorpus


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


def check_halves(halves: Sequence[Sequence[str]], least: int) -> None:
    from toolkit.errors import DataError

    if min(len(half) for half in halves) < 2 * least:
        select, confirm = (len(half) for half in halves)
        raise DataError(
            f"words: {select} independent clusters in the select half and {confirm} in the confirm "
            f"half; a test needs {2 * least} in each (twice min_clusters). Give more games or "
            "prompts, or lower min_clusters."
        )


def half_matrix(
    activations: Activations, space: Mapping[str, Any], samples: Sequence[str], pool: str
) -> Any:
    from toolkit.activations.matrix import read_space

    named = f"{space['space']} ({space['address']})"
    rows = activations.of(space["space"], samples, named)
    return read_space(rows, list(samples), space["width"], pool, named)


def halves_of_space(
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
        half_counts(high(matrix, cut), corpus.take(samples), words)
        for matrix, samples in ((select.matrix, halves[0]), (confirm, halves[1]))
    ]
    count = np.asarray(sides[0].high.sum(axis=0)).ravel()
    least = params.min_clusters
    tested = np.flatnonzero((count >= least) & (len(halves[0]) - count >= least))
    return SpaceHalves(id, select.features, tested, sides[0], sides[1])


def half_counts(high: Any, corpus: ReplyCorpus, words: Any) -> HalfCounts:
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


def tested_words(corpus: ReplyCorpus, samples: Sequence[str], least: int) -> np.ndarray[Any, Any]:
    """Words that enough clusters have and enough lack."""
    import numpy as np

    present = np.asarray(corpus.take(samples).present.sum(axis=0)).ravel()
    chosen: np.ndarray[Any, Any] = np.flatnonzero(
        (present >= least) & (len(samples) - present >= least)
    )
    return chosen
