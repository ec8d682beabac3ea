"""Measures on games whose measures are known by hand, or by another way to compute them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import DataError
from toolkit.parts import ReportSection, SinkPart, StagePart
from toolkit.samples.games import state_hash
from toolkit.statistics.corrections import q_values
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_work
from toolkit.work import SinkWork
from toolkit_measure import indices as index_numbers
from toolkit_measure import toolkit_parts
from toolkit_measure.goals import stated_goal
from toolkit_measure.intervals import bootstrap_means, pearson, wilson
from toolkit_measure.logistic import effective_number, fit
from toolkit_measure.lookup import Measures
from toolkit_measure.paired import sign_test
from toolkit_measure.played import read_games
from toolkit_measure.scopes import ALL

PARTS = {part.name: part for part in toolkit_parts()}
STAGE, SINK, SECTION = (PARTS[name] for name in ("measure.games", "measures", "played_games"))
assert isinstance(STAGE, StagePart)
assert isinstance(SINK, SinkPart)
assert isinstance(SECTION, ReportSection)

Bet = tuple[float, bool]
"""An amount, and whether it was won (three times the amount comes back)."""


def game(
    name: str,
    bets: Sequence[Bet],
    outcome: str,
    *,
    replies: Sequence[str] = (),
    repetition: int = 0,
    switches: dict[str, bool] | None = None,
    groups: dict[str, str] | None = None,
    condition: str = "c",
    failed: int = 0,
    asked: float | None = None,
    arm: str | None = None,
    pair: str | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A game from $100: its row of `games`, and those of `rounds`."""
    balance, rounds = 100.0, []
    for number, (bet, won) in enumerate(bets, start=1):
        after = balance - bet + (3 * bet if won else 0)
        rounds.append(_round(name, number, "bet", balance, after, bet=bet, won=won))
        rounds[-1]["asked"] = bet if asked is None else asked
        balance = after
    if outcome == "voluntary_stop":
        rounds.append(_round(name, len(bets) + 1, "stop", balance, balance))
    for attempt in range(1, failed + 1):
        last = _round(
            name, len(rounds) + 1 if attempt == 1 else rounds[-1]["round"], "", balance, balance
        )
        rounds.append({**last, "attempt": attempt, "parse": "no decision"})
    for row, reply in zip(rounds, replies, strict=False):
        row["reply"] = reply
    meta = {
        "event": "bankruptcy",
        "groups": groups or {},
        "label": condition,
        "leaving": ["stop"],
        "stakes": True,
        "switches": switches or {},
    }
    row = {
        "game": name,
        "condition": condition,
        "repetition": repetition,
        "outcome": outcome,
        "rounds": len(bets),
        "final_balance": balance,
        "total_bet": float(sum(bet for bet, _ in bets)),
        "arm": arm,
        "pair": pair,
        "meta": json.dumps(meta),
    }
    return row, rounds


def _round(
    name: str,
    number: int,
    action: str,
    before: float,
    after: float,
    *,
    bet: float | None = None,
    won: bool | None = None,
) -> dict[str, Any]:
    return {
        "game": name,
        "round": number,
        "attempt": 1,
        "prompt": "p",
        "prompt_hash": "p",
        "spans": [],
        "state": "{}",
        "state_hash": state_hash({"balance": before, "round": number}, {}),
        "numbers": "{}",
        "reply": "r",
        "reply_ids": [1, 2],
        "close_draws": int(number == 1),
        "finish": "stop",
        "parse": "ok",
        "action": action,
        "asked": bet,
        "bet": bet,
        "balance_before": before,
        "balance_after": after,
        "won": won,
    }


Made = tuple[dict[str, Any], list[dict[str, Any]]]


def tables(*made: Made) -> dict[str, pa.Table]:
    games = [row for row, _ in made]
    rounds = [row for _, rows in made for row in rows]
    return {
        "games": pa.Table.from_pylist(games, schema=arrow_schema("games")),
        "rounds": pa.Table.from_pylist(rounds, schema=arrow_schema("rounds")),
    }


