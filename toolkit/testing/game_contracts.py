"""Contract checks of parsers and environments."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.parts import (
    EnvironmentPart,
    ParserPart,
    Part,
)
from toolkit.samples.games import HOST_OUTCOMES, Environment, Option, Prompt, Reply, State, Turn
from toolkit.testing.judging import EXAMPLE
from toolkit.testing.promises import Broken, as_json_data, must

NONSENSE = (
    "",
    " ",
    "\n\n",
    "\x00\x1b[31m",
    "qzx wvq",
    "\U0001f3b2" * 9,
    "{" * 500,
    "z" * 20_000,
    "\u202e\u0301\ufffd",
)
NUMBERS = ("-1", "NaN", "1e999", "0", "9" * 400, "\u0661\u0662", "$", "1,000.50.2")
CHECKED_CONDITIONS, CHECKED_ROUNDS = 8, 12


def check_parser(part: ParserPart, params: Any) -> None:
    """Check that it never raises on any text, and that text without an action is a failure, never a
    default, unless the part says that it guesses.
    """
    parse = part.make(params)
    for text in (*NONSENSE, *NUMBERS):
        try:
            reply, repeated = parse(text, EXAMPLE), parse(text, EXAMPLE)
        except Exception as error:
            raise Broken(
                f"{part.kind} part '{part.name}': it raised {error!r} on {text[:20]!r}"
            ) from error
        must(
            isinstance(reply, Reply),
            part,
            f"it returned {type(reply).__name__} instead of a Reply on {text[:20]!r}",
        )
        must(
            reply == repeated,
            part,
            f"it returned a different result the second time on {text[:20]!r}",
        )
        if text in NONSENSE and not part.guesses:
            must(
                reply.failure,
                part,
                f"it read the action '{reply.action}' in {text[:20]!r}, which names none; return a "
                "failure, not a default",
            )
        must(
            reply.failure is None or part.can_fail,
            part,
            f"its part has can_fail=False, but it could not read {text[:20]!r}",
        )
        must(
            reply.amount is None or math.isfinite(reply.amount),
            part,
            f"it returned the amount {reply.amount} on {text[:20]!r}",
        )


def check_environment(part: EnvironmentPart, params: Any) -> None:
    """Check that its conditions have distinct names, and that a game continues from its state as
    JSON, does not change a given state, repeats with the same generator, and accepts every option
    of a prompt.
    """
    game = part.make(params)
    conditions = game.conditions()
    must(conditions, part, "it has no conditions")
    names = [condition.id for condition in conditions]
    must(len(set(names)) == len(names), part, "two conditions have the same id")
    must(game.outcomes, part, "its `outcomes` are empty")
    clash = sorted(set(game.outcomes) & set(HOST_OUTCOMES))
    must(not clash, part, f"its outcomes {clash} are reserved for the playing stage")
    for condition in conditions[:CHECKED_CONDITIONS]:
        must(
            as_json_data(condition.settings) == dict(condition.settings),
            part,
            f"the settings of condition '{condition.id}' are not plain JSON data",
        )
        for first in range(2):
            _play_through(part, game, condition.settings, first)


def _play_through(
    part: EnvironmentPart, game: Environment, settings: Mapping[str, Any], first: int
) -> None:
    """Play one game that takes the options in turn, starting with option `first`."""
    state = game.start(settings)
    must(
        as_json_data(state) == as_json_data(game.start(settings)),
        part,
        "two games with the same condition start differently",
    )
    for turn in range(CHECKED_ROUNDS):
        must(
            as_json_data(state) == dict(state),
            part,
            "its state is not plain JSON data (lists for tuples, text for keys)",
        )
        prompt = _checked_prompt(part, game, state)
        numbers = game.numbers(state)
        must(
            all(isinstance(value, float) and math.isfinite(value) for value in numbers.values()),
            part,
            f"its numbers are not finite floats: {numbers}",
        )
        option = prompt.options[(first + turn) % len(prompt.options)]
        state = _stepped(part, game, state, Reply(option.action, option.high), turn)
        outcome = game.outcome(state)
        must(
            outcome is None or outcome in game.outcomes,
            part,
            f"its outcome is {outcome!r}; return one of its `outcomes`, or None to continue",
        )
        if outcome is not None:
            return


def _checked_prompt(part: Part, game: Environment, state: State) -> Prompt:
    prompt = game.prompt(state)
    must(
        isinstance(prompt, Prompt) and prompt == game.prompt(as_json_data(state)),
        part,
        "its prompt depends on more than its state",
    )
    for name, start, end in prompt.spans:
        must(
            0 <= start < end <= len(prompt.text),
            part,
            f"span '{name}' is not a half-open range of its prompt's characters",
        )
    must(prompt.options, part, "its prompt offers no options, so that no reply could be read")
    for option in prompt.options:
        must(
            isinstance(option, Option) and (option.key or option.words),
            part,
            f"option '{option.action}' has neither a key nor words, so that no reply can name it",
        )
    keys = [option.key for option in prompt.options if option.key]
    must(len(set(keys)) == len(keys), part, "two options of a prompt have the same key")
    return prompt


def _stepped(part: Part, game: Environment, state: State, reply: Reply, turn: int) -> State:
    copied = copy.deepcopy(dict(state))
    after = game.step(state, reply, np.random.default_rng(turn))
    must(
        isinstance(after, Turn),
        part,
        f"step returned {type(after).__name__} instead of a Turn",
    )
    must(dict(state) == copied, part, "step changes the state that it was given; return a new one")
    repeated = game.step(as_json_data(state), reply, np.random.default_rng(turn))
    must(after == repeated, part, "the same state, reply and generator gave a different state")
    return after.state
