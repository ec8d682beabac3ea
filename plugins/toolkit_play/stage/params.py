"""The params of `play.games`: the game, the parser, the number of games, and how replies are
sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from toolkit.errors import BadInput
from toolkit.parts import Params, StagedGame, UsedEnvironment, UsedParser
from toolkit.samples.games import HOST_OUTCOMES, Environment, tokens_of


class Reask(Params):
    """Ask again where a reply could not be read."""

    max: int = Field(
        5, ge=1, le=100, description="Maximum number of times that one request is repeated."
    )
    reminder: str = Field(
        "Answer with exactly one of the options above.",
        min_length=1,
        description="The line that is added to the prompt when it is repeated.",
    )


class Play(Params):
    """Which games are played, how often, and how replies are drawn and read."""

    game: UsedEnvironment = Field(
        description="The environment: its rules, its conditions and its prompts."
    )
    parser: UsedParser = Field(
        default={"uses": "strict"},
        validate_default=True,
        description="The parser that reads the replies.",
    )
    reps: int = Field(1, ge=1, le=1_000_000, description="Games per condition.")
    batch: int = Field(64, ge=1, le=100_000, description="Games per step.")
    temperature: float = Field(
        0.7, gt=0, le=100, description="Sampling temperature of the replies."
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Maximum length of a reply in tokens, within the model's context; a longer "
        "reply counts as truncated. null: as the game's prompts require, 32 for an option alone "
        "and 1,024 for a reason before it.",
    )
    min_new_tokens: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Minimum length of a reply in tokens: the model cannot end it earlier, but a "
        "complete deciding line ends it.",
    )
    chat: bool = Field(False, description="Apply the model's chat template to the prompt.")
    reask: Reask | None = Field(
        None,
        description="Repeat the request when a reply cannot be read; without `reask` the game "
        "ends.",
    )
    storm: int = Field(
        20,
        ge=0,
        le=10_000,
        description="Stop a condition when nine in ten of its first replies, this many or a few "
        "more, are unreadable: its remaining repetitions are not played. 0: never.",
    )

    @model_validator(mode="after")
    def _can_be_played(self) -> Play:
        try:
            game = self.game.make()
            conditions = game.conditions()
        except BadInput as error:
            raise ValueError(f"game: {error}") from error
        if not conditions:
            raise ValueError(f"game: {self.game.uses} has no conditions with these params")
        names = [condition.id for condition in conditions]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"game: {self.game.uses} has two conditions '{repeated[0]}', and games are named "
                "after their condition. Name each once"
            )
        reserved = sorted(set(game.outcomes) & set(HOST_OUTCOMES))
        if reserved:
            raise ValueError(f"game: its outcome '{reserved[0]}' is reserved for play.games")
        if self.max_new_tokens is None:
            object.__setattr__(self, "max_new_tokens", game.reply_tokens)
        if self.reply_budget < (least := tokens_of(game.example_reply)):
            raise ValueError(
                f"max_new_tokens is {self.reply_budget}; the shortest reply that the prompts of "
                f"{self.game.uses} ask for takes {least}: {game.example_reply!r}. Raise it to at "
                "least that; models that explain themselves need some hundreds"
            )
        if self.min_new_tokens > self.reply_budget:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}, above max_new_tokens "
                f"{self.reply_budget}; lower it"
            )
        self._check_parser(game)
        if self.reask is not None and not self.parser.part.can_fail:
            raise ValueError(
                f"reask: parser {self.parser.uses} reads every reply as a decision, so nothing "
                "is ever asked again. Leave reask out, or name another parser"
            )
        return self

    def _check_parser(self, game: Environment) -> None:
        """Refuse a parser that decides on every reply, but not by an option of this game."""
        if self.parser.part.can_fail:
            return
        parse = self.parser.make()
        for condition in game.conditions():
            prompt = game.prompt(game.start(condition.settings))
            words = [word for option in prompt.options for word in option.words]
            if any(parse(text, prompt).failure is not None for text in ("", *words)):
                raise ValueError(
                    f"parser: {self.parser.uses} decides on every reply, but not by the options "
                    f"that the prompts of {self.game.uses} offer. Name another parser, such as "
                    "strict"
                )

    @property
    def reply_budget(self) -> int:
        """The longest reply in tokens."""
        assert self.max_new_tokens is not None
        return self.max_new_tokens

    @property
    def attempts(self) -> int:
        """The most attempts at one decision."""
        return 1 + (self.reask.max if self.reask else 0)

    @property
    def leaders(self) -> int:
        """How many repetitions of a condition decide whether the others are played; 0: all are."""
        return -(-self.storm // self.attempts)


def played_game(params: Play) -> StagedGame:
    """The game, how often and with which reminder a decision is requested, and which games lead."""
    reminder = params.reask.reminder if params.reask else ""
    return StagedGame(
        game=params.game, attempts=params.attempts, reminder=reminder, leaders=params.leaders
    )


def count_games(params: Play) -> int:
    """The number of games."""
    return len(params.game.make().conditions()) * params.reps


def check(params: Play, facts: Mapping[str, Any]) -> str | None:
    """Why the model cannot play these games; None if it can."""
    if params.chat and facts.get("chat_template") is False:
        return (
            "chat: the model has no chat template. Leave chat out, or name a model that was "
            "trained to chat."
        )
    return None
