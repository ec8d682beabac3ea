"""`play.games` and the source `games`, with a model that answers from a table: transcripts,
randomness, records, samples.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from toolkit.errors import DataError
from toolkit.models import Encoded, Model
from toolkit.parts import Identity, SourcePart, StagePart
from toolkit.sessions import Generated
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter, TableInputs, make_work
from toolkit.work import Work
from toolkit_play import toolkit_parts
from toolkit_play._play import Play, choose, conditions, count_games

PLAY, GAMES = (
    next(part for part in toolkit_parts() if part.name == name) for name in ("play.games", "games")
)
assert isinstance(PLAY, StagePart)
assert isinstance(GAMES, SourcePart)

BOS, HEADER, FOOTER = "<s>", "[user]", "[bot]"
LADDER = {f"1) Bet ${bet}\n": 0.2 for bet in (5, 10, 50, 100)} | {
    "2) Stop\n": 0.1,
    "hm\n": 0.06,
    "1) Bet $1": 0.04,
}
CAREFUL = {"1) Bet $10\n": 0.9, "2) Stop\n": 0.1}
CORRECTED = {f"Why not.\nFinal Decision: Bet ${bet}": 0.3 for bet in (5, 20, 60)} | {
    "Enough.\nFinal Decision: Stop": 0.1
}

Policy = Callable[[str], Mapping[str, float]]


class Talker(Model):
    """Answers a prompt with one of a few replies; the policy gives their chances. A character is a
    token, BOS is token 1.
    """

    identity = Identity(name="talker", revision="1", digest="1")
    layers, width, context = 1, 4, 2000

    def __init__(self, policy: Policy | None = None, *, trims: bool = False) -> None:
        self.policy = policy or (lambda prompt: LADDER)
        self.trims = trims
        self.asked: list[tuple[int, int, str | None]] = []

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        shown = BOS + HEADER + (text.rstrip() if self.trims else text) + FOOTER if chat else text
        begins = len(BOS) if shown.startswith(BOS) else 0
        offsets = [(0, begins), *((at, at + 1) for at in range(begins, len(shown)))]
        ids = (1, *(10 + ord(character) for character in shown[begins:]))
        return Encoded(shown, ids, tuple(offsets), len(BOS + HEADER) if chat else 0)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(number - 10) for number in ids if number > 1)

    def run(self, batch: Any, capture: Any, edits: Any = ()) -> Any:
        raise NotImplementedError

    def unembed(self, states: Any) -> Any:
        raise NotImplementedError

    def generate(
        self,
        batch: Any,
        draw: Any = None,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        until: Any = None,
        edits: Any = (),
        budget: Any = None,
    ) -> list[Generated]:
        self.asked.append((len(batch), max_tokens, until))

        def drawn(row: int, count: int, shares: Any) -> int:
            return choose(shares, draw(row, count), temperature)

        return [
            self._reply(self.policy(self.decode(ids)), drawn, row) for row, ids in enumerate(batch)
        ]

    def _reply(self, chances: Mapping[str, float], draw: Any, row: int) -> Generated:
        at = draw(row, 0, np.array(list(chances.values())))
        text = list(chances)[at]
        finish = "until" if text.endswith("\n") else "length" if text == "1) Bet $1" else "stop"
        return Generated((at, draw(row, 1, np.array([0.5, 0.5]))), text, finish)


def play(
    model: Model | None = None,
    *,
    units: tuple[int, int] | None = None,
    seed: int = 0,
    **params: Any,
) -> dict[str, pa.Table]:
    work = make_work(Play.model_validate(params), seed=seed, model=model or Talker())
    return dict(PLAY.run(replace(work, units=units)))


def rows(tables: Mapping[str, pa.Table], name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tables[name].to_pylist()
    return found


def by_game(tables: Mapping[str, pa.Table]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(tables, "rounds"):
        found[row["game"]].append(row)
    return found


# --- conditions -----------------------------------------------------------------------------------


def test_all_conditions_have_a_bitmask_for_a_name() -> None:
    found = conditions(Play())  # type: ignore[call-arg]
    assert len(found) == len({condition.name for condition in found}) == 64
    assert [condition.mask for condition in found] == [*range(32), *range(32)]
    names = {condition.name: condition.components for condition in found}
    assert names["restart-fixed-c00"] == ""
    assert names["restart-variable-c03"] == "GM"
    assert names["restart-variable-c18"] == "MP"
    assert names["restart-variable-c31"] == "GMHWP"


def test_named_components_are_canonical_and_keep_their_order() -> None:
    params = Play.model_validate(
        {"components": ["PG", "", "H"], "modes": ["variable"], "game": {"layout": "corrected"}}
    )
    found = [(condition.name, condition.components) for condition in conditions(params)]
    assert found == [
        ("corrected-variable-c17", "GP"),
        ("corrected-variable-c00", ""),
        ("corrected-variable-c04", "H"),
    ]


def test_the_scenario_layout_has_one_set_of_rule_lines() -> None:
    params = Play.model_validate({"game": {"layout": "scenario"}, "reps": 3})
    assert [condition.name for condition in conditions(params)] == [
        "scenario-fixed-c00",
        "scenario-variable-c00",
    ]
    assert count_games(params) == 6


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"components": ["GX"]}, "components 'GX': 'X' is none of them"),
        ({"components": ["GM", "MG"]}, "name at least one set of components, and each once"),
        ({"components": []}, "name at least one set of components"),
        ({"modes": ["fixed", "fixed"]}, "modes: a mode stands twice"),
        ({"modes": []}, "at least 1 item"),
        (
            {"components": ["G"], "game": {"layout": "scenario"}},
            "layout scenario has its own three rule lines",
        ),
        ({"temperature": 0}, "greater than 0"),
        ({"reps": 0}, "greater than or equal to 1"),
    ],
)
def test_params_that_cannot_be(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Play.model_validate(params)


def test_a_first_part_of_the_games_covers_every_condition() -> None:
    found = rows(play(reps=3, units=(0, 64)), "games")
    assert len({row["condition"] for row in found}) == 64
    assert {row["repetition"] for row in found} == {0}
    assert found[5]["game"] == "restart-fixed-c05-r0000"
    assert rows(play(reps=3, units=(64, 65)), "games")[0]["game"] == "restart-fixed-c00-r0001"


# --- transcripts ----------------------------------------------------------------------------------


def in_steps(total: int, size: int, **params: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"games": [], "rounds": []}
    for first in range(0, total, size):
        made = play(units=(first, min(first + size, total)), **params)
        for name in found:
            found[name] += rows(made, name)
    return found


@pytest.mark.parametrize("layout", ["restart", "corrected"])
def test_transcripts_do_not_depend_on_the_batch(layout: str) -> None:
    policy = CORRECTED if layout == "corrected" else LADDER
    given: dict[str, Any] = {"components": ["", "GM", "P"], "reps": 3, "game": {"layout": layout}}
    model = Talker(lambda prompt: policy)
    whole = play(model, **given)
    for size in (1, 5):
        parts = in_steps(18, size, model=model, **given)
        assert parts == {name: rows(whole, name) for name in parts}


def test_another_seed_is_another_transcript() -> None:
    given: dict[str, Any] = {"components": ["G"], "reps": 5}
    assert rows(play(**given), "rounds") == rows(play(**given), "rounds")
    assert rows(play(**given), "rounds") != rows(play(**given, seed=1), "rounds")


def test_win_draws_are_shared_by_all_conditions_of_a_repetition() -> None:
    found = play(
        Talker(lambda prompt: CAREFUL),
        reps=2,
        game={"max_rounds": 12},
        components=["", "G", "MHW", "GMHWP"],
    )
    luck: dict[tuple[str, int], set[bool]] = defaultdict(set)
    for row in rows(found, "rounds"):
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
    found = play(components=["G"], modes=["variable"], reps=20)
    assert len({games[0]["reply"] for games in by_game(found).values()}) > 2


def test_rounds_follow_from_each_other_and_end_as_the_game_says() -> None:
    found = play(components=["", "GM"], reps=30)
    decisions = by_game(found)
    for game in rows(found, "games"):
        taken, bets = (
            decisions[game["game"]],
            [row for row in decisions[game["game"]] if row["action"] == "bet"],
        )
        assert [row["round"] for row in taken] == list(range(1, len(taken) + 1))
        assert [row["balance_before"] for row in taken] == [
            100,
            *(row["balance_after"] for row in taken[:-1]),
        ]
        for row in bets:
            assert (
                row["balance_after"]
                == row["balance_before"] + (2 if row["won"] else -1) * row["bet"]
            )
            assert row["bet"] == 10 or "variable" in game["condition"]
        assert (game["rounds"], game["total_bet"]) == (len(bets), sum(row["bet"] for row in bets))
        assert game["final_balance"] == taken[-1]["balance_after"]
        assert _ending(taken[-1]) == game["outcome"]
    outcomes = {row["outcome"] for row in rows(found, "games")}
    assert outcomes == {"voluntary_stop", "bankruptcy", "invalid_reply", "truncated"}


def _ending(last: Mapping[str, Any]) -> str:
    if last["parse"] == "ok":
        assert (last["bet"] is None) == (last["won"] is None) == (last["action"] == "stop")
        return (
            "voluntary_stop"
            if last["action"] == "stop"
            else "bankruptcy"
            if last["balance_after"] <= 0
            else "round_limit"
        )
    assert (last["action"], last["bet"], last["won"]) == ("", None, None)
    assert last["balance_after"] == last["balance_before"]
    return "truncated" if last["parse"] == "truncated" else "invalid_reply"


def test_a_game_ends_at_the_round_limit() -> None:
    found = play(
        Talker(lambda prompt: {"1) Bet $5\n": 1.0}),
        components=[""],
        modes=["variable"],
        game={"max_rounds": 7},
    )
    assert [row["outcome"] for row in rows(found, "games")] == ["round_limit"]
    assert len(rows(found, "rounds")) == rows(found, "games")[0]["rounds"] == 7


def test_a_reply_that_was_cut_off_is_never_a_bet() -> None:
    found = play(Talker(lambda prompt: {"1) Bet $1": 1.0}), components=[""], modes=["variable"])
    assert [(row["reply"], row["parse"], row["finish"]) for row in rows(found, "rounds")] == [
        ("1) Bet $1", "truncated", "length")
    ]
    assert [row["outcome"] for row in rows(found, "games")] == ["truncated"]


def test_a_model_that_says_nothing_ends_every_game_at_once() -> None:
    found = play(Talker(lambda prompt: {"": 1.0}), components=["", "H"])
    assert {(row["parse"], row["round"]) for row in rows(found, "rounds")} == {("empty", 1)}
    assert {(row["outcome"], row["rounds"]) for row in rows(found, "games")} == {
        ("invalid_reply", 0)
    }


@pytest.mark.parametrize(
    ("layout", "until"), [("restart", "\n"), ("scenario", "\n"), ("corrected", None)]
)
def test_what_the_model_is_asked(layout: str, until: str | None) -> None:
    model = Talker(lambda prompt: CORRECTED if until is None else CAREFUL)
    play(
        model,
        game={"layout": layout, "max_rounds": 1},
        reps=4,
        components="all",
        most=19,
        units=(0, 8),
    )
    assert model.asked == [(8, 19, until)]


def test_the_corrected_layout_is_read_by_its_last_line() -> None:
    found = play(
        Talker(lambda prompt: CORRECTED), game={"layout": "corrected"}, components=["W"], reps=8
    )
    assert Counter(row["parse"] for row in rows(found, "rounds")).keys() == {"ok"}
    meta = json.loads(rows(found, "games")[0]["meta"])
    wanted = {
        "components": "W",
        "layout": "corrected",
        "mask": 8,
        "mode": "fixed",
        "parser": "strict:final",
        "temperature": 0.7,
    }
    assert meta == wanted


def test_progress_counts_finished_games() -> None:
    report = SilentReporter()
    work = make_work(Play.model_validate({"reps": 1, "game": {"max_rounds": 5}}), model=Talker())
    list(PLAY.run(replace(work, report=report)))
    done = [done for done, _ in report.steps]
    assert report.phases == ["compute"]
    assert done == sorted(done)
    assert report.steps[-1] == (64, 64)
    assert len(done) == 5


# --- prompts as stored ----------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("trims", [False, True])
def test_prompts_are_stored_as_the_model_saw_them(chat: bool, trims: bool) -> None:
    found = rows(
        play(Talker(trims=trims), components=["G"], modes=["fixed"], reps=3, chat=chat), "rounds"
    )
    for row in found:
        prompt = row["prompt"]
        assert prompt.startswith(BOS + HEADER + "Slot" if chat else "Slot")
        assert row["prompt_hash"] == hashlib.sha256(prompt.encode()).hexdigest()
        shown = {span["name"]: prompt[span["start"] : span["end"]] for span in row["spans"]}
        assert shown["balance"] == f"{row['balance_before']:.0f}"
        assert shown["goal"] == "Pick your own target amount first, then decide by it."
        assert shown["decision"] == ("Choice:" if chat and trims else "Choice: ")


def test_a_prompt_over_the_context_names_its_round() -> None:
    model = Talker()
    model.context = 150
    with pytest.raises(
        DataError,
        match=r"sample 'restart-fixed-c31-r0000/1' has \d+ tokens; talker reads at most 150",
    ):
        play(model, components=["GMHWP"])


# --- the draw -------------------------------------------------------------------------------------


def test_a_draw_follows_the_cumulated_shares() -> None:
    shares = np.array([0.0, 0.25, 0.5, 0.0, 0.25, 0.0])
    found = [
        choose(shares, uniform, 1.0) for uniform in (0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53)
    ]
    assert found == [1, 1, 2, 2, 4, 4]


def test_a_tensor_is_drawn_from_like_an_array() -> None:
    torch = pytest.importorskip("torch")
    shares = [0.1, 0.4, 0.5]
    found = [
        choose(torch.tensor(shares, dtype=torch.float64), uniform, 0.7)
        for uniform in (0.05, 0.3, 0.9)
    ]
    assert (
        found
        == [choose(np.array(shares), uniform, 0.7) for uniform in (0.05, 0.3, 0.9)]
        == [0, 1, 2]
    )


def test_a_number_past_the_end_still_meets_a_token_of_some_probability() -> None:
    assert choose(np.array([0.1, 0.2, 0.0]), 1.0, 1.0) == 1


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
def test_the_temperature_sharpens_as_it_should(temperature: float) -> None:
    shares = np.array([0.6, 0.3, 0.1])
    wanted = shares ** (1 / temperature) / (shares ** (1 / temperature)).sum()
    drawn = (
        np.bincount(
            [choose(shares, (at + 0.5) / 4000, temperature) for at in range(4000)], minlength=3
        )
        / 4000
    )
    assert np.abs(drawn - wanted).max() < 1e-3


def test_a_very_low_temperature_takes_the_likeliest() -> None:
    assert {
        choose(np.array([1e-9, 3e-9, 2e-9]), uniform, 1e-4) for uniform in (0.0, 0.5, 0.999)
    } == {1}


@pytest.mark.parametrize("shares", [[np.nan, 0.5], [0.0, 0.0], [np.inf, 1.0]])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_probabilities_that_are_no_numbers(shares: list[float], temperature: float) -> None:
    with pytest.raises(
        DataError,
        match=r"the model's probabilities are not numbers. Load the model in another dtype",
    ):
        choose(np.array(shares), 0.5, temperature)


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
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows(tables, "sample_meta"):
        assert (row["number"] is None) != (row["string"] is None)
        found[row["sample"]][row["key"]] = row["number"] if row["string"] is None else row["string"]
    return found


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
    wanted = {
        f"{game}/{row['round']}": row for game, taken in readable.items() for row in taken[chosen]
    }
    found = take(tables, pick=pick)
    samples = {row["sample"]: row for row in rows(found, "samples")}
    assert samples.keys() == wanted.keys() == facts(found).keys()
    for name, sample in samples.items():
        assert (sample["text"], sample["prompt_hash"], sample["unit"]) == (
            wanted[name]["prompt"],
            wanted[name]["prompt_hash"],
            wanted[name]["game"],
        )
        assert sample["cluster"] == sample["prompt_hash"]


def test_unreadable_replies_are_no_samples(tables: dict[str, pa.Table]) -> None:
    unread = {
        f"{row['game']}/{row['round']}" for row in rows(tables, "rounds") if row["parse"] != "ok"
    }
    silent = {game for game, taken in by_game(tables).items() if taken[0]["parse"] != "ok"}
    found = rows(take(tables, pick="all_decisions"), "samples")
    assert unread
    assert silent
    assert not unread & {row["sample"] for row in found}
    assert {row["unit"] for row in found} == by_game(tables).keys() - silent


def test_the_facts_of_a_decision(tables: dict[str, pa.Table]) -> None:
    games = {row["game"]: row for row in rows(tables, "games")}
    found = facts(take(tables, pick="all_decisions"))
    for taken in by_game(tables).values():
        for row in taken:
            if row["parse"] == "ok":
                game = games[row["game"]]
                bet = {} if row["action"] == "stop" else {"bet": row["bet"]}
                assert found[f"{row['game']}/{row['round']}"] == {
                    "outcome": game["outcome"],
                    "condition": game["condition"],
                    "mode": "fixed" if "fixed" in game["condition"] else "variable",
                    "components": "GM" if "c03" in game["condition"] else "",
                    "balance": row["balance_before"],
                    "round": row["round"],
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


class Speaker(Talker):
    """Its replies' ids are their characters."""

    def _reply(self, chances: Mapping[str, float], draw: Any, row: int) -> Generated:
        said = super()._reply(chances, draw, row)
        return Generated(
            tuple(10 + ord(character) for character in said.text), said.text, said.finish
        )


