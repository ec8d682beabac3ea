"""`toolkit play reparse`: which decisions another parser reads otherwise, where a game would have
gone another way, and what is known of its end from there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.toolkit.conftest import Toolkit, toolkit  # noqa: F401
from toolkit._cli._reparse import Judging, Rejudged, rejudge
from toolkit._cli.play import _judgings
from toolkit._plugins.loading import load_parts
from toolkit.errors import BadInput, DataError
from toolkit.samples.games import Environment, Option, Prompt, Reply, State, Turn, chance

OPTIONS = (Option("bet", "1", ("Bet",), 1.0, 5.0), Option("stop", "2", ("Stop",)))


class Coins(Environment):
    """Bets from a small balance; a bet is clipped to it."""

    outcomes = ("ruin", "left")
    max_rounds = 3

    def start(self, settings: Mapping[str, Any]) -> State:
        return {"balance": 4, "outcome": None}

    def prompt(self, state: State) -> Prompt:
        return Prompt(f"You have {state['balance']}.", options=OPTIONS)

    def step(self, state: State, reply: Reply, rng: np.random.Generator) -> Turn:
        if reply.action == "stop":
            return Turn({**state, "outcome": "left"})
        bet = min(int(reply.amount or 0), state["balance"])
        won = bool(rng.random() < 0.5)
        balance = state["balance"] + (bet if won else -bet)
        return Turn({"balance": balance, "outcome": None if balance else "ruin"}, float(bet), won)

    def outcome(self, state: State) -> str | None:
        ended: str | None = state["outcome"]
        return ended


READINGS = {
    "five": Reply("bet", 5.0),
    "four": Reply("bet", 4.0),
    "one": Reply("bet", 1.0),
    "stop": Reply("stop"),
    "hm": Reply(failure="no decision"),
}


def plain(text: str, prompt: Prompt) -> Reply:
    """Reads the last word."""
    return READINGS[text.split()[-1]]


def first_word(text: str, prompt: Prompt) -> Reply:
    """Reads the first word instead."""
    return READINGS[text.split()[0]]


def played(*replies: str, attempts: int = 1) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A game that answers so, as `plain` reads it, in the rows of a play stage."""
    game, state = Coins(), Coins().start({})
    rows: list[dict[str, Any]] = []
    number, attempt, outcome = 1, 1, ""
    for text in replies:
        verdict = plain(text, game.prompt(state))
        rows.append(
            {
                "game": "g",
                "round": number,
                "attempt": attempt,
                "state": json.dumps(state),
                "reply": text,
                "finish": "stop",
                "parse": verdict.failure or "ok",
                "action": verdict.action or "",
                "asked": verdict.amount,
            }
        )
        if verdict.failure:
            attempt += 1
            outcome = "invalid_reply" if attempt > attempts else ""
            continue
        state = game.step(state, verdict, chance(7, 0, number)).state
        outcome = game.outcome(state) or ("round_limit" if number >= game.max_rounds else "")
        number, attempt = number + 1, 1
    assert outcome, "the game is not over"
    return {"game": "g", "condition": "c", "repetition": 0, "outcome": outcome}, rows


def judged(
    *replies: str, parser: Callable[[str, Prompt], Reply] = first_word, attempts: int = 1
) -> tuple[Rejudged, str]:
    """The result, and the outcome by the new readings."""
    game, rows = played(*replies, attempts=attempts)
    result = rejudge(Judging(Coins(), parser, attempts, 7), [game], rows, Rejudged())
    (outcome,) = result.after["c"]
    return result, outcome


def test_the_parser_that_was_used_flips_nothing() -> None:
    result, outcome = judged("one", "stop one", "hm stop", parser=plain)
    assert (result.flips, result.replies) == ([], 3)
    assert result.before == result.after
    assert outcome == "left"


