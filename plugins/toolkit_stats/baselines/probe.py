"""The stage `compare.probe`: how well a linear probe and a difference of means on the raw stream
tell two groups apart, and the best single SAE feature. All cross-validated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.activations.kept_positions import Activations, AtKept, shown
from toolkit.models.streams import Text, distinct_texts, last_only
from toolkit.parts import UNHASHED
from toolkit.work import Rows, Work
from toolkit_stats.samples.labelled import Labelled, blocks, folds, two_groups
from toolkit_stats.samples.layers import HELP, Layers, hookpoints
from toolkit_stats.samples.params import Between

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from toolkit_stats.samples.stored_streams import StoredStreams

EVERY = "of all spaces"


class Probe(AtKept, Between):
    """Which groups and layers, and how it is validated."""

    layers: Layers = Field(
        "all", description=f"{HELP} kept: those whose stream a needed extraction kept."
    )
    folds: int = Field(
        5,
        ge=3,
        le=20,
        description="Number of folds of the cross-validation; units and equal prompts are never "
        "split over folds. At least three: one to score, one to choose the penalty, one to fit.",
    )
    pool: Literal["max", "mean"] = Field(
        "max",
        description="How a feature's values at several positions of a sample are pooled into one.",
    )
    tokens: int = Field(
        8192, ge=1, description="Padded tokens per forward pass.", json_schema_extra=UNHASHED
    )


def compare_probe(work: Work) -> Rows:
    """Rows of `baselines`: at each layer a difference of means and a linear probe; in each space,
    if any, the best feature.
    """
    data = two_groups(work)
    fold = folds(data, work.params.folds, work.rng("folds"))
    rows = [*_streams(work, data, fold)]
    if "activations" in work.inputs.tables():
        rows += _features(work, data, fold)
    yield "baselines", blocks(rows, "baselines")


def _row(
    data: Labelled,
    fold: npt.NDArray[np.int64],
    kind: str,
    name: str,
    scores: npt.NDArray[np.float64],
    text: str | None = None,
) -> dict[str, Any]:
    """One row: the AUROC of held-out scores."""
    from toolkit_stats.math.auroc import auroc

    estimate = auroc(scores, data.label == 0, fold, data.cluster)
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "chance": 0.5}
    return {
        "contrast": data.contrast,
        "kind": kind,
        "name": name,
        "metric": "auroc",
        **numbers,
        "folds": int(fold.max()) + 1,
        "groups": data.sizes(),
        "separates": None,
        "text": text,
    }


# --- the raw stream -------------------------------------------------------------------------------


def _streams(work: Work, data: Labelled, fold: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Both linear classifiers at every layer, from the stream that an extraction kept, or from one
    forward pass over the distinct texts.
    """
    import numpy as np

    from toolkit_stats.samples.stored_streams import StoredStreams

    compared = set(data.samples)
    samples = work.inputs.read("samples").select(["sample", "token_ids"]).to_pylist()
    texts = distinct_texts([row for row in samples if row["sample"] in compared], last_only)
    text_of = {sample: index for index, text in enumerate(texts) for sample in text.samples}
    row = np.array([text_of[sample] for sample in data.samples])
    with (
        _stored(StoredStreams(work), texts)
        if "streams" in work.inputs.tables()
        else _computed(work, texts) as (chosen, rows_at)
    ):
        work.report.phase("compute")
        for index, hookpoint in enumerate(chosen):
            work.report.progress(index, len(chosen))
            for kind, scores in _scores(
                rows_at(hookpoint).astype(np.float64), row, data, fold
            ).items():
                yield _row(data, fold, kind, hookpoint, scores)


RowsAt = tuple[Sequence[str], "Callable[[str], npt.NDArray[np.float32]]"]
"""Hookpoints, and a function that returns the rows of the texts at one of them."""


@contextmanager
def _stored(stored: StoredStreams, texts: Sequence[Text]) -> Iterator[RowsAt]:
    yield stored.hookpoints, lambda hookpoint: stored.rows(hookpoint, texts)


@contextmanager
def _computed(work: Work, texts: Sequence[Text]) -> Iterator[RowsAt]:
    from toolkit_stats.samples.raw_streams import last_rows

    places = hookpoints(work.params.layers, work.model.layers, work.model.identity.name)
    with last_rows(
        work.model,
        texts,
        places,
        work.params.tokens,
        lambda done: work.report.progress(done, len(texts)),
    ) as stream:
        yield places, lambda hookpoint: stream[places.index(hookpoint)]


def _scores(
    x: npt.NDArray[np.float64],
    row: npt.NDArray[np.int64],
    data: Labelled,
    fold: npt.NDArray[np.int64],
) -> dict[str, npt.NDArray[np.float64]]:
    """Held-out scores of both linear classifiers for each sample."""
    import numpy as np

    from toolkit_stats.math.linear import difference_of_means, probe

    positive, count = data.label == 0, int(fold.max()) + 1
    results = {kind: np.empty(len(row)) for kind in ("difference of means", "linear probe")}
    for number in range(count):
        out = fold == number
        inner = fold[~out] == (number + 1) % count
        means = difference_of_means(x, row[~out], positive[~out])
        ridge = probe(x, row[~out], positive[~out], inner, data.cluster[~out])
        results["difference of means"][out] = x[row[out]] @ means
        results["linear probe"][out] = x[row[out]] @ ridge
    return results


# --- the best feature -----------------------------------------------------------------------------


def _features(work: Work, data: Labelled, fold: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """In each space, and over all of them, the feature with the best AUROC in the other folds,
    scored on this one.
    """
    import numpy as np

    from toolkit.activations.matrix import read_space
    from toolkit_stats.math.auroc import column_aurocs

    activations = Activations(work.inputs, work.params.at)
    activations.check_looked(data.samples)
    spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    positive, count = data.label == 0, int(fold.max()) + 1
    best: list[tuple[float, str]] = [(-1.0, "")] * count
    best_scores = np.zeros(len(positive))
    for space, facts in sorted(spaces.items()):
        named = f"{space} ({facts['address']})"
        rows = activations.of(space, data.samples, named)
        fired = read_space(rows, data.samples, facts["width"], work.params.pool, named)
        if not len(fired.features):
            silent = np.zeros(len(positive))
            yield _row(data, fold, "best feature", facts["address"], silent, _how((), work))
            continue
        scores, names, columns = np.zeros(len(positive)), [], fired.matrix.tocsc()
        for number in range(count):
            out = fold == number
            areas = column_aurocs(fired.matrix[np.flatnonzero(~out)], positive[~out])
            index = int(np.argmax(np.abs(areas - 0.5)))
            sign, values = np.sign(areas[index] - 0.5), columns[:, [index]].toarray()[:, 0]
            scores[out] = sign * values[out]
            names.append(str(fired.features[index]))
            if abs(areas[index] - 0.5) > best[number][0]:
                best[number] = (
                    abs(areas[index] - 0.5),
                    f"{facts['address']}:{fired.features[index]}",
                )
                best_scores[out] = scores[out]
        yield _row(data, fold, "best feature", facts["address"], scores, _how(names, work))
    if spaces:
        names = [name for _, name in best if name]
        yield _row(data, fold, "best feature", EVERY, best_scores, _how(names, work))


def _how(names: Sequence[str], work: Work) -> str:
    """Which features were chosen, and at which positions, for people."""
    chosen = f"chosen in the other folds: {', '.join(names)}" if names else "no feature fired"
    return chosen if work.params.at is None else f"{chosen}; at {shown(work.params.at)}"
