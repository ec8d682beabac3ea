"""Metadata as columns of numbers, and the small models that are fitted on them. Needs NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from toolkit.statistics.arrays import Bools, Floats, Ints

LEVELS, BINS = 30, 5
"""Most words of a key that get columns of their own (the most frequent in the training folds), and
the number of quantile bins of a key of numbers.
"""


@dataclass(frozen=True)
class Key:
    """The values of one key, one per sample; None where missing."""

    name: str
    values: Sequence[float | str | None]

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(not isinstance(value, str) for value in self.values)

    @property
    def constant(self) -> bool:
        """Whether all values are equal."""
        return len(set(self.values)) < 2


def read_keys(meta: Any, samples: Sequence[str], leave_out: Sequence[str]) -> list[Key]:
    """Every key of the samples, by name, except those in `leave_out`."""
    numbers = {name: index for index, name in enumerate(samples)}
    results: dict[str, list[float | str | None]] = {}
    for row in meta.to_pylist():
        if row["sample"] in numbers and row["key"] not in leave_out:
            values = results.setdefault(row["key"], [None] * len(samples))
            values[numbers[row["sample"]]] = (
                row["number"] if row["string"] is None else row["string"]
            )
    return [Key(name, results[name]) for name in sorted(results)]


def design(keys: Sequence[Key], train: Bools) -> Floats:
    """Columns for the keys, scaled and centred by the training samples; only words seen there get
    columns of their own.
    """
    columns = [
        column
        for key in keys
        for column in (_numbers(key, train) if key.numeric else _words(key, train))
    ]
    made = np.column_stack(columns) if columns else np.zeros((len(train), 0))
    mean, spread = made[train].mean(axis=0), made[train].std(axis=0)
    varying = spread > 0
    scaled: Floats = (made[:, varying] - mean[varying]) / spread[varying]
    return scaled


def _numbers(key: Key, train: Bools) -> list[Floats]:
    """The number itself, and indicators of its value or quantile bin among the training samples,
    since a label may depend on it non-linearly.
    """
    number = np.array([np.nan if value is None else float(value) for value in key.values])
    finite = np.isfinite(number)
    seen = number[train & finite]
    if not len(seen):
        return []
    filled = np.where(finite, number, seen.mean())
    if len(np.unique(seen)) <= LEVELS:
        parts = [(filled == value).astype(float) for value in np.unique(seen)]
    else:
        cuts = np.quantile(seen, np.arange(1, BINS) / BINS)
        parts = [(np.searchsorted(cuts, filled) == index).astype(float) for index in range(BINS)]
    return [filled, (~finite).astype(float), *parts]


def _words(key: Key, train: Bools) -> list[Floats]:
    words = np.array(["" if value is None else f"={value}" for value in key.values])
    names, counts = np.unique(words[train], return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")][:LEVELS]
    return [(words == name).astype(float) for name in frequent]


def logistic(x: Floats, positive: Bools, penalty: float = 1.0) -> Floats:
    """Weights of a ridge logistic regression, the intercept last and free. Newton's method, each
    step halved until the loss falls.
    """
    padded = np.column_stack([x, np.ones(len(x))])
    ridge = np.append(np.full(x.shape[1], penalty), 1e-9)
    weights = np.zeros(padded.shape[1])
    loss = _loss(padded, positive, weights, ridge)
    for _ in range(100):
        chance = expit(padded @ weights)
        slope = padded.T @ (chance - positive) + ridge * weights
        bend = (padded * (chance * (1 - chance))[:, None]).T @ padded + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while size > 1e-8 and _loss(padded, positive, weights - size * step, ridge) > loss:
            size /= 2
        weights = weights - size * step
        before, loss = loss, _loss(padded, positive, weights, ridge)
        if before - loss <= 1e-10 * (1 + abs(loss)):
            break
    return weights


def _loss(x: Floats, positive: Bools, weights: Floats, ridge: Floats) -> float:
    scores = x @ weights
    return float(
        np.logaddexp(0, np.where(positive, -scores, scores)).sum()
        + 0.5 * (ridge * weights**2).sum()
    )


def predicted(keys: Sequence[Key], positive: Bools, fold: Ints) -> Floats:
    """The held-out log-odds of each sample."""
    scores = np.empty(len(positive))
    for number in np.unique(fold):
        out = fold == number
        x = design(keys, ~out)
        weights = logistic(x[~out], positive[~out])
        scores[out] = x[out] @ weights[:-1] + weights[-1]
    return scores


def lengths(tokens: Sequence[int]) -> Key:
    """Prompt lengths: metadata that every sample has."""
    return Key("prompt length (tokens)", [float(count) for count in tokens])