def test_a_decision_that_is_read_as_a_stop_ends_the_game_there() -> None:
    result, outcome = judged("one", "stop one", "one stop")
    assert outcome == "left"
    assert [(flip.round, flip.before, flip.after) for flip in result.turns] == [
        (2, "bet $1", "stop")
    ]
    assert [flip.round for flip in result.flips] == [2, 3]


def test_a_stop_that_is_read_as_a_bet_leaves_the_game_open() -> None:
    result, outcome = judged("one stop")
    assert outcome == "open"
    assert result.kinds == Counter({("stop", "bet"): 1})


def test_a_bet_that_would_have_ruined_the_game_is_known_to() -> None:
    """The luck of a round is the same whatever is bet: a lost bet of all the money is ruin."""
    lost = chance(7, 0, 1).random() >= 0.5
    result, outcome = judged("five one", "stop")
    assert outcome == ("ruin" if lost else "open")
    assert result.turns[0].after == "bet $5"


def test_a_bet_that_is_clipped_to_the_same_amount_changes_nothing_but_the_reading() -> None:
    """Asked for 5 or for 4 of 4: the next state is the very same."""
    result, outcome = judged("five four", *_rest())
    assert [flip.leads_elsewhere for flip in result.flips] == [False]
    assert outcome == next(iter(result.before["c"]))


def _rest() -> list[str]:
    """What follows a first bet of everything: nothing if it was lost."""
    lost = chance(7, 0, 1).random() >= 0.5
    return [] if lost else ["stop"]


def test_a_decision_that_cannot_be_read_ends_the_game_or_asks_again() -> None:
    assert judged("hm one", "stop")[1] == "invalid_reply"
    assert judged("hm one", "stop", attempts=2)[1] == "open"


def test_a_reply_that_could_not_be_read_and_now_can() -> None:
    assert judged("stop hm", "stop", attempts=2)[1] == "left"
    assert judged("stop hm", attempts=1)[1] == "left"
    assert judged("one hm", attempts=1)[1] == "open"


def test_an_attempt_that_is_now_read_as_what_the_next_one_decided_changes_nothing() -> None:
    result, outcome = judged("one hm", "one", "stop", attempts=2)
    assert [(flip.attempt, flip.leads_elsewhere) for flip in result.flips] == [(1, False)]
    assert outcome == "left"
    result, outcome = judged("stop hm", "stop", attempts=2)
    assert (outcome, result.turns) == ("left", [])
    assert judged("one hm", "stop", attempts=2)[1] == "open"


def test_later_attempts_of_a_round_that_is_decided_do_not_count() -> None:
    result, outcome = judged("one hm", "hm one", "stop", attempts=2)
    assert [flip.leads_elsewhere for flip in result.flips] == [False, False]
    assert outcome == "left"


def test_a_reply_is_read_with_the_reminder_that_its_prompt_had() -> None:
    """A parser may look at the prompt, as strict does to leave its quotations out."""
    seen = []

    def looks(text: str, prompt: Prompt) -> Reply:
        seen.append("Answer with one word." in prompt.text)
        return plain(text, prompt)

    game, rows = played("hm", "stop", attempts=2)
    judging = Judging(Coins(), looks, 2, 7, "Answer with one word.")
    assert rejudge(judging, [game], rows, Rejudged()).flips == []
    assert set(seen) == {False, True}


def test_a_parser_that_fails_is_told_with_its_place() -> None:
    def fails(text: str, prompt: Prompt) -> Reply:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(DataError, match="game g, round 1, attempt 1: the parser fails on 'stop'"):
        judged("stop", parser=fails)
    with pytest.raises(DataError, match="action 'fly', which the prompt does not offer"):
        judged("stop", parser=lambda text, prompt: Reply("fly"))


