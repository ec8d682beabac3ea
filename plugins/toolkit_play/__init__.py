"""Games that language models play: environments, parsers, and playing them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import EnvironmentPart, Estimates, ParserPart, Part, SourcePart, StagePart, Steps

from . import _cost, _play, _slot_machine, _source, _strict


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield EnvironmentPart(
        name="slot_machine",
        help="A slot machine with a negative expected value, in three prompt layouts.",
        params=_slot_machine.SlotMachine,
        make=_slot_machine.Game,
    )
    yield ParserPart(
        name="strict",
        help="Reads the one decision line of a reply, in exactly one form.",
        params=_strict.Strict,
        make=_strict.make,
    )
    yield StagePart(
        name="play.games",
        help="Lets the model play slot-machine games, all games of a step at once.",
        params=_play.Play,
        run=_play.play,
        reads=(),
        writes=("games", "rounds"),
        steps=Steps(size="batch", units=_play.count_games),
        estimates=Estimates(max_rows=_cost.max_rows, cost=_cost.playing),
        uses_model=True,
    )
    yield SourcePart(
        name="games",
        help="Decisions of played games, each with the prompt exactly as the model saw it.",
        params=_source.Games,
        run=_source.decisions,
        reads=("games", "rounds"),
        uses_model=True,
        estimates=Estimates(max_rows=_source.max_rows),
    )