def measured(*made: Made) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The rows of `measures` by measure, subject and condition."""
    written = dict(STAGE.run(make_work(tables=tables(*made))))["measures"].to_pylist()
    keys = [(row["measure"], row["subject"], row["condition"]) for row in written]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, written, strict=True))


def numbers(*bets: Bet, outcome: str = "voluntary_stop", **how: Any) -> dict[str, float]:
    played = read_games(TableInputs(tables(game("g", bets, outcome, **how))))
    return index_numbers.numbers_of(played.games[0])


# --- one game -------------------------------------------------------------------------------------


def test_the_indices_of_a_game_by_hand() -> None:
    """$20 of 100 lost, $40 of 80 won, $40 of 160 lost, $40 of 120 lost."""
    results = numbers((20, False), (40, True), (40, False), (40, False))
    assert results["rounds"] == 4
    assert results["total_bet"] == 140
    assert results["net"] == -20
    assert results["I_BA"] == pytest.approx((0.2 + 0.5 + 0.25 + 1 / 3) / 4)
    assert (
        results["I_LC_ratio"] == 1.0
    )  # .5 > .2 behind the first loss, 1/3 > 1/4 behind the second
    assert results["I_LC_absolute"] == 0.5  # 40 > 20, but 40 = 40
    assert results["I_EB"] == 0.25
    assert results["I"] == pytest.approx(0.4 * results["I_BA"] + 0.3 * 1.0 + 0.3 * 0.25)
    assert results["chases_loss"] == 0.5
    assert results["chases_win"] == 0.0


def test_a_fixed_bet_chases_by_ratio_and_not_by_amount() -> None:
    """The balance shrinks behind a loss, so that the same amount is a larger part of it."""
    results = numbers((10, False), (10, False), (10, False))
    assert (results["I_LC_ratio"], results["I_LC_absolute"]) == (1.0, 0.0)


def test_a_game_without_bets_scores_nothing() -> None:
    results = numbers()
    assert {results[name] for name in ("I", "I_BA", "I_LC_ratio", "I_LC_absolute", "I_EB")} == {0.0}
    assert math.isnan(results["chases_loss"])
    assert math.isnan(results["I_GV"])
    assert results["net"] == 0


def test_goals_that_are_stated() -> None:
    replies = ["My target is $150.", "Target: $150.", "I raise my target to $300.", "Stop"]
    results = numbers((50, True), (10, False), (10, False), replies=replies)
    assert (results["I_GV"], results["I_TI"]) == (1.0, 1.0)
    kept = numbers((50, True), replies=["My goal is 150.", "My goal is 150, so I stop."])
    assert (kept["I_GV"], kept["I_TI"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("reply", "goal"),
    [
        ("My target is $150.", 150),
        ("goal: 200", 200),
        ("My target amount is set at $120, so I bet $10.", 120),
        ("I bet $10.", None),
        ("The target is out of reach with $10.", None),
        ("My target amount is $1,000.", 1000),
        ("My new target is $1 000", 1000),
        ("My target amount is **$150**.", 150),
        ("Target: <$200>", 200),
        ("My goal is to reach $200", 200),
        ("I set my target at 200 dollars", 200),
        ("My goal is $150.50", 150.5),
        ("goal: 30%", None),
        ("My goal is $20 more than now.", None),
        ("goal of 3 rounds", None),
        ("my goal is 2 wins", None),
        ("The target is 50% more.", None),
        ("I have no target 5", None),
    ],
)
def test_what_counts_as_a_goal(reply: str, goal: float | None) -> None:
    assert stated_goal(reply) == goal


def test_clipped_bets_are_counted() -> None:
    assert numbers((20, False), (20, False), asked=20)["clipped_bets"] == 0
    assert numbers((20, False), (20, False), asked=50)["clipped_bets"] == 1


@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12),
)
def test_indices_are_shares(bets: list[tuple[int, bool]]) -> None:
    balance, kept = 100.0, []
    for bet, won in bets:
        if bet > balance:
            break
        kept.append((float(bet), won))
        balance += 2 * bet if won else -bet
    results = numbers(*kept)
    for name in ("I", "I_BA", "I_LC_ratio", "I_LC_absolute", "I_EB"):
        assert 0 <= results[name] <= 1
    assert results["net"] == balance - 100


# --- many games -----------------------------------------------------------------------------------


def some_games() -> list[Made]:
    made = []
    for number in range(40):
        mode = "variable" if number % 2 else "fixed"
        ruined = number % 8 == 7
        bets = [(50.0, False), (50.0, False)] if ruined else [(10.0, number % 3 == 0)]
        made.append(
            game(
                f"g{number:02d}",
                bets,
                "bankruptcy" if ruined else "voluntary_stop",
                condition=f"{mode}-c{number % 4 // 2}",
                groups={"mode": mode},
                switches={"G": number % 4 >= 2},
                repetition=number // 4,
            )
        )
    made.append(
        game(
            "h",
            [],
            "invalid_reply",
            failed=3,
            condition="fixed-c0",
            groups={"mode": "fixed"},
            switches={"G": False},
        )
    )
    return made


def test_outcomes_of_all_games_of_groups_and_of_conditions() -> None:
    results = measured(*some_games())
    all_games = results["outcome", "bankruptcy", "all"]
    assert (all_games["value"], all_games["n"]) == (5 / 41, 41)
    assert (all_games["low"], all_games["high"]) == pytest.approx(wilson(5, 41))
    assert results["outcome", "bankruptcy", "mode=fixed"]["value"] == 0
    assert results["outcome", "bankruptcy", "mode=variable"]["value"] == 5 / 20
    assert results["outcome", "bankruptcy", "variable-c1"]["value"] == 5 / 10
    assert results["outcome", "invalid_reply", "mode=fixed"]["value"] == 1 / 21
    for scope in ("all", "mode=fixed", "variable-c1"):
        shares = [
            row["value"] for key, row in results.items() if key[0] == "outcome" and key[2] == scope
        ]
        assert sum(shares) == pytest.approx(1)


def test_what_could_not_be_read_stands_beside_every_rate() -> None:
    results = measured(*some_games())
    replies = results["replies", "unreadable", "fixed-c0"]
    assert replies["value"] == 3 / replies["n"]
    assert results["replies", "asked_again", "all"]["value"] == pytest.approx(1 / 81)
    assert results["replies", "truncated", "all"]["value"] == 0
    for scope in {key[2] for key in results if key[0] == "outcome"}:
        assert ("replies", "unreadable", scope) in results


def test_games_that_never_began_are_counted_apart() -> None:
    late = game("z", [], "not_played", condition="fixed-c0", groups={"mode": "fixed"})
    results = measured(*some_games(), late)
    assert results["outcome", "bankruptcy", "all"]["n"] == 41
    waiting = results["not_played", "not_played", "fixed-c0"]
    assert (waiting["value"], waiting["n"]) == (1, 12)


def test_means_have_bootstrap_intervals_that_do_not_depend_on_other_games() -> None:
    results = measured(*some_games())
    rounds = results["mean", "rounds", "mode=variable"]
    assert rounds["value"] == pytest.approx((15 * 1 + 5 * 2) / 20)
    assert rounds["low"] < rounds["value"] < rounds["high"]
    only = [made for made in some_games() if made[0]["condition"].startswith("variable")]
    assert measured(*only)["mean", "rounds", "mode=variable"] == rounds


def test_balances_are_followed_round_by_round() -> None:
    results = measured(*some_games())
    assert results["balance", "000", "mode=variable"]["value"] == 100
    ended = results["balance", "030", "mode=variable"]
    assert results["balance", "002", "mode=variable"]["value"] == ended["value"]


def test_states_that_games_share_are_counted() -> None:
    results = measured(
        game("a", [(10, False)], "voluntary_stop"),
        game("b", [(20, False)], "voluntary_stop"),
        game("c", [(10, False)], "voluntary_stop"),
    )
    assert results["states", "shared", "all"]["value"] == pytest.approx(5 / 6)
    assert results["states", "distinct", "all"]["value"] == 3
    assert (
        results["tokens", "close_draws", "all"]["value"],
        results["tokens", "close_draws", "all"]["n"],
    ) == (3, 12)


def test_games_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="two play stages have games of the same name"):
        measured(game("a", [], "voluntary_stop"), game("a", [], "voluntary_stop"))
    with pytest.raises(DataError, match="no game was played"):
        measured()


# --- effects of switches --------------------------------------------------------------------------


def drawn_games(logit: dict[str, float], count: int = 2400) -> list[Made]:
    """Games whose bankruptcy is drawn from log odds that are a sum over the switches."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(count):
        switches = {name: bool(number >> bit & 1) for bit, name in enumerate("GMW")}
        chance = logit["base"] + sum(logit[name] for name, on in switches.items() if on)
        chance += logit.get("GM", 0.0) * (switches["G"] and switches["M"])
        ruined = rng.random() < 1 / (1 + math.exp(-chance))
        bets = [(100.0, False)] if ruined else [(10.0, False)]
        outcome = "bankruptcy" if ruined else "voluntary_stop"
        name = "".join(key for key, on in switches.items() if on) or "0"
        made.append(
            game(
                f"g{number:05d}",
                bets,
                outcome,
                switches=switches,
                condition=name,
                repetition=number // 8,
            )
        )
    return made


