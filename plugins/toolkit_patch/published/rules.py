"""The published rules. Shares are (features,) for each condition: a context, and a patched value or
none.

`sign`: the first published rule, by signs alone. `chi_square`: the second, an uncorrected test of
one value against the other in either context. Both were applied to streams replaced by the SAE's
reconstruction, and the first compared them with streams that were not replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTEXTS = ("safe", "risky")
VALUES = ("none", "safe_value", "risky_value")
Shares = Mapping[tuple[str, str], Any]
"""(context, patched value) -> shares of the outcome, one per feature."""


def sign_rule(stop: Shares, proxy: Shares) -> Any:
    """`safe` where the safe value raises stopping in the safe prompt and lowers the proxy in the
    risky one, `risky` where the risky value does the reverse; by signs alone.
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
    """Features for which one value stops more often than the other in either prompt, by Yates'
    chi-square test, or Fisher's exact test where expected counts are below 1.
    """
    import numpy as np

    differs = np.zeros(len(stop["safe", "none"]), bool)
    for context in CONTEXTS:
        safe_shares, risky_shares = stop[context, "safe_value"], stop[context, "risky_value"]
        p = np.array(
            [
                two_shares(round(safe_share * trials), round(risky_share * trials), trials)
                for safe_share, risky_share in zip(
                    safe_shares.tolist(), risky_shares.tolist(), strict=True
                )
            ]
        )
        differs |= (p < alpha) & (abs(safe_shares - risky_shares) > min_delta)
    return differs


def two_shares(count_a: int, count_b: int, trials: int) -> float:
    """p of two counts with the same number of trials."""
    import numpy as np
    from scipy.stats import chi2_contingency, fisher_exact

    counts = np.array([[count_a, trials - count_a], [count_b, trials - count_b]])
    if count_a + count_b in (0, 2 * trials):
        return 1.0
    expected = min(count_a + count_b, 2 * trials - count_a - count_b) / 2
    if expected < 1:
        return float(fisher_exact(counts).pvalue)
    return float(chi2_contingency(counts, correction=True).pvalue)


def both_ways(stop: Shares) -> tuple[Any, Any]:
    """The mean change of stopping over both prompts: (by the safe value, by the risky value)."""
    import numpy as np

    means = [
        np.mean([stop[context, value] - stop[context, "none"] for context in CONTEXTS], axis=0)
        for value in VALUES[1:]
    ]
    return means[0], means[1]
