"""Games that a model plays: the interface of environments and parsers.

An environment turns a state into a prompt and an action into the next state. A parser reads one
reply to one prompt. `play.*` stages do the rest: they draw replies, ask again, end games whose
replies cannot be read, and write the tables `games` and `rounds`.

A small environment needs `start`, `prompt`, `step` and `outcome`; all other methods have defaults.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import DataError
from toolkit.statistics.randomness import generator

if TYPE_CHECKING:
    import numpy as np

State = Mapping[str, Any]
"""The state of a game: plain JSON data, so that a game can be stopped and resumed on any machine.
"""

ROUND_LIMIT = "round_limit"
INVALID = "invalid_reply"
TRUNCATED = "truncated"
NOT_PLAYED = "not_played"
FAILED_OUTCOMES = (INVALID, TRUNCATED, NOT_PLAYED)
"""Outcomes of games that no decision ended: the reply could not be read or was cut off, or the
condition was stopped before the game began.
"""
HOST_OUTCOMES = (ROUND_LIMIT, *FAILED_OUTCOMES)
"""Outcomes that the playing stage sets; outcomes of environments need other names."""


_TYPOGRAPHY = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "-",
        "\u2212": "-",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "\u200b": "",
        "\u200d": "",
        "\ufeff": "",
        "\ufe0f": "",
        "\u20e3": "",
        "\u3002": ".",
    }
)
_ESCAPED = re.compile(r"\\(?=[$%*_#)(])")
_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathbf)\{([^{}]*)\}")
_MATH = re.compile(r"\$+\s*(\\(?:boxed|text|textbf|mathbf)\{.*\})\s*\$+")
_PICTURES = re.compile("[\u2300-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]+")
_ARROWS = re.compile(r"(^|:)\s*(?:[\u2190-\u21ff\u27f5-\u27ff]+\s*|=+\s+)")
_EMPHASIS = re.compile(r"\*+|~~|`+|(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])")
_LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s+|>\s*|[-+\u2022\u00b7*]\s+|\|\s*)+")
_BRACKETS = re.compile(r"[<\[{\"]+|[>\]}\"]+")
_THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3})((?:[, ][0-9]{3})+)(?![0-9])")
_CENTS = re.compile(r"(?<=[0-9])\.0{1,2}(?![0-9])")
_BLANKS = re.compile(r"[ \t\f\v]+")


@dataclass(frozen=True)
class Option:
    """An option that a prompt offers, and how a reply may name it."""

    action: str
    """The action that `Environment.step` gets."""
    key: str = ""
    """Its number in the prompt, such as `1`."""
    words: tuple[str, ...] = ()
    """The words that name it, such as `Stop playing` and `Stop`. Case does not matter."""
    low: float | None = None
    """The lowest amount offered with it; None if it takes no amount."""
    high: float | None = None
    """The highest amount offered with it. If equal to `low`, the reply need not name an amount."""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low or 0) > (self.high or 0):
            raise ValueError(
                f"option '{self.action}': give both low and high, with low at most high"
            )


@dataclass(frozen=True)
class Prompt:
    """A rendered decision."""

    text: str
    spans: tuple[tuple[str, int, int], ...] = ()
    """(name, first character, past-last character)."""
    options: tuple[Option, ...] = ()
    """The available choices, in the order of the text."""
    decides: Literal["start", "end"] = "start"
    """Where a reply states its decision: on its first or last line."""
    label: str = "Final Decision"
    """What the deciding line begins with, if `decides` is `end`."""


@dataclass(frozen=True)
class Reply:
    """A parsed reply: an action, or a typed failure. Never both, never a default."""

    action: str | None = None
    amount: float | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        if (self.action is None) == (self.failure is None):
            raise ValueError("A reply is either an action or a failure")


Parser = Callable[[str, Prompt], Reply]
"""Reads a reply to a prompt."""


@dataclass(frozen=True)
class Condition:
    """The settings that a set of games shares."""

    id: str
    """Short and stable: it begins the names of the games."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What `Environment.start` gets."""
    switches: Mapping[str, bool] = field(default_factory=dict)
    """Settings that are on or off, such as a line of the prompt. Measures estimate the effect of
    each.
    """
    groups: Mapping[str, str] = field(default_factory=dict)
    """The groups by which a report divides its tables, such as a bet mode."""
    label: str = ""
    """A name for people; the id if empty."""


@dataclass(frozen=True)
class Scenario:
    """A named state of a game, such as one that a study examined."""

    name: str
    state: State
    group: str = ""
    """The kind of situation, such as `risky`; empty if there is none."""
    twin_of: str = ""
    """The scenario that this one corrects: the same situation without its contradictions of the
    rules.
    """


@dataclass(frozen=True)
class Turn:
    """The result of an action: the next state, the stake after the rules clipped it, and whether it
    was won.
    """

    state: State
    bet: float | None = None
    won: bool | None = None