def stopped(*leaders: str, parser: Callable[[str, Prompt], Reply]) -> Counter[str]:
    """The outcomes of two leaders and two other games by the new readings."""
    games, rounds = [], []
    for repetition, reply in enumerate(leaders):
        game, rows = played(reply)
        name = f"g{repetition}"
        games.append({**game, "game": name, "repetition": repetition})
        rounds += [{**row, "game": name} for row in rows]
    storm = all(plain(reply, Prompt("")).failure for reply in leaders)
    for repetition in (2, 3):
        game, rows = played("stop")
        name = f"g{repetition}"
        games.append({**game, "game": name, "repetition": repetition})
        if storm:
            games[-1]["outcome"] = "not_played"
        else:
            rounds += [{**row, "game": name} for row in rows]
    judging = Judging(Coins(), parser, 1, 7, leaders=2)
    return rejudge(judging, games, rounds, Rejudged()).after["c"]


def test_whether_a_condition_is_stopped_follows_from_the_new_readings_of_its_leaders() -> None:
    assert stopped("hm", "hm", parser=plain) == {"invalid_reply": 2, "not_played": 2}
    assert stopped("stop hm", "hm", parser=first_word) == {
        "left": 1,
        "invalid_reply": 1,
        "open": 2,
    }
    assert stopped("hm stop", "hm stop", parser=first_word) == {
        "invalid_reply": 2,
        "not_played": 2,
    }


def test_the_round_limit_is_kept() -> None:
    result, outcome = judged("one", "one", "four one")
    assert next(iter(result.before["c"])) in ("round_limit", "ruin")
    assert outcome in ("round_limit", "ruin")


NEEDS_A_WORD = """
from pydantic import Field
from toolkit import hookimpl
from toolkit.parts import Params, ParserPart
from toolkit.samples.games import Reply

class Need(Params):
    word: str = Field(description="Without a default.")

@hookimpl
def toolkit_parts():
    yield ParserPart(
        name="word", help="x", params=Need, make=lambda p: lambda text, prompt: Reply("stop")
    )
"""


def test_parts_that_are_not_here_and_params_that_are_not_set_are_named(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch.py"
    scratch.write_text(NEEDS_A_WORD)
    parts = load_parts((scratch,))
    with pytest.raises(BadInput, match=r"parser 'word' has params without a default \(word\)"):
        list(_judgings(parts, [], "word"))
    material = json.dumps({"params": {"game": {"uses": "doors"}}, "seed": 1})
    step: Any = SimpleNamespace(stage="play", part="play.games", material=material)
    with pytest.raises(BadInput, match=r"no environment part 'doors'.*name it with --plugin FILE"):
        list(_judgings(parts, [step], "strict"))


@pytest.mark.slow
def test_a_stored_run_is_judged_again(toolkit: Toolkit, tmp_path: Path) -> None:  # noqa: F811
    spec = tmp_path / "games.yaml"
    spec.write_text(
        "version: 1\nname: games\n"
        'model: {uses: huggingface, with: {path: "package:toolkit_lab/files/model"}}\n'
        "stages:\n  - id: play\n    uses: play.games\n"
        "    with: {game: {uses: slot_machine, with: {components: [G], max_rounds: 4}}, reps: 6}\n"
    )
    assert toolkit.run("run", spec).returncode == 0
    same = toolkit.run("play", "reparse", "games", "--parser", "strict")
    assert same.returncode == 0, same.stderr
    assert same.stdout.startswith("strict: 0 of ")
    other = toolkit.run("play", "reparse", "games", "--parser", "study_v3", "--json")
    answer = json.loads(other.stdout)
    assert len(answer["flips"]) == answer["replies"] > 0
    for counts in answer["outcomes"].values():
        assert counts["after"] == {"invalid_reply": 6}
    wrong = toolkit.run("play", "reparse", "games", "--parser", "strickt")
    assert wrong.returncode == 2
    assert "Did you mean 'strict'" in wrong.stderr
    stage = toolkit.run("play", "reparse", "games", "--parser", "strict", "--stage", "paly")
    assert stage.returncode == 2
    assert "no play stage 'paly'. Did you mean 'play'?" in stage.stderr