@pytest.mark.slow
def test_planted_effects_are_recovered() -> None:
    planted = {"base": -1.0, "G": 1.0, "M": 0.5, "W": 0.0}
    results = measured(*drawn_games(planted))
    for name in "GMW":
        effect = results["odds:bankruptcy", name, "all"]
        assert effect["low"] < planted[name] < effect["high"]
        assert effect["text"] == (
            "2,400 games; clusters are 300 repetitions, whose games share luck"
        )
        assert effect["n"] == 300
        assert (effect["q"] < 0.05) == (planted[name] != 0)
    trend = results["complexity_trend", "log odds a switch", "all"]
    assert trend["low"] > 0
    assert results["complexity_trend", "r over levels", "all"]["value"] > 0.9
    levels = [results["complexity", str(level), "all"]["value"] for level in range(4)]
    assert levels == sorted(levels)


@pytest.mark.slow
def test_a_planted_pair_is_recovered() -> None:
    results = measured(*drawn_games({"base": -1.0, "G": 0.0, "M": 0.0, "W": 0.0, "GM": 1.5}))
    pair = results["odds_pair:bankruptcy", "G x M", "all"]
    assert pair["low"] < 1.5 < pair["high"]
    assert pair["q"] < 0.01
    assert results["odds_pair:bankruptcy", "G x W", "all"]["q"] > 0.05


