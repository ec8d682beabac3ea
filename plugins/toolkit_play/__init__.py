"""Games that language models play: environments, parsers, the stages that play them, and the source
that reads played games.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from toolkit import hookimpl
from toolkit.parts import (
    EnvironmentPart,
    Estimates,
    LabelKeys,
    NoParams,
    ParserPart,
    Part,
    SourcePart,
    StagePart,
    Steps,
)
from toolkit.samples.games import Parser

from . import labels, source
from .games import investment, reward_choice, slot_machine
from .games.slot_machine_rules import SlotMachine
from .parsers import simple, strict, study
from .stage import costs, params, patched, play, summary

PLAYING = Estimates(
    max_rows=costs.max_rows,
    cost=costs.playing,
    expected=costs.expected,
    expected_rows=costs.expected_rows,
    prompts=costs.expected_prompts,
)


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Yield every part of this plugin."""
    yield from _environments()
    yield from _parsers()
    yield StagePart(
        name="play.games",
        help="Lets the model play a game, all games of a step in one stream of replies.",
        version="4",
        params=params.Play,
        run=play.play,
        reads=(),
        writes=("games", "rounds"),
        steps=Steps(size="batch", units=params.count_games),
        estimates=PLAYING,
        check=params.check,
        plays=params.played_game,
        summary=summary.summary,
        labels=LabelKeys(offered=labels.labels),
        uses_model=True,
    )
    yield StagePart(
        name="play.patched",
        help="Lets the model play while features of SAEs are held at other values.",
        params=patched.PatchedPlay,
        run=patched.play_patched,
        version="4",
        reads=(),
        optional=("verdicts", "activations"),
        writes=("games", "rounds"),
        steps=Steps(size="batch", units=patched.count_games),
        estimates=PLAYING,
        check=params.check,
        plays=params.played_game,
        summary=summary.summary,
        uses_model=True,
        uses_saes=True,
    )
    yield SourcePart(
        name="games",
        help="Decisions of played games, each with the prompt exactly as the model saw it.",
        version="2",
        params=source.Games,
        run=source.decisions,
        keeps_labels=True,
        reads=("games", "rounds"),
        uses_model=True,
        estimates=Estimates(max_rows=source.max_rows, expected_rows=source.expected_rows),
    )


def _environments() -> Iterator[Part]:
    yield EnvironmentPart(
        name="slot_machine",
        help="A slot machine with a negative expected value, in three prompt layouts.",
        params=SlotMachine,
        make=slot_machine.SlotMachineGame,
    )
    yield EnvironmentPart(
        name="reward_choice",
        help="One choice between three rewards of equal expected value.",
        params=reward_choice.RewardChoice,
        make=reward_choice.RewardChoiceGame,
    )
    yield EnvironmentPart(
        name="investment",
        help="How much to put at risk in a project, round by round, or to cash out.",
        params=investment.Investment,
        make=investment.InvestmentGame,
    )


def _parsers() -> Iterator[Part]:
    yield ParserPart(
        name="strict",
        help="Reads any plain statement of one option that the prompt offers, and nothing else.",
        version="2",
        params=strict.Strict,
        make=strict.make,
    )
    yield _parser("first", "The option that is named first.", simple.first, version="2")
    yield _parser("last", "The option that is named last.", simple.last, version="2")
    yield _parser(
        "final_decision",
        "The last line with the prompt's label, by the first option that it names.",
        simple.final_decision,
        version="2",
    )
    yield _parser(
        "study_exp1",
        "The gambling study's parser of 6,400 games: stop words anywhere, else a bet.",
        study.exp1,
        guesses=True,
        can_fail=False,
    )
    yield _parser(
        "study_exp0",
        "The gambling study's parser of Exp0 and Exp2: the last amount, else $10.",
        study.exp0,
        guesses=True,
    )
    yield _parser(
        "study_api",
        "The gambling study's parser of API models: looks for a bet before a stop.",
        study.api,
    )
    yield _parser(
        "study_v3",
        "The gambling study's parser of 2026: only the exact final line counts.",
        study.v3,
    )


def _parser(
    name: str,
    help: str,
    make: Callable[[NoParams], Parser],
    *,
    guesses: bool = False,
    can_fail: bool = True,
    version: str = "1",
) -> ParserPart:
    """A parser without params."""
    return ParserPart(
        name=name,
        version=version,
        help=help,
        params=NoParams,
        make=make,
        guesses=guesses,
        can_fail=can_fail,
    )
