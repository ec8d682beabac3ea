"""Agreement of descriptions: stems, cosines and ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.features.agreement import agreement, polarity, ranked, stems, stems_of

BAGS = st.frozensets(st.sampled_from("abcdefgh"), max_size=6)


def test_stems_leave_out_what_says_nothing_and_cut_endings() -> None:
    assert stems("words related to risk-taking and Risky bets") == {"risk", "tak", "bet"}
    assert stems("mentions of the phrase") == frozenset()
    assert stems("  돈의 $100") == {"돈의", "100"}
    assert stems_of([" bets", " betting", "is"]) == {"bet"}
    assert stems("stops stopping stopped") == {"stop"}
    assert stems("falling falls") == stems("fall")
    assert stems("strategies") == stems("strategy")
    assert stems("1100 100") == {"1100", "100"}


@given(BAGS, BAGS)
def test_agreement_is_a_cosine(first: frozenset[str], second: frozenset[str]) -> None:
    result = agreement(first, second)
    assert 0 <= result <= 1 + 1e-12
    assert result == agreement(second, first)
    assert agreement(first, first) == (pytest.approx(1) if first else 0)


def test_a_rank_is_among_all_features() -> None:
    label = frozenset("ab")
    result = ranked(label, frozenset("ab"), [frozenset("cd")] * 8 + [frozenset("ab")])
    assert result.score == pytest.approx(1)
    assert result.baseline == pytest.approx(1 / 9)
    assert result.p == pytest.approx(2 / 10)
    assert ranked(label, frozenset("cd"), [label]).p == 1.0


def test_polarity_says_which_outcome_is_named() -> None:
    stop, bet = frozenset({"stop", "safe"}), frozenset({"bet", "risk"})
    assert polarity(frozenset({"stop", "money"}), stop, bet) == 1
    assert polarity(frozenset({"bet", "stop"}), stop, bet) == 0
    assert polarity(frozenset({"bet", "risk", "safe"}), stop, bet) == pytest.approx(-1 / 3)
    assert polarity(frozenset({"money"}), stop, bet) == 0
