"""Corrections for multiple tests.

Each takes the p-values of the features that fired and the size of the family; features of the
family that never fired count as p = 1 and are not passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolkit.statistics.arrays import Floats

LAMBDA = 0.5
"""Storey's q treats p-values above this as those of true nulls."""


def benjamini_hochberg(p: Floats, family: int) -> Floats:
    """The q-value of each p; valid when tests are independent or positively dependent."""
    return _step_up(p, p * family)


def q_values(p: Sequence[float | None]) -> list[float | None]:
    """The q of each p by Benjamini-Hochberg over the defined ones; None and NaN become None."""
    import numpy as np

    numbers = np.array(p, dtype=np.float64)
    defined = np.flatnonzero(np.isfinite(numbers))
    results: list[float | None] = [None] * len(p)
    q = benjamini_hochberg(numbers[defined], len(defined))
    q = np.maximum(q, numbers[defined])  # rounding may leave q just below p
    for index, value in zip(defined, q.tolist(), strict=True):
        results[index] = value
    return results


def benjamini_yekutieli(p: Floats, family: int) -> Floats:
    """The q-value of each p under any dependence; larger by a factor of about log(family)."""
    import numpy as np

    numbers = np.arange(1, family + 1)
    return _step_up(p, p * family * (1.0 / numbers).sum())


def storey(p: Floats, family: int) -> Floats:
    """Benjamini-Hochberg with the share of true nulls estimated from the large p-values, including
    those of features that never fired.
    """
    large = int((p > LAMBDA).sum()) + family - len(p)
    nulls = min((1 + large) / (1.0 - LAMBDA), family)
    return _step_up(p, p * nulls)


def bonferroni(p: Floats, family: int) -> Floats:
    """p times the family."""
    import numpy as np

    return np.minimum(p * family, 1.0)


def holm(p: Floats, family: int) -> Floats:
    """Bonferroni's bound applied step-down; never less powerful than Bonferroni."""
    import numpy as np

    order = np.argsort(p, kind="stable")
    q = np.empty_like(p)
    q[order] = np.minimum(np.maximum.accumulate(p[order] * (family - np.arange(len(p)))), 1.0)
    return q


def _step_up(p: Floats, scaled: Floats) -> Floats:
    import numpy as np

    order = np.argsort(p, kind="stable")
    q = np.empty_like(p)
    raw = scaled[order] / np.arange(1, len(p) + 1)
    q[order] = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1.0)
    return q


CORRECTIONS: Mapping[str, Callable[[Floats, int], Floats]] = {
    "bh": benjamini_hochberg,
    "by": benjamini_yekutieli,
    "storey": storey,
    "holm": holm,
    "bonferroni": bonferroni,
}
