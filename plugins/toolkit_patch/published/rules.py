"""The published rules. Shares are (features,) for each condition: a context, and a patched value or
none.

`sign`: the first published rule, by signs alone. `chi_square`: the second, a test of one value
against the other in either context, corrected for nothing. Both were applied to streams that had
been replaced by the SAE's reconstruction, and the first compared them with streams that had not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


CONTEXTS = ("safe", "risky")
VALUES = ("none", "safe_value", "risky_value")
Shares = Mapping[tuple[str, str], Any]
"""(context, patched value) -> shares of the outcome, one a feature."""


def sign_rule(stop: Shares, proxy: Shares) -> Any:
    """`safe` where the safe value raises stopping in the safe prompt and lowers the proxy in the
    risky one; `risky` where the risky value does the reverse; by signs.
    """
    import numpy as np

    safe = (stop["safe", "safe_value"] > stop["safe", "none"]) & (
        proxy["risky", "safe_value"] < proxy["risky", "none"]
    )
    risky = (stop["safe", "risky_value"] < stop["safe", "none"]) & (
        proxy["risky", "risky_value"] > proxy["risky", "none"]
    )
    return np.where(safe, "safe", np.where(risky, "risky", ""))


def chi_square_rule(stop: Shares, trials: int, alpha: float, min_delta: float) -> Any:
    """Where one value stops more often than the other in either prompt: Yates' chi-square, Fisher's
    exact test where it cannot be had.
    """
    import numpy as np

    hits = np.zeros(len(stop["safe", "none"]), bool)
    for context in CONTEXTS:
        first, second = stop[context, "safe_value"], stop[context, "risky_value"]
        p = np.array(
            [
                two_shares(round(a * trials), round(b * trials), trials)
                for a, b in zip(first.tolist(), second.tolist(), strict=True)
            ]
        )
        hits |= (p < alpha) & (abs(first - second) > min_delta)
    return hits


def two_shares(first: int, second: int, trials: int) -> float:
    """p of two counts out of as many trials each."""
    import numpy as np
    from scipy.stats import chi2_contingency, fisher_exact

    counts = np.array([[first, trials - first], [second, trials - second]])
    if first + second in (0, 2 * trials):
        return 1.0
    expected = min(first + second, 2 * trials - first - second) / 2
    if expected < 1:
        return float(fisher_exact(counts).pvalue)
    return float(chi2_contingency(counts, correction=True).pvalue)


def both_ways(stop: Shares) -> tuple[Any, Any]:
    """What either value does to stopping, over both prompts: (safe value, risky value)."""
    import numpy as np

    means = [
        np.mean([stop[context, value] - stop[context, "none"] for context in CONTEXTS], axis=0)
        for value in VALUES[1:]
    ]
    return means[0], means[1]
