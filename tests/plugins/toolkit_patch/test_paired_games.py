"""Games under patches are compared with their own pairs."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import binomtest

from tests.plugins.toolkit_patch.worlds import run, table
from toolkit.errors import DataError
from toolkit.testing.fakes import make_work
from toolkit_patch.games.section import findings


def game(number: int, outcome: str, arm: str | None = None) -> dict[str, Any]:
    base = f"c-r{number:04d}"
    return {
        "game": f"{arm} {number}" if arm else base,
        "condition": "c",
        "repetition": number,
        "outcome": outcome,
        "rounds": 3,
        "final_balance": 0.0,
        "total_bet": 30.0,
        "arm": arm,
        "null_arm": arm.startswith("random") if arm else None,
        "pair": base if arm else None,
        "meta": "{}",
    }


def games(*arms: str) -> list[dict[str, Any]]:
    """40 games, 10 of them ruined; the arm `held` ruins 12 more and saves 2, others none."""
    rows = [game(n, "bankruptcy" if n < 10 else "voluntary_stop") for n in range(40)]
    for arm in arms:
        for n in range(40):
            ruined = n < 10 if arm != "held" else 2 <= n < 22
            rows.append(game(n, "bankruptcy" if ruined else "voluntary_stop", arm))
    return rows


def compared(*arms: str) -> list[dict[str, Any]]:
    return run("patch.games", {}, {"games": table("games", games(*arms))})[
        "paired_games"
    ].to_pylist()


def test_pairs_that_end_differently_are_the_evidence():
    row = next(row for row in compared("held") if row["outcome"] == "bankruptcy")
    assert (row["unpatched"], row["patched"]) == (0.25, 0.5)
    assert (row["pairs"], row["changed"]) == (40, 14)
    assert row["difference"] == pytest.approx(0.25)
    assert row["low"] < 0.25 < row["high"]
    assert row["p"] == pytest.approx(binomtest(12, 14).pvalue)


def test_an_arm_is_ranked_among_those_of_the_null():
    rows = compared("held", "random_1", "random_2", "random_3")
    held_row = next(row for row in rows if (row["arm"], row["outcome"]) == ("held", "bankruptcy"))
    assert (held_row["null_arms"], held_row["beyond"], held_row["p_null"]) == (3, 0, 0.25)
    assert {row["p"] for row in rows if row["arm"].startswith("random")} == {1.0}
    work = make_work(None, {"paired_games": table("paired_games", rows)})
    sentence = next(iter(findings(work.inputs))).sentence
    assert sentence.startswith("Under held, 50.0% of 40 games end in bankruptcy, 25.0% of the same")


def test_games_without_a_pair_are_refused():
    with pytest.raises(DataError, match="Games with and without a patch are needed"):
        compared()
    alone = [row for row in games("held") if row["arm"]] + [game(99, "bankruptcy")]
    with pytest.raises(DataError, match="arm 'held': none of its games has a pair"):
        run("patch.games", {}, {"games": table("games", alone)})