@pytest.mark.parametrize("chat", [False, True])
def test_replies_stand_behind_their_prompts(chat: bool) -> None:
    model = Speaker()
    played = play(model, components=["GP"], modes=["variable"], reps=4, chat=chat)
    told = {(row["game"], row["round"]): row for row in rows(played, "rounds")}
    alone = {row["sample"]: row for row in rows(take(played, model), "samples")}
    found = rows(take(played, model, with_reply=True), "samples")
    assert len(found) == len(alone) > 0
    for sample in found:
        game, number = sample["sample"].rsplit("/", 1)
        row, prompt = told[game, int(number)], alone[sample["sample"]]
        assert sample["token_ids"] == [*prompt["token_ids"], *row["reply_ids"]]
        assert sample["text"] == prompt["text"] + row["reply"] == "".join(sample["pieces"])
        assert sample["spans"][:-1] == prompt["spans"]
        start, end = len(prompt["token_ids"]), len(sample["token_ids"])
        assert sample["spans"][-1] == {"name": "generation", "start": start, "end": end}
        assert (sample["cluster"], sample["unit"]) == (prompt["cluster"], prompt["unit"])


def test_a_prompt_and_its_reply_must_fit_the_context() -> None:
    model = Speaker()
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
    found = take(tables, limit=6, pick="all_decisions")
    assert len({row["unit"] for row in rows(found, "samples")}) == 6
    assert len({fact["condition"] for fact in facts(found).values()}) == 4
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
    [{"components": ["", "GMHWP"], "reps": 3}, {"game": {"layout": "scenario"}, "reps": 9}],
)
def test_the_contract_of_the_stage(params: dict[str, Any]) -> None:
    check_part(PLAY, params=params, work=make_work(model=Talker()))


@pytest.mark.parametrize("pick", ["last_decision", "first_decision", "all_decisions"])
def test_the_contract_of_the_source(tables: dict[str, pa.Table], pick: str) -> None:
    work = Work(None, 0, TableInputs(tables), SilentReporter(), model=Talker())
    check_part(GAMES, params={"pick": pick}, work=work)


def test_without_a_range_the_limit_bounds_the_games() -> None:
    work = make_work(Play.model_validate({"reps": 2}), model=Talker(), limit_units=5)
    assert dict(PLAY.run(work))["games"].num_rows == 5
    assert PLAY.steps.units is not None
    assert PLAY.steps.units(Play.model_validate({"reps": 2})) == 128
