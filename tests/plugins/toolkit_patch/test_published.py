"""The published rules: what they call causal where nothing is, and what they need."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, fisher_exact

from tests.plugins.toolkit_patch.worlds import OUTCOMES, run, table
from toolkit.errors import DataError
from toolkit.statistics.randomness import generator
from toolkit_patch.published.rules import CONTEXTS, VALUES, chi_square_rule, sign_rule, two_shares


def shares(**settings: float):
    return {
        (context, value): np.array([settings.get(f"{context}_{value}", 0.5)])
        for context in CONTEXTS
        for value in VALUES
    }


def test_a_sign_is_enough_for_the_first_rule():
    stop = shares(safe_safe_value=0.51)
    assert sign_rule(stop, shares(risky_safe_value=0.49)).tolist() == ["safe"]
    assert sign_rule(stop, shares(risky_safe_value=0.51)).tolist() == [""]
    reverse = shares(safe_risky_value=0.49)
    assert sign_rule(reverse, shares(risky_risky_value=0.51)).tolist() == ["risky"]


def test_the_second_rule_needs_a_small_p_and_a_large_difference_in_either_prompt():
    assert chi_square_rule(shares(risky_safe_value=0.9), 30, 0.05, 0.1).tolist() == [True]
    assert chi_square_rule(shares(risky_safe_value=0.6), 30, 0.05, 0.1).tolist() == [False]
    assert chi_square_rule(shares(risky_safe_value=0.9), 30, 0.05, 0.5).tolist() == [False]


def test_two_shares_are_tested_as_published():
    expected = chi2_contingency([[20, 10], [9, 21]], correction=True).pvalue
    assert two_shares(20, 9, 30) == pytest.approx(expected)
    assert two_shares(1, 0, 30) == pytest.approx(fisher_exact([[1, 29], [0, 30]]).pvalue)
    assert two_shares(30, 30, 30) == 1.0


@pytest.mark.slow
def test_the_rules_find_much_where_nothing_is():
    rng, count = generator(0, "null"), 2000
    drawn = {
        name: {
            (context, value): rng.binomial(30, 0.4, count) / 30
            for context in CONTEXTS
            for value in VALUES
        }
        for name in ("stop", "proxy")
    }
    by_sign = (sign_rule(drawn["stop"], drawn["proxy"]) != "").mean()
    by_test = chi_square_rule(drawn["stop"], 30, 0.05, 0.1).mean()
    assert by_sign > 0.3
    assert 0.02 < by_test < 0.1


@pytest.fixture(scope="module")
def fixed(world):
    """A screen of two prompts with every row kept."""
    rows = world.tables["samples"].to_pylist()
    causes = {row["sample"]: row["string"] for row in world.tables["sample_meta"].to_pylist()}
    chosen = [next(row for row in rows if causes[row["sample"]] == side) for side in ("yes", "no")]
    meta = [
        {"sample": row["sample"], "key": "context", "number": None, "string": context}
        for row, context in zip(chosen, ("safe", "risky"), strict=True)
    ]
    tables = world.tables | {
        "samples": table("samples", chosen),
        "sample_meta": table("sample_meta", meta),
    }
    params = {
        "outcomes": OUTCOMES,
        "candidates": {"top": 12},
        "points": 2,
        "half": "all",
        "arms": ["reconstruct"],
        "keep": "all",
    }
    return tables | run("patch.delta", params, tables, world.model, world.saes)


def test_every_screened_feature_is_judged_by_every_rule(fixed):
    result = run("patch.published", {}, fixed)["features"].to_pylist()
    stats = {row["stat"] for row in result}
    assert {"published_sign_rule", "published_chi_square_rule", "published_specific"} <= stats
    assert len(result) == 12 * len(stats)
    assert run("patch.published", {}, fixed)["features"].to_pylist() == result


def test_without_every_row_it_says_how_to_screen(fixed):
    effects = fixed["effects"].to_pylist()
    few = [row for row in effects if not row["arm"].startswith("reconstruct:")]
    with pytest.raises(DataError, match=r"has no row of arm 'reconstruct:no'.*`keep: all`"):
        run("patch.published", {}, fixed | {"effects": table("effects", few)})


def test_both_prompts_are_needed(fixed):
    meta = [row for row in fixed["sample_meta"].to_pylist() if row["string"] == "safe"]
    with pytest.raises(DataError, match="one with risky are needed; there are safe"):
        run("patch.published", {}, fixed | {"sample_meta": table("sample_meta", meta)})