class Environment(ABC):
    """A game. It never sees a reply that could not be read: the playing stage ends such a game."""

    outcomes: Sequence[str] = ()
    """Its possible outcomes. Measures report the first one with intervals."""
    leaving: Sequence[str] = ()
    """The actions by which the player ends the game, such as `stop`. Measures estimate what makes
    them more likely, and count the other decisions as rounds.
    """
    max_rounds: int = 100
    """A game that has not ended after this many rounds ends with the outcome `round_limit`."""
    example_reply: str = ""
    """A whole reply of the form that its prompts ask for, as short as one can be, with the longest
    amount: a budget of new tokens without room for it is refused.
    """
    reply_tokens: int = 32
    """The budget of new tokens where the spec names none."""

    def conditions(self) -> Sequence[Condition]:
        """Every condition of these params."""
        return [Condition("plain")]

    @abstractmethod
    def start(self, settings: Mapping[str, Any]) -> State:
        """The first state of a game under these settings of a condition."""

    @abstractmethod
    def prompt(self, state: State) -> Prompt:
        """What the model reads."""

    @abstractmethod
    def step(self, state: State, reply: Reply, rng: np.random.Generator) -> Turn:
        """The next state after an action. `rng` is `chance`: it depends on the repetition and the
        round alone.
        """

    @abstractmethod
    def outcome(self, state: State) -> str | None:
        """How the game ended, one of `outcomes`; None while it continues."""

    def scenarios(self) -> Sequence[Scenario]:
        """Named states, which studies of this game examined."""
        return ()

    def contradictions(self, state: State) -> Sequence[str]:
        """Contradictions of the rules in a state, as its prompt describes it: one sentence each."""
        return ()

    def numbers(self, state: State) -> Mapping[str, float]:
        """The numbers of a state that go into the tables. `balance` is the player's money."""
        return {
            name: float(value)
            for name, value in state.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }


STORM_SHARE = 0.9


def is_storm(unreadable: int, replies: int) -> bool:
    """Whether so many of a condition's first replies cannot be read that it is stopped: nine in ten
    or more.
    """
    return replies > 0 and unreadable >= STORM_SHARE * replies


def chance(seed: int, repetition: int, round: int) -> np.random.Generator:
    """The generator that `Environment.step` gets: equal for every condition, model and arm."""
    return generator(seed, "play.win", repetition, round)


def state_hash(state: State, settings: Mapping[str, Any]) -> str:
    """A hash of a state without its condition's settings. Equal hashes mean equal states."""
    facts = {name: value for name, value in state.items() if name not in settings}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tokens_of(text: str) -> int:
    """Tokens that a reply takes with an ordinary tokeniser, its end included: a word, a digit, a
    mark and a line break each count one.
    """
    return 1 + len(re.findall(r"\d|[^\W\d]+|[^\w\s]|\n", text))


def judge(parser: Parser, text: str, prompt: Prompt, *, cut_off: bool = False) -> Reply:
    """Parse a reply. A reply that was cut off counts only if its deciding line is complete: `Bet
    $1` may be the beginning of `Bet $100`. Blanks up to the limit are an empty reply.
    """
    if not cut_off:
        return _offered(parser(text, prompt), prompt)
    if not text.strip():
        verdict = parser(text, prompt)
        return verdict if verdict.failure is not None else Reply(failure=TRUNCATED)
    complete = decided(text, prompt) if prompt.decides == "end" else ""
    return _offered(parser(complete, prompt), prompt) if complete else Reply(failure=TRUNCATED)


def _offered(reply: Reply, prompt: Prompt) -> Reply:
    """The same reply; an error if its action is none of the prompt's."""
    actions = [option.action for option in prompt.options]
    if reply.action is not None and actions and reply.action not in actions:
        raise DataError(
            f"the parser returned action '{reply.action}', which the prompt does not offer; it "
            f"offers {', '.join(actions)}. Correct the parser, or choose another one."
        )
    return reply


def with_reminder(prompt: Prompt, reminder: str) -> Prompt:
    """The prompt with a reminder: before its last line if the reply continues that line, at its end
    if the reply ends with the decision.
    """
    if prompt.decides == "end":
        return replace(prompt, text=f"{prompt.text}\n\n{reminder}")
    last_line_start = prompt.text.rfind("\n") + 1
    added = f"{reminder}\n"
    spans = tuple(
        (name, begin + len(added), end + len(added))
        if begin >= last_line_start
        else (name, begin, end)
        for name, begin, end in prompt.spans
    )
    return replace(
        prompt,
        text=prompt.text[:last_line_start] + added + prompt.text[last_line_start:],
        spans=spans,
    )


def decided(text: str, prompt: Prompt) -> str:
    """The reply up to the end of the first complete line that has text after the prompt's label and
    is not quoted from the prompt; empty if there is none.
    """
    label = re.compile(rf"{re.escape(prompt.label)}[\s*_:]*[^\s*_:]", re.IGNORECASE)
    quoted = {line.strip() for line in prompt.text.split("\n")}
    end = 0
    for line in text.split("\n")[:-1]:
        end += len(line) + 1
        if label.search(line) and line.strip() not in quoted:
            return text[:end]
    return ""


def normal(text: str) -> str:
    """A text in the form that parsers compare: in lower case and plain characters, line by line,
    without markdown, brackets, quotation marks and thousands separators.
    """
    text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)
    text = text.replace("\r\n", "\n").replace("\r", "\n").lower()
    return "\n".join(_normal_line(line) for line in text.split("\n"))


def lines_of(text: str) -> list[str]:
    """The non-empty lines of a text in normal form."""
    return [line for line in normal(text).split("\n") if line]


def _normal_line(line: str) -> str:
    line = _ESCAPED.sub("", _MATH.sub(r"\1", line))
    while (inner := _LATEX.sub(r"\1", line)) != line:
        line = inner
    line = _BRACKETS.sub(" ", _EMPHASIS.sub("", _PICTURES.sub(" ", line)))
    line = _ARROWS.sub(r"\1 ", line)
    line = _LINE_MARK.sub("", line)
    line = _THOUSANDS.sub(lambda match: match[1] + re.sub(r"[, ]", "", match[2]), line)
    line = _CENTS.sub("", line)
    return _BLANKS.sub(" ", line).strip(" |'")