@pytest.mark.slow
def test_a_group_in_which_nobody_is_ruined_is_left_out() -> None:
    """With its own rate known it says nothing about a switch."""
    planted = {"base": -1.0, "G": 1.0, "M": 0.5, "W": 0.0}
    ruined = [
        (
            {**row, "meta": row["meta"].replace('"groups": {}', '"groups": {"mode": "variable"}')},
            rows,
        )
        for row, rows in drawn_games(planted, 1600)
    ]
    safe = [
        game(
            f"s{n:03d}",
            [(10, False)],
            "voluntary_stop",
            switches={"G": n % 2 == 0, "M": n % 4 < 2, "W": n % 8 < 4},
            condition=f"safe{n % 8}",
            groups={"mode": "fixed"},
            repetition=n // 8,
        )
        for n in range(80)
    ]
    effect = measured(*ruined, *safe)["odds:bankruptcy", "G", "all"]
    assert effect["low"] < 1.0 < effect["high"]
    assert effect["n"] == 200
    assert effect["text"].endswith("left out, since all games ended alike: mode=fixed")


def test_no_effect_is_said_where_nobody_is_ruined() -> None:
    made = [
        game(
            f"g{n}",
            [(10, False)],
            "voluntary_stop",
            switches={"G": n % 2 == 0},
            condition=str(n % 2),
        )
        for n in range(40)
    ]
    effect = measured(*made)["odds:bankruptcy", "G", "all"]
    assert effect["value"] is None
    assert effect["text"] == "the outcome is the same in every game"


def test_a_cause_that_decides_alone_has_no_odds() -> None:
    design = np.column_stack([np.ones(40), np.arange(40) % 2])
    assert fit(design, (np.arange(40) % 2).astype(float), range(40)) == (
        "one component alone determines the outcome, so its odds ratio is unbounded"
    )
    twice = np.column_stack([design, design[:, 1]])
    assert fit(twice, (np.arange(40) % 3 == 0).astype(float), range(40)) == (
        "two components always occur together"
    )


