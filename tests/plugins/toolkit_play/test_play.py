"""`play.games` and the source `games`, with a model that answers from a table: transcripts,
randomness, records, samples.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from toolkit._plugins.loading import load_parts
from toolkit.errors import DataError
from toolkit.identity import Identity
from toolkit.models import Encoded, Model
from toolkit.models.sessions import Generated, Session
from toolkit.parts import SourcePart, StagePart
from toolkit.samples.games import Option, Prompt, Reply, judge
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter, TableInputs, make_work
from toolkit.work import Work

PARTS = load_parts()
PLAY, GAMES = PARTS.get("stage", "play.games"), PARTS.get("source", "games")
assert isinstance(PLAY, StagePart)
assert isinstance(GAMES, SourcePart)

BOS, HEADER, FOOTER = "<s>", "[user]", "[bot]"
LADDER = {f"1) Bet ${bet}\n": 0.2 for bet in (5, 10, 50, 100)} | {
    "2) Stop\n": 0.1,
    "hm\n": 0.06,
    "1) Bet $1": 0.04,
}
UNSURE = {"1) Bet $10\n": 0.8, "2) Stop\n": 0.1, "hm\n": 0.06, "1) Bet $1": 0.04}
CAREFUL = {"1) Bet $10\n": 0.9, "2) Stop\n": 0.1}
CORRECTED = {f"Why not.\nFinal Decision: Bet ${bet}": 0.3 for bet in (5, 20, 60)} | {
    "Enough.\nFinal Decision: Stop": 0.1
}

Policy = Callable[[str], Mapping[str, float]]


class Talker(Model):
    """Answers a prompt with one of a few replies; the policy gives their chances. A character is a
    token, BOS is token 1. `slots`: how many replies are under way at a time; `backwards`: the last
    to join answers first.
    """

    identity = Identity(name="talker", revision="1", digest="1")
    layers, width, context = 1, 4, 2000

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        trims: bool = False,
        slots: int = 1000,
        backwards: bool = False,
    ) -> None:
        self.policy = policy or (lambda prompt: LADDER if "choose $" in prompt else UNSURE)
        self.trims, self.slots, self.backwards = trims, slots, backwards
        self.asked: list[dict[str, Any]] = []

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        shown = BOS + HEADER + (text.rstrip() if self.trims else text) + FOOTER if chat else text
        begins = len(BOS) if shown.startswith(BOS) else 0
        offsets = [(0, begins), *((index, index + 1) for index in range(begins, len(shown)))]
        ids = (1, *(10 + ord(character) for character in shown[begins:]))
        return Encoded(shown, ids, tuple(offsets), len(BOS + HEADER) if chat else 0)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(number - 10) for number in ids if number > 1)

    def run(self, batch: Any, capture: Any, edits: Any = ()) -> Any:
        raise NotImplementedError

    def unembed(self, states: Any) -> Any:
        raise NotImplementedError

    def session(self, budget: int | None = None) -> Session:
        return Talk(self, budget)


class Talk(Session):
    """The replies of a talker, a few at a time."""

    model: Talker

    def run(self) -> Iterator[Generated]:
        while self._waiting:
            joined = [
                self._waiting.popleft() for _ in range(min(self.model.slots, len(self._waiting)))
            ]
            for request in reversed(joined) if self.model.backwards else joined:
                how = {
                    "tokens": request.max_tokens,
                    "least": request.min_tokens,
                    "until": request.until,
                    "temperature": request.temperature,
                }
                self.model.asked.append(how)
                yield self._reply(request)

    def _reply(self, request: Any) -> Generated:
        chances = self.model.policy(self.model.decode(request.ids))
        summed = np.cumsum(list(chances.values()))
        place = int(np.searchsorted(summed, request.draw(0) * summed[-1], side="right"))
        text = list(chances)[place]
        is_cut = text == "1) Bet $1" or text.isspace()
        finish = "until" if text.endswith("\n") else "length" if is_cut else "stop"
        ids = tuple(10 + ord(character) for character in text)
        return Generated(ids, text, finish, int(request.draw(1) < 0.01), request.id)


def params(**settings: Any) -> Any:
    """Params of the stage; what does not belong to it belongs to the slot machine."""
    stage_params = {
        name: settings.pop(name) for name in list(settings) if name in PLAY.params.model_fields
    }
    game = stage_params.pop("game", {"uses": "slot_machine", "with": settings})
    return PLAY.params.model_validate({"game": game, **stage_params}, context={"parts": PARTS})


def play(
    model: Model | None = None,
    *,
    units: tuple[int, int] | None = None,
    seed: int = 0,
    report: SilentReporter | None = None,
    **settings: Any,
) -> dict[str, pa.Table]:
    work = make_work(params(**settings), seed=seed, model=model or Talker())
    work = replace(work, units=units, report=report or work.report)
    return dict(PLAY.run(work))


def rows(tables: Mapping[str, pa.Table], name: str) -> list[dict[str, Any]]:
    """The rows of a table in the order of its key."""
    read: list[dict[str, Any]] = tables[name].to_pylist()
    if name not in ("games", "rounds"):
        return read
    return sorted(read, key=lambda row: (row["game"], row.get("round", 0), row.get("attempt", 0)))


def by_game(tables: Mapping[str, pa.Table]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(tables, "rounds"):
        grouped[row["game"]].append(row)
    return grouped


# --- params ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "greater than 0"),
        ({"reps": 0}, "greater than or equal to 1"),
        (
            {"layout": "corrected", "max_new_tokens": 10},
            "max_new_tokens is 10; the shortest reply that the prompts of slot_machine ask for "
            "takes 24: 'The balance is high enough, so one more bet is worth it.\\nFinal Decision: "
            "Bet $100'. Raise it to at least that",
        ),
        ({"min_new_tokens": 40}, "min_new_tokens is 40, above max_new_tokens 32; lower it"),
        (
            {"parser": {"uses": "study_exp1"}, "reask": {"max": 2}},
            "reask: parser study_exp1 reads every reply as a decision",
        ),
        ({"parser": {"uses": "strickt"}}, "no parser part 'strickt'. Did you mean 'strict'"),
        (
            {"game": {"uses": "slot_machin"}},
            "no environment part 'slot_machin'. Did you mean 'slot_machine'",
        ),
        ({"components": ["GX"]}, "components 'GX': 'X' is not one of them"),
        (
            {"game": {"uses": "reward_choice", "with": {"orders": ["rising", "rising"]}}},
            "an order is named twice",
        ),
        (
            {"game": {"uses": "reward_choice", "with": {"orders": ["sideways"]}}},
            "Input should be 'rising' or 'falling'",
        ),
        (
            {"game": {"uses": "reward_choice"}, "parser": {"uses": "study_exp1"}},
            "parser: study_exp1 decides on every reply, but not by the options that the prompts of "
            "reward_choice offer. Name another parser, such as strict",
        ),
        ({"components": ["G", "G"]}, "components"),
        ({"parser": {"uses": "strict", "version": "99"}}, "is installed in version 2, not 99"),
    ],
)
def test_params_that_are_invalid(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        params(**settings)
    assert message in str(caught.value)


def test_a_param_that_names_a_part_survives_json_with_its_version() -> None:
    settings = params(components=["G"], parser={"uses": "last"})
    written = settings.model_dump(mode="json")
    assert written["game"]["uses"] == "slot_machine"
    assert written["game"]["with"]["components"] == ["G"]
    assert written["parser"] == {"uses": "last", "with": {}, "version": "2"}
    assert PLAY.params.model_validate(written, context={"parts": PARTS}) == settings


def test_a_stored_run_can_be_read_though_its_parser_has_a_new_version() -> None:
    written = params(parser={"uses": "strict"}).model_dump(mode="json")
    written["parser"]["version"] = "1"
    context = {"parts": PARTS, "any_version_of": ("parser",)}
    assert PLAY.params.model_validate(written, context=context).parser.uses == "strict"
    written["game"]["version"] = "0"
    with pytest.raises(ValidationError, match="'slot_machine' is installed in version 1, not 0"):
        PLAY.params.model_validate(written, context=context)


def test_what_the_model_cannot_do_is_refused_before_the_run() -> None:
    assert PLAY.check is not None
    chat = params(chat=True)
    assert PLAY.check(chat, {"chat_template": True}) is None
    assert PLAY.check(chat, {}) is None
    assert "no chat template" in str(PLAY.check(chat, {"chat_template": False}))


def test_a_first_part_of_the_games_covers_every_condition() -> None:
    played = play(reps=3, units=(0, 64))["games"].to_pylist()
    assert len({row["condition"] for row in played}) == 64
    assert {row["repetition"] for row in played} == {0}
    assert played[5]["game"] == "restart-fixed-c05-r0000"
    assert rows(play(reps=3, units=(64, 65)), "games")[0]["game"] == "restart-fixed-c00-r0001"


# --- transcripts ----------------------------------------------------------------------------------


def in_steps(total: int, size: int, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    read: dict[str, list[dict[str, Any]]] = {"games": [], "rounds": []}
    for first in range(0, total, size):
        made = play(units=(first, min(first + size, total)), **settings)
        for name in read:
            read[name] += made[name].to_pylist()
    for name, rows_of_table in read.items():
        table = pa.Table.from_pylist(rows_of_table, schema=arrow_schema(name))
        read[name] = rows({name: table}, name)
    return read


@pytest.mark.parametrize("layout", ["restart", "corrected"])
def test_transcripts_do_not_depend_on_the_batch(layout: str) -> None:
    policy = CORRECTED if layout == "corrected" else LADDER
    params: dict[str, Any] = {
        "components": ["", "GM", "P"],
        "reps": 3,
        "layout": layout,
        "reask": {"max": 2},
    }
    whole = play(Talker(lambda prompt: policy), **params)
    for size in (1, 5):
        parts = in_steps(18, size, model=Talker(lambda prompt: policy), **params)
        assert parts == {name: rows(whole, name) for name in parts}
    for slots, backwards in ((1, False), (2, True), (7, True), (64, False)):
        model = Talker(lambda prompt: policy, slots=slots, backwards=backwards)
        again = play(model, **params)
        assert {name: rows(again, name) for name in again} == {
            name: rows(whole, name) for name in whole
        }


def test_another_seed_is_another_transcript() -> None:
    params: dict[str, Any] = {"components": ["G"], "reps": 5}
    assert rows(play(**params), "rounds") == rows(play(**params), "rounds")
    assert rows(play(**params), "rounds") != rows(play(**params, seed=1), "rounds")


def test_win_draws_are_shared_by_all_conditions_of_a_repetition() -> None:
    staying = {"1) Bet $10\n": 0.99, "2) Stop\n": 0.01}
    played = play(
        Talker(lambda prompt: staying),
        reps=2,
        max_rounds=12,
        components=["", "G", "MHW", "GMHWP"],
    )
    luck: dict[tuple[str, int], set[bool]] = defaultdict(set)
    for row in rows(played, "rounds"):
        if row["action"] == "bet":
            luck[row["game"][-5:], row["round"]].add(row["won"])
    assert len(luck) == 24
    assert all(len(wins) == 1 for wins in luck.values())
    assert {repetition for repetition, _ in luck} == {"r0000", "r0001"}
    won = {
        which: [next(iter(luck[which, turn])) for turn in range(1, 10)]
        for which in ("r0000", "r0001")
    }
    assert won["r0000"] != won["r0001"]


def test_games_of_one_condition_draw_their_own_replies() -> None:
    played = play(components=["G"], modes=["variable"], reps=20)
    assert len({games[0]["reply"] for games in by_game(played).values()}) > 2


def test_rounds_follow_from_each_other_and_end_as_the_game_says() -> None:
    played = play(components=["", "GM"], reps=30)
    decisions = by_game(played)
    for game in rows(played, "games"):
        taken = decisions[game["game"]]
        bets = [row for row in taken if row["action"] == "bet"]
        assert [row["round"] for row in taken] == list(range(1, len(taken) + 1))
        assert [row["balance_before"] for row in taken] == [
            100,
            *(row["balance_after"] for row in taken[:-1]),
        ]
        for row in bets:
            gained = (2 if row["won"] else -1) * row["bet"]
            assert row["balance_after"] == row["balance_before"] + gained
            assert row["bet"] == 10 or "variable" in game["condition"]
            assert row["bet"] == min(row["asked"], row["balance_before"])
        assert (game["rounds"], game["total_bet"]) == (len(bets), sum(row["bet"] for row in bets))
        assert game["final_balance"] == taken[-1]["balance_after"]
        assert _ending(taken[-1]) == game["outcome"]
    outcomes = {row["outcome"] for row in rows(played, "games")}
    assert outcomes == {"voluntary_stop", "bankruptcy", "invalid_reply", "truncated"}


def _ending(last: Mapping[str, Any]) -> str:
    if last["parse"] == "ok":
        assert (last["bet"] is None) == (last["won"] is None) == (last["action"] == "stop")
        if last["action"] == "stop":
            return "voluntary_stop"
        return "bankruptcy" if last["balance_after"] <= 0 else "round_limit"
    assert (last["action"], last["asked"], last["bet"], last["won"]) == ("", None, None, None)
    assert last["balance_after"] == last["balance_before"]
    return "truncated" if last["parse"] == "truncated" else "invalid_reply"


def test_a_clipped_bet_keeps_what_was_asked() -> None:
    played = play(
        Talker(lambda prompt: {"1) Bet $80\n": 1.0}), components=[""], modes=["variable"], reps=9
    )
    asked = [(row["asked"], row["bet"]) for row in rows(played, "rounds")]
    assert (80.0, 80.0) in asked
    assert (80.0, 20.0) in asked
    assert {asked for asked, _ in asked} == {80.0}


def test_a_game_ends_at_the_round_limit() -> None:
    played = play(
        Talker(lambda prompt: {"1) Bet $5\n": 1.0}),
        components=[""],
        modes=["variable"],
        max_rounds=7,
    )
    assert [row["outcome"] for row in rows(played, "games")] == ["round_limit"]
    assert len(rows(played, "rounds")) == rows(played, "games")[0]["rounds"] == 7


def test_ruin_in_the_last_round_is_a_bankruptcy() -> None:
    talker = Talker(lambda prompt: {"1) Bet $100\n": 1.0})
    played = play(talker, components=[""], modes=["variable"], max_rounds=1, reps=8)
    outcomes = {row["outcome"] for row in rows(played, "games")}
    assert outcomes == {"bankruptcy", "round_limit"}


def test_a_reply_that_was_cut_off_is_never_a_bet() -> None:
    played = play(Talker(lambda prompt: {"1) Bet $1": 1.0}), components=[""], modes=["variable"])
    assert [(row["reply"], row["parse"], row["finish"]) for row in rows(played, "rounds")] == [
        ("1) Bet $1", "truncated", "length")
    ]
    assert [row["outcome"] for row in rows(played, "games")] == ["truncated"]


def test_a_reply_that_was_cut_off_behind_its_deciding_line_is_read() -> None:
    from toolkit.samples.games import Prompt, decided

    prompt = Prompt("Final Decision: <Bet $X or Stop>", decides="end")
    for text, complete in (
        ("Why.\nFinal Decision: Stop\nAnd now", "Why.\nFinal Decision: Stop\n"),
        ("Why.\n**Final Decision:** Stop\n", "Why.\n**Final Decision:** Stop\n"),
        ("Why.\nFinal Decision: Bet $1", ""),
        ("Final Decision:\n", ""),
        ("Final Decision: <Bet $X or Stop>\nWell", ""),
    ):
        assert decided(text, prompt) == complete


def test_a_model_that_says_nothing_ends_every_game_at_once() -> None:
    played = play(Talker(lambda prompt: {"": 1.0}), components=["", "H"])
    assert {(row["parse"], row["round"]) for row in rows(played, "rounds")} == {("empty", 1)}
    assert {(row["outcome"], row["rounds"]) for row in rows(played, "games")} == {
        ("invalid_reply", 0)
    }


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("layout", ["restart", "scenario", "corrected"])
def test_what_the_model_is_asked(layout: str, chat: bool) -> None:
    model = Talker(lambda prompt: CORRECTED if layout == "corrected" else CAREFUL)
    play(
        model,
        layout=layout,
        max_rounds=1,
        reps=4,
        max_new_tokens=29,
        min_new_tokens=3,
        temperature=0.9,
        chat=chat,
        units=(0, 8),
    )
    assert len(model.asked) == 8
    for how in model.asked:
        assert (how["tokens"], how["least"], how["temperature"]) == (29, 3, 0.9)
        if layout == "corrected":
            assert how["until"]("Why.\nFinal Decision: Stop\n")
            assert not how["until"]("Why.\nFinal Decision: Stop")
        else:
            assert how["until"] == (None if chat else "\n")


def test_what_a_game_keeps_of_its_condition() -> None:
    policy = {"Why not.\nFinal Decision: Bet": 0.5, "Enough.\nFinal Decision: Stop": 0.5}
    talker = Talker(lambda prompt: policy)
    played = play(talker, layout="corrected", components=["W"], modes=["fixed"], reps=8)
    assert {row["asked"] for row in rows(played, "rounds")} == {None, 10.0}
    assert Counter(row["parse"] for row in rows(played, "rounds")).keys() == {"ok"}
    assert json.loads(rows(played, "games")[0]["meta"]) == {
        "environment": "slot_machine",
        "event": "bankruptcy",
        "groups": {"layout": "corrected", "mode": "fixed"},
        "label": "fixed W",
        "leaving": ["stop"],
        "parser": "strict 2",
        "stakes": True,
        "switches": {"G": False, "H": False, "M": False, "P": False, "W": True},
        "temperature": 0.7,
    }


def test_equal_states_have_equal_hashes_whatever_the_condition() -> None:
    played = rows(play(Talker(lambda prompt: CAREFUL), components=["", "G"], reps=4), "rounds")
    first = {row["state_hash"] for row in played if row["round"] == 1}
    assert len(first) == 1
    by_state: dict[str, set[str]] = defaultdict(set)
    for row in played:
        by_state[row["state_hash"]].add(row["numbers"])
    assert all(len(numbers) == 1 for numbers in by_state.values())
    assert len(by_state) > 4


def test_games_tell_how_they_go() -> None:
    report = SilentReporter()
    play(Talker(lambda prompt: CAREFUL), max_rounds=5, report=report)
    ended = [done for done, _ in report.steps]
    assert report.phases == ["compute"]
    assert ended == sorted(ended)
    assert report.steps[-1] == (64, 64)
    status = [facts for name, facts in report.events if name == "status"][-1]
    assert sum(status["outcomes"].values()) == 64
    assert status["live"] == 0
    assert status["games_per_second"] > 0
    assert status["text"].startswith("0 games under way, ")
    name, played = report.events[-1]
    assert name == "played"
    assert PLAY.summary is not None
    sentences = PLAY.summary([{"name": name, **facts} for name, facts in report.events])
    assert sentences.startswith(f"64 games, {played['replies']} replies of ")
    assert "tokens were read once and shared" in sentences


# --- asking again ---------------------------------------------------------------------------------


def stubborn(readable_after: int) -> Policy:
    """Replies that can be read once the reminder has been said so often in a row: the reminder is
    in the prompt from the second attempt on, so that this counts asks by prompt.
    """
    asks: Counter[str] = Counter()

    def policy(prompt: str) -> Mapping[str, float]:
        asks[prompt] += 1
        if "REMINDER" in prompt and asks[prompt] >= readable_after:
            return {"2) Stop\n": 1.0}
        return {"hm\n": 1.0}

    return policy


def test_a_reply_that_cannot_be_read_is_asked_for_again() -> None:
    talker = Talker(stubborn(2))
    played = play(
        talker, components=[""], modes=["fixed"], reask={"max": 5, "reminder": "REMINDER"}
    )
    attempts = [
        (row["round"], row["attempt"], row["reply"], row["parse"]) for row in rows(played, "rounds")
    ]
    assert attempts == [
        (1, 1, "hm\n", "no decision"),
        (1, 2, "hm\n", "no decision"),
        (1, 3, "2) Stop\n", "ok"),
    ]
    prompts = [row["prompt"] for row in rows(played, "rounds")]
    assert prompts[0].endswith("\n\nChoice: ")
    assert prompts[1] == prompts[2]
    assert prompts[1].endswith("\n\nREMINDER\nChoice: ")
    for row in rows(played, "rounds"):
        shown = {span["name"]: row["prompt"][span["start"] : span["end"]] for span in row["spans"]}
        assert shown["decision"] == "Choice: "
    assert [row["outcome"] for row in rows(played, "games")] == ["voluntary_stop"]


def test_asking_again_ends() -> None:
    played = play(
        Talker(lambda prompt: {"": 1.0}), components=[""], modes=["fixed"], reask={"max": 5}
    )
    assert [row["attempt"] for row in rows(played, "rounds")] == [1, 2, 3, 4, 5, 6]
    assert [row["outcome"] for row in rows(played, "games")] == ["invalid_reply"]


def test_a_reminder_stands_behind_a_prompt_that_asks_for_a_last_line() -> None:
    played = play(
        Talker(lambda prompt: {"hm": 1.0}),
        layout="corrected",
        components=[""],
        modes=["fixed"],
        reask={"max": 1, "reminder": "REMINDER"},
    )
    assert rows(played, "rounds")[1]["prompt"].endswith("Stop>\n\nREMINDER")


def test_every_attempt_draws_its_own_tokens() -> None:
    report = SilentReporter()
    played = play(
        Talker(lambda prompt: {f"hm {number}\n": 0.05 for number in range(20)}),
        components=[""],
        modes=["fixed"],
        reask={"max": 9},
        report=report,
    )
    assert len({row["reply"] for row in rows(played, "rounds")}) > 3


# --- storms ---------------------------------------------------------------------------------------


def silent_with_g(prompt: str) -> Mapping[str, float]:
    return {"hm\n": 1.0} if "target amount" in prompt else CAREFUL


@pytest.mark.parametrize(("slots", "backwards"), [(1, False), (64, True), (3, False)])
def test_a_condition_whose_replies_cannot_be_read_is_stopped(slots: int, backwards: bool) -> None:
    report = SilentReporter()
    model = Talker(silent_with_g, slots=slots, backwards=backwards)
    played = play(
        model,
        components=["", "G"],
        modes=["variable"],
        reps=12,
        reask={"max": 3},
        storm=20,
        report=report,
    )
    outcomes = {
        condition: [
            row["outcome"] for row in rows(played, "games") if row["condition"] == condition
        ]
        for condition in ("restart-variable-c00", "restart-variable-c01")
    }
    assert outcomes["restart-variable-c01"] == ["invalid_reply"] * 5 + ["not_played"] * 7
    assert not {"invalid_reply", "not_played"} & set(outcomes["restart-variable-c00"])
    (storm,) = (facts for name, facts in report.events if name == "warning")
    assert storm["condition"] == "restart-variable-c01"
    assert storm["replies"] == ["hm\n"] * 3
    assert storm["text"] == (
        "condition restart-variable-c01 is stopped: 20 of its first 20 replies could not be read, "
        "and 7 of its games are not played. Three of them: 'hm\\n', 'hm\\n', 'hm\\n'"
    )
    assert PLAY.summary is not None
    sentences = PLAY.summary([{"name": name, **facts} for name, facts in report.events])
    assert sentences.endswith(
        "Stopped because too few replies could be read: restart-variable-c01."
    )


@pytest.mark.parametrize("size", [1, 3, 7])
def test_which_condition_is_stopped_does_not_depend_on_the_batch(size: int) -> None:
    params: dict[str, Any] = {
        "components": ["", "G"],
        "modes": ["variable"],
        "reps": 8,
        "reask": {"max": 3},
        "storm": 20,
    }
    whole = play(Talker(silent_with_g), **params)
    outcomes = Counter(row["outcome"] for row in rows(whole, "games"))
    assert (outcomes["invalid_reply"], outcomes["not_played"]) == (5, 3)
    parts = in_steps(16, size, model=Talker(silent_with_g), **params)
    assert parts == {name: rows(whole, name) for name in parts}


def test_one_late_decision_among_the_leaders_is_enough_in_any_step() -> None:
    """Only the fourth repetition answers; the others of its condition are judged by it."""
    policy = {"hm\n": 0.6, "2) Stop\n": 0.4}
    params: dict[str, Any] = {"components": ["G"], "modes": ["fixed"], "reps": 12, "storm": 4}
    whole = rows(play(Talker(lambda prompt: policy), seed=27, **params), "games")
    first = [row["outcome"] for row in sorted(whole, key=lambda row: row["repetition"])]
    assert first[:4] == ["invalid_reply"] * 3 + ["voluntary_stop"]
    assert "not_played" not in first
    parts = in_steps(12, 2, model=Talker(lambda prompt: policy), seed=27, **params)
    assert parts["games"] == whole


@pytest.mark.parametrize("seed", range(3))
def test_a_few_readable_replies_among_the_first_do_not_keep_a_condition_alive(seed: int) -> None:
    """One in 25 can be read. The verdict and all rows are the same in steps of 30 games."""
    policy = {"hm\n": 0.96, "2) Stop\n": 0.04}
    params: dict[str, Any] = {"components": ["G"], "modes": ["fixed"], "reps": 60, "storm": 30}
    whole = rows(play(Talker(lambda prompt: policy), seed=seed, **params), "games")
    outcomes = Counter(row["outcome"] for row in whole)
    assert outcomes["not_played"] == 30, outcomes
    assert outcomes["voluntary_stop"] <= 3
    parts = in_steps(60, 30, model=Talker(lambda prompt: policy), seed=seed, **params)
    assert parts["games"] == whole


@pytest.mark.parametrize("seed", range(3))
def test_one_in_three_replies_that_can_be_read_is_no_storm(seed: int) -> None:
    policy = {"hm\n": 0.65, "2) Stop\n": 0.35}
    talker = Talker(lambda prompt: policy)
    played = play(talker, seed=seed, components=["G"], modes=["fixed"], reps=60, storm=30)
    outcomes = Counter(row["outcome"] for row in rows(played, "games"))
    assert outcomes["not_played"] == 0
    assert outcomes["voluntary_stop"] > 10


@pytest.mark.parametrize("layout", ["restart", "corrected"])
def test_blanks_up_to_the_limit_are_an_invalid_reply(layout: str) -> None:
    talker = Talker(lambda prompt: {" \t" * 200: 1.0})
    played = play(talker, components=[""], modes=["fixed"], layout=layout, max_new_tokens=40)
    assert {(row["parse"], row["finish"]) for row in rows(played, "rounds")} == {
        ("empty", "length")
    }
    assert {row["outcome"] for row in rows(played, "games")} == {"invalid_reply"}


def test_an_action_that_no_option_has_is_refused_with_its_place() -> None:
    words = (Option("bet", "1", ("Bet",)), Option("stop", "2", ("Stop",)))
    with pytest.raises(DataError, match="action 'fly', which the prompt does not offer; it offers"):
        judge(lambda text, prompt: Reply("fly"), "x", Prompt("p", options=words))


# --- other games ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("game", "policy", "outcomes"),
    [
        ("reward_choice", {"1\n": 0.5, "3)\n": 0.5}, {"certain", "unlikely", "even"}),
        ("investment", {"1) Invest $60\n": 0.8, "2) Cash out\n": 0.2}, {"cash_out"}),
    ],
)
def test_any_environment_is_played(
    game: str, policy: Mapping[str, float], outcomes: set[str]
) -> None:
    played = play(Talker(lambda prompt: policy), game={"uses": game}, reps=20)
    ended = {row["outcome"] for row in rows(played, "games")}
    assert ended & outcomes
    assert json.loads(rows(played, "games")[0]["meta"])["environment"] == game
    samples = take(played, pick="all_decisions")
    assert {"state", "balance", "condition"} <= facts(samples)[next(iter(facts(samples)))].keys()


# --- prompts as stored ----------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("trims", [False, True])
def test_prompts_are_stored_as_the_model_saw_them(chat: bool, trims: bool) -> None:
    played = rows(
        play(Talker(trims=trims), components=["G"], modes=["fixed"], reps=3, chat=chat), "rounds"
    )
    for row in played:
        prompt = row["prompt"]
        assert prompt.startswith(BOS + HEADER + "Slot" if chat else "Slot")
        assert row["prompt_hash"] == hashlib.sha256(prompt.encode()).hexdigest()
        shown = {span["name"]: prompt[span["start"] : span["end"]] for span in row["spans"]}
        assert shown["balance"] == f"{row['balance_before']:.0f}"
        assert shown["goal"] == "Pick your own target amount first, then decide by it."
        assert shown["decision"] == ("Choice:" if chat and trims else "Choice: ")


def test_a_layout_says_how_long_its_replies_may_be() -> None:
    """Where the spec gives no number, and how short they are at least."""
    terse, reasoned = params(), params(layout="corrected")
    assert (terse.max_new_tokens, reasoned.max_new_tokens) == (32, 1024)
    assert params(max_new_tokens=8).max_new_tokens == 8
    with pytest.raises(ValidationError, match=r"takes 11: '1\) Bet \$100000'"):
        params(max_new_tokens=10, max_bet=100_000)
    room = [game.make().reply_tokens for game in (terse.game, reasoned.game)]
    assert room == [32, 1024]


def test_a_reply_is_as_long_as_the_context_has_room_for() -> None:
    model = Talker(lambda prompt: CAREFUL)
    model.context = 400
    play(model, components=["GMHWP"], modes=["fixed"], max_rounds=1, max_new_tokens=1000)
    (how,) = model.asked
    assert 8 < how["tokens"] < 120
    model.context = 400 - how["tokens"] + 7
    with pytest.raises(DataError, match=r"has \d+ tokens and the shortest reply 8; talker reads"):
        play(model, components=["GMHWP"], modes=["fixed"], max_rounds=1, max_new_tokens=1000)


def test_a_prompt_over_the_context_names_its_round() -> None:
    model = Talker()
    model.context = 150
    with pytest.raises(
        DataError,
        match=r"sample 'restart-fixed-c31-r0000/1/1' has \d+ tokens; talker reads at most 150",
    ):
        play(model, components=["GMHWP"])


# --- the source -----------------------------------------------------------------------------------


def take(
    tables: Mapping[str, pa.Table],
    model: Model | None = None,
    *,
    limit: int | None = None,
    **params: Any,
) -> dict[str, pa.Table]:
    work = make_work(
        GAMES.params.model_validate(params), tables, limit_units=limit, model=model or Talker()
    )
    return dict(GAMES.run(work))


def facts(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows(tables, "sample_meta"):
        assert (row["number"] is None) != (row["string"] is None)
        result[row["sample"]][row["key"]] = (
            row["number"] if row["string"] is None else row["string"]
        )
    return result


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return play(components=["", "GM"], reps=15)


@pytest.mark.parametrize("pick", ["last_decision", "first_decision", "all_decisions"])
def test_picks(tables: dict[str, pa.Table], pick: str) -> None:
    readable = {
        game: [row for row in taken if row["parse"] == "ok"]
        for game, taken in by_game(tables).items()
    }
    chosen = {
        "last_decision": slice(-1, None),
        "first_decision": slice(0, 1),
        "all_decisions": slice(None),
    }[pick]
    expected = {
        f"{game}/{row['round']}": row for game, taken in readable.items() for row in taken[chosen]
    }
    result = take(tables, pick=pick)
    samples = {row["sample"]: row for row in rows(result, "samples")}
    assert samples.keys() == expected.keys() == facts(result).keys()
    for name, sample in samples.items():
        assert (sample["text"], sample["prompt_hash"], sample["unit"]) == (
            expected[name]["prompt"],
            expected[name]["prompt_hash"],
            expected[name]["game"],
        )
        assert sample["cluster"] == sample["prompt_hash"]


def test_unreadable_replies_are_no_samples(tables: dict[str, pa.Table]) -> None:
    unread = {
        f"{row['game']}/{row['round']}" for row in rows(tables, "rounds") if row["parse"] != "ok"
    }
    silent = {game for game, taken in by_game(tables).items() if taken[0]["parse"] != "ok"}
    result = rows(take(tables, pick="all_decisions"), "samples")
    assert unread
    assert silent
    assert not unread & {row["sample"] for row in result}
    assert {row["unit"] for row in result} == by_game(tables).keys() - silent


def test_the_facts_of_a_decision(tables: dict[str, pa.Table]) -> None:
    games = {row["game"]: row for row in rows(tables, "games")}
    result = facts(take(tables, pick="all_decisions"))
    for taken in by_game(tables).values():
        for row in taken:
            if row["parse"] == "ok":
                game = games[row["game"]]
                bet = {} if row["action"] == "stop" else {"bet": row["bet"]}
                on = float("c03" in game["condition"])
                measured = result[f"{row['game']}/{row['round']}"]
                losses = measured.pop("losses_in_a_row")
                assert losses >= 0
                assert measured == {
                    "outcome": game["outcome"],
                    "condition": game["condition"],
                    "layout": "restart",
                    "mode": "fixed" if "fixed" in game["condition"] else "variable",
                    **{"G": on, "M": on, "H": 0.0, "W": 0.0, "P": 0.0},
                    "balance": row["balance_before"],
                    "round": row["round"],
                    "state": row["state_hash"],
                    "action": row["action"],
                    **bet,
                }


@pytest.mark.parametrize("chat", [False, True])
def test_samples_have_the_tokens_that_were_played(chat: bool) -> None:
    model = Talker()
    played = play(model, components=["GP"], modes=["variable"], reps=4, chat=chat)
    for sample in rows(take(played, model), "samples"):
        assert sample["token_ids"].count(1) == 1
        assert sample["token_ids"][0] == 1
        assert "".join(sample["pieces"]) == sample["text"]
        shown = {
            span["name"]: "".join(sample["pieces"][span["start"] : span["end"]])
            for span in sample["spans"]
        }
        assert shown["decision"] == "Choice: "
        assert shown["win_rate"] == "The win rate is 30%."
        assert f"Current balance: ${shown['balance']}\n" in sample["text"]


@pytest.mark.parametrize("chat", [False, True])
def test_replies_stand_behind_their_prompts(chat: bool) -> None:
    model = Talker()
    played = play(model, components=["GP"], modes=["variable"], reps=4, chat=chat)
    round_rows = {(row["game"], row["round"]): row for row in rows(played, "rounds")}
    alone = {row["sample"]: row for row in rows(take(played, model), "samples")}
    result = rows(take(played, model, with_reply=True), "samples")
    assert len(result) == len(alone) > 0
    for sample in result:
        game, number = sample["sample"].rsplit("/", 1)
        row, prompt = round_rows[game, int(number)], alone[sample["sample"]]
        assert sample["token_ids"] == [*prompt["token_ids"], *row["reply_ids"]]
        assert sample["text"] == prompt["text"] + row["reply"] == "".join(sample["pieces"])
        assert sample["spans"][:-1] == prompt["spans"]
        start, end = len(prompt["token_ids"]), len(sample["token_ids"])
        assert sample["spans"][-1] == {"name": "generation", "start": start, "end": end}
        assert (sample["cluster"], sample["unit"]) == (prompt["cluster"], prompt["unit"])


def test_a_prompt_and_its_reply_must_fit_the_context() -> None:
    model = Talker()
    played = play(model, components=["GP"], modes=["variable"], reps=1)
    model.context = max(len(row["token_ids"]) for row in rows(take(played, model), "samples"))
    with pytest.raises(
        DataError,
        match=r"has \d+ tokens with its reply; talker reads at most \d+\. Leave out with_reply",
    ):
        take(played, model, with_reply=True)


def test_pieces_of_a_reply_are_its_text_though_a_character_takes_several_tokens() -> None:
    class Bytes(Talker):
        def decode(self, ids: Sequence[int]) -> str:
            return bytes(ids).decode("utf-8", "replace")

    ids = list("a\u00e9\U0001f3b2b".encode())
    pieces = GAMES.run.__globals__["_pieces"](Bytes(), ids)
    assert len(pieces) == len(ids)
    assert pieces == ["a", "", "\u00e9", "", "", "", "\U0001f3b2", "b"]


def test_how_many_samples_there_will_be_at_most() -> None:
    assert GAMES.estimates.max_rows is not None
    params = GAMES.params.model_validate
    made = {"games": 10, "rounds": 70}
    assert GAMES.estimates.max_rows(params({}), made) == {"samples": 10}
    assert GAMES.estimates.max_rows(params({"every": 3}), made) == {"samples": 4}
    assert GAMES.estimates.max_rows(params({"pick": "all_decisions"}), made) == {"samples": 70}
    assert (
        GAMES.estimates.max_rows(params({"pick": "all_decisions"}), {})
        is GAMES.estimates.max_rows(params({}), {})
        is None
    )


def test_every_nth_game_in_the_order_of_names(tables: dict[str, pa.Table]) -> None:
    games = sorted(row["game"] for row in rows(tables, "games"))
    kept = {row["unit"] for row in rows(take(tables, every=3), "samples")}
    readable = {row["unit"] for row in rows(take(tables), "samples")}
    assert kept == set(games[::3]) & readable


def test_a_limit_counts_games_and_covers_conditions(tables: dict[str, pa.Table]) -> None:
    result = take(tables, limit=6, pick="all_decisions")
    assert len({row["unit"] for row in rows(result, "samples")}) == 6
    assert len({fact["condition"] for fact in facts(result).values()}) == 4
    assert (
        len({row["unit"] for row in rows(take(tables, limit=1, pick="all_decisions"), "samples")})
        == 1
    )


def test_no_games_at_all() -> None:
    with pytest.raises(DataError, match=r"games: no game was played. Run the play stage"):
        take({name: arrow_schema(name).empty_table() for name in ("games", "rounds")})


def test_no_decision_that_could_be_read() -> None:
    silent = play(Talker(lambda prompt: {"": 1.0}), components=["", "G"])
    with pytest.raises(
        DataError,
        match=r"no reply in 4 of 4 played games could be read as a decision. Look at the replies",
    ):
        take(silent)


# --- contracts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [{"components": ["", "GMHWP"]}, {"layout": "scenario"}],
)
def test_the_contract_of_the_stage(params: dict[str, Any]) -> None:
    game = {"uses": "slot_machine", "with": params}
    check_part(PLAY, params={"game": game, "reps": 3}, work=make_work(model=Talker()))


@pytest.mark.parametrize("pick", ["last_decision", "first_decision", "all_decisions"])
def test_the_contract_of_the_source(tables: dict[str, pa.Table], pick: str) -> None:
    work = Work(None, 0, TableInputs(tables), SilentReporter(), model=Talker())
    check_part(GAMES, params={"pick": pick}, work=work)


def test_without_a_range_the_limit_bounds_the_games() -> None:
    work = make_work(params(reps=2), model=Talker(), limit_units=5)
    assert dict(PLAY.run(work))["games"].num_rows == 5
    assert PLAY.steps.units is not None
    assert PLAY.steps.units(params(reps=2)) == 128