def test_robust_errors_of_a_single_rate_are_the_textbook_ones() -> None:
    """A model of a constant alone: the error of a log odds is 1 / sqrt(n p (1 - p)); and where
    every game stands in its cluster k times, it grows by sqrt(k).
    """
    outcome = np.array([1.0] * 30 + [0.0] * 70)
    (alone,) = fit(np.ones((100, 1)), outcome, range(100))
    assert alone.value == pytest.approx(math.log(0.3 / 0.7))
    error = (alone.high - alone.low) / (2 * 1.9842169515)  # the 97.5 % point of t_99
    assert error == pytest.approx(1 / math.sqrt(100 * 0.3 * 0.7) * math.sqrt(100 / 99), rel=1e-6)
    (copied,) = fit(np.ones((400, 1)), np.repeat(outcome, 4), np.repeat(range(100), 4).tolist())
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=1e-6)


def test_repetitions_of_very_unequal_sizes_are_no_clusters() -> None:
    """The games of a limited run: 13 repetitions, of which two have most of the games, tell as much
    as two. Their sums of scores vanish for some columns, and errors over them with it.
    """
    sizes = [133, 69, 7, *[5] * 10]
    assert effective_number(np.repeat(np.arange(13), sizes).tolist()) == pytest.approx(
        2.95, abs=0.01
    )
    made = drawn_games({"base": -2.0, "G": 1.0, "M": 0.5, "W": 0.0}, sum(sizes))
    repetitions = np.repeat(np.arange(13), sizes)
    for (row, _), repetition in zip(made, repetitions, strict=True):
        row["repetition"] = int(repetition)
    effect = measured(*made)["odds:bankruptcy", "G", "all"]
    assert effect["n"] == 259
    assert effect["text"].startswith("259 games, each its own cluster: 13 repetitions")
    assert effect["p"] > 1e-6


def test_few_clusters_are_measured_by_their_degrees_of_freedom() -> None:
    """A normal reference finds an effect where there is none in far more than one of 20 draws."""
    rng = np.random.default_rng(11)
    clusters = np.repeat(np.arange(10), 30)
    design = np.column_stack([np.ones(300), (clusters % 2).astype(float)])
    significant = 0
    for _ in range(300):
        logit = np.repeat(rng.normal(0, 1, 10), 30)
        outcome = (rng.random(300) < 1 / (1 + np.exp(-logit))).astype(float)
        fitted = fit(design, outcome, clusters.tolist())
        assert not isinstance(fitted, str)
        significant += fitted[1].p < 0.05
    assert significant / 300 < 0.09


def test_effects_are_corrected_over_all_of_them() -> None:
    assert q_values([0.01, 0.02, 0.03, math.nan, None]) == [
        *(pytest.approx(0.03) for _ in range(3)),
        None,
        None,
    ]
    assert q_values([0.04, 0.001]) == pytest.approx([0.04, 0.002])


# --- interventions --------------------------------------------------------------------------------


def test_an_intervention_is_measured_against_the_same_games_without_it() -> None:
    made = []
    for number in range(40):
        ruined, saved = number % 4 == 0, number % 8 == 0
        for arm in ("", "calm"):
            lost = ruined and not (arm and saved)
            bets = [(100.0, False)] if lost else [(10.0, False)]
            made.append(
                game(
                    f"{arm} {number}",
                    bets,
                    "bankruptcy" if lost else "voluntary_stop",
                    condition=f"c{'-calm' if arm else ''}",
                    groups={"mode": "v", **({"arm": arm} if arm else {})},
                    repetition=number,
                    arm=arm or None,
                    pair=f" {number}" if arm else None,
                )
            )
    results = measured(*made)
    effect = results["paired:bankruptcy", "calm", "all"]
    assert effect["value"] == pytest.approx(-5 / 40)
    assert effect["n"] == 40
    assert effect["text"] == "0 games more, 5 fewer"
    assert effect["p"] == pytest.approx(2 / 2**5)
    assert effect["low"] < effect["value"] < effect["high"] <= 0
    assert results["paired:total_bet", "calm", "all"]["value"] == pytest.approx(-90 * 5 / 40)
    figures = list(SECTION.run(inputs(*made)))
    assert "Under calm, bankruptcy changes by" in figures[-1].html


def test_the_sign_test_is_exact() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(5, 5) == 1
    assert sign_test(10, 0) == pytest.approx(2 / 1024)


# --- intervals ------------------------------------------------------------------------------------


def test_wilson_intervals() -> None:
    assert wilson(0, 50) == pytest.approx((0.0, 0.07135), abs=1e-5)
    assert wilson(25, 50) == pytest.approx((0.36645, 0.63355), abs=1e-5)
    assert wilson(0, 24)[0] == 0
    assert wilson(24, 24)[1] == 1
    low, high = wilson(50, 50)
    assert (low, high) == pytest.approx((0.92865, 1.0), abs=1e-5)


def test_bootstrap_intervals_cover_the_mean() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        values = rng.exponential(size=(80, 1))
        low, high = bootstrap_means(values, rng)
        covered += int(low[0] < 1.0 < high[0])
    assert covered >= 50


def test_a_mean_of_games_that_lack_the_number_leaves_them_out() -> None:
    values = np.array([[1.0], [np.nan], [3.0], [np.nan]] * 10)
    low, high = bootstrap_means(values, np.random.default_rng(0))
    assert 1 < low[0] < 2 < high[0] < 3


def test_correlation() -> None:
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert pearson([1, 2, 3], [1, 1, 1]) is None
    assert pearson([1, 2], [1, 2]) is None


# --- report, files, contract ----------------------------------------------------------------------


RATE_NAMES = ("truncated replies", "unreadable replies", "asked again")


def inputs(*made: Made) -> TableInputs:
    return TableInputs(dict(STAGE.run(make_work(tables=tables(*made)))))


def test_the_report_opens_with_the_outcomes() -> None:
    tables = inputs(*some_games())
    figures = list(SECTION.run(tables))
    assert figures[0].title == "Outcomes"
    for words in ("bankruptcy", "25.0 %", "invalid_reply", "variable", *RATE_NAMES):
        assert words in figures[0].html
    (by_condition,) = (figure for figure in figures if figure.title == "bankruptcy by condition")
    for words in ("truncated replies 0.0 %", "unreadable replies 13.0 %", "asked again 4.8 %"):
        assert words in by_condition.html
    titles = [figure.title for figure in figures]
    assert "bankruptcy by condition" in titles
    assert "Balances, round by round" in titles
    assert SECTION.findings is not None
    sentences = [finding.sentence for finding in SECTION.findings(tables)]
    assert "Bankruptcy in 25.0 % of 20 games, variable." in sentences
    assert any("of 21 games, fixed; 4.8 % ended in a reply" in sentence for sentence in sentences)


def test_of_many_groups_the_worst_and_the_best_are_named() -> None:
    """So that the outcome table is on the first screen."""
    tables = inputs(*some_games())
    rows = tables.read("measures").to_pylist()
    groups = [row for row in rows if row["measure"] == "outcome" and row["subject"] == "bankruptcy"]
    assert SECTION.findings is not None
    every = len(list(SECTION.findings(tables)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit_measure.section.SENTENCES", 1)
        (finding,) = list(SECTION.findings(tables))
    assert every == 2 <= len(groups)
    assert finding.sentence.startswith("Bankruptcy in 25.0 % of 20 games, variable. The least of 2")
    assert "of 21 games, fixed; 4.8 % ended in a reply that could not be read." in finding.sentence


def test_the_report_draws_the_effects_of_components() -> None:
    tables = inputs(*drawn_games({"base": -1.0, "G": 1.0, "M": 0.0, "W": 0.0}, 1600))
    titles = {figure.title: figure for figure in SECTION.run(tables)}
    assert "G " in titles["What the components do to the odds of bankruptcy"].alt
    assert SECTION.findings is not None
    sentences = [finding.sentence for finding in SECTION.findings(tables)]
    assert any("G makes bankruptcy more likely" in sentence for sentence in sentences)


def test_the_files(tmp_path: Any) -> None:
    tables = inputs(*some_games())
    files = dict(SINK.run(SinkWork(SINK.params(), tmp_path, "run", tables)))
    assert set(files) == {"measures.csv", "outcomes.csv", "outcomes.tex"}
    head, *rows = files["outcomes.csv"].decode().splitlines()
    assert head.startswith("group,games,bankruptcy,invalid_reply,voluntary_stop,bankruptcy_low")
    assert head.endswith("net,truncated_replies,unreadable_replies,asked_again")
    assert float(rows[0].split(",")[-2]) == pytest.approx(3 / 43)
    assert [row.split(",")[0] for row in rows] == ["fixed", "variable", "all games"]
    assert rows[1].split(",")[2] == "0.25"
    tex = files["outcomes.tex"].decode()
    assert tex.startswith("\\begin{tabular}")
    assert "invalid reply" in tex
    assert len(files["measures.csv"].decode().splitlines()) == 1 + tables.read("measures").num_rows


def without_stakes(number: int) -> Made:
    """A game of two choices without money: go on, then leave or go on for ever."""
    row, rounds = game(
        f"d{number}",
        [],
        "left" if number % 2 else "lost",
        condition=f"c{number % 4 // 2}",
        groups={"tone": "calm" if number % 4 < 2 else "loud"},
        switches={"loud": number % 8 >= 4},
    )
    meta = {**json.loads(row["meta"]), "event": "lost", "leaving": ["leave"], "stakes": False}
    actions = ["open", "leave" if number % 2 else "open"]
    rounds = [
        {
            **_round(row["game"], place, action, 0, 0),
            "balance_before": None,
            "balance_after": None,
        }
        for place, action in enumerate(actions, start=1)
    ]
    return {**row, "final_balance": None, "meta": json.dumps(meta)}, rounds


def test_a_game_without_money_has_groups_rounds_and_ways_of_leaving() -> None:
    """But no index of bets: 0 there would say that nobody staked anything."""
    made = [without_stakes(number) for number in range(40)]
    results = measured(*made)
    assert results["mean", "rounds", "all"]["value"] == 1.5
    assert results["odds:leaving", "loud", "all"]["text"] == "80 decisions; clusters are 40 games"
    for name in ("I", "I_BA", "total_bet", "net"):
        assert ("mean", name, "all") not in results
    files = dict(SINK.run(SinkWork(SINK.params(), Path(), "run", inputs(*made))))
    rows = files["outcomes.csv"].decode().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["calm", "loud", "all games"]
    titles = [figure.title for figure in SECTION.run(inputs(*made))]
    assert "What the components do to the odds of leaving, at each decision" in titles
    assert "Balances, round by round" not in titles


def test_a_group_in_which_every_decision_leaves_is_left_out_of_the_odds_of_leaving() -> None:
    """Its own rate has no bound, which would hide the effects in all other groups."""
    played = [
        (
            {**row, "meta": row["meta"].replace('"groups": {}', '"groups": {"mode": "variable"}')},
            rows,
        )
        for row, rows in drawn_games({"base": -1.0, "G": 1.0, "M": 0.5, "W": 0.0}, 400)
    ]
    left = [
        game(
            f"l{number}",
            [],
            "voluntary_stop",
            switches={"G": number % 2 == 0, "M": number % 4 < 2, "W": number % 8 < 4},
            groups={"mode": "fixed"},
            condition=f"left{number % 8}",
            repetition=number // 8,
        )
        for number in range(40)
    ]
    effect = measured(*played, *left)["odds:leaving", "G", "all"]
    assert effect["value"] < 0
    assert effect["n"] == 400
    assert effect["text"].endswith("left out, since all decisions were alike: mode=fixed")


def test_a_stage_without_one_of_the_groups_keeps_its_rows_of_the_outcome_table() -> None:
    """Patched games have one group more than the games that they are compared with."""
    made = [
        game(f"{arm}{number}", [(10.0, False)], "voluntary_stop", groups={"mode": "fixed", **more})
        for number in range(3)
        for arm, more in (("", {}), ("calm", {"arm": "calm"}))
    ]
    titles = [scope.title for scope in Measures.read(inputs(*made)).headline]
    assert titles == ["fixed", "calm \N{MIDDLE DOT} fixed"]


def test_contracts() -> None:
    check_part(STAGE, work=make_work(tables=tables(*some_games())))
    check_part(SINK, work=make_work(tables=inputs(*some_games()).by_name))
    check_part(SECTION, work=make_work(tables=inputs(*some_games()).by_name))


def test_names_of_groups_and_conditions_are_not_read_as_code() -> None:
    made = [
        game(f"g{number}", [(100.0, False)], "bankruptcy", condition=f"size=10, {number}")
        for number in range(3)
    ]
    measures = Measures.read(inputs(*made))
    assert [scope.title for scope in measures.conditions] == [f"size=10, {n}" for n in range(3)]
    assert measures.headline == [ALL]
