"""Finds the options of a prompt in a text: at one position, or anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from toolkit.samples.games import Option, Prompt, Reply, lines_of, normal

NO_AMOUNT, NOT_OFFERED = "no amount", "amount not offered"
AMBIGUOUS, UNREADABLE, EMPTY = "ambiguous", "no decision", "empty"

_DIGITS = r"[0-9]{1,15}"
MONEY = (
    rf"(?:us)?\$ ?{_DIGITS}(?![.,]?[0-9])|(?<![0-9.,]){_DIGITS} ?(?:\$|dollars?\b|usd\b|bucks\b)"
)
_END = r"(?![0-9a-z$%])"
_MARK = r"\s*[).:,=-]*\s*"
_SIZE = (
    r"(?:(?:all|exactly|just|only|a|an|the|my)\s+)*"
    r"(?:(?:minimum|maximum|min|max|small|smallest|lowest|highest|modest|safe|total|full|fixed)"
    r"\s+)?"
    r"(?:(?:bet|amount|stake|sum|wager)\s+)?(?:of\s+)?"
)
_NAMED_KEY = r"(?:option|choice|number|no\.|#)\s*"
_CLOSED = (
    r"(?=\s*(?:$|\n|[.;!?)](?!\S)|,(?!\s*\$?[0-9])|[:=](?!\s*\$?[0-9])|-\s+(?!\$?[0-9])|\()"
    r"|\s+(?:and|because|since|as|so|but|or|please|on|for|now|then|this|with|while|at|again|to"
    r"|given|considering|bet|stake|wager|it|the|would|is|was|seems|looks|i)\b)"
    r"(?!\s+(?:to\s+go|as\s+well\s+as|on\s+average|for\s+every|again\s+(?:and|lost))\b)"
)
"""What may follow a bare number, an amount or the number of an option: the end, punctuation or a
word that goes on about the decision. A noun or a direction (`2 wins`, `30 percent`, `$100 left`)
says that the number is about something else.
"""
_NO_NOUN = (
    r"(?!\s*%|\s+(?:more|less|left|percent|rounds?|times?|games?|wins?|loss(?:es)?|up|down)\b"
    r"|\s+in\s+\d)"
)
"""What may not follow an amount behind the words of its option."""
_NO_STAKE = (
    rf"(?!{_MARK}{_SIZE}-?(?:(?:us)?\$|[0-9]))"
    r"(?!\s+(?:no|not|nothing|none|never|half|zero|less|more|again|against|everything|all|twice"
    r"|double|a\s+(?:third|quarter|part)|i|you|he|she|it|they|we|that|this|there|your|nobody)\b)"
)
"""What may not follow the words of an option that takes an amount, where no amount follows: an
amount that is not legible, a share, or the rest of `I bet you will win`.
"""
_NO_OTHER_VERB = (
    r"(?!\s+(?!(?:play|bett|gambl|wager|go|be)ing\b)[a-z]+ing\b"
    r"|\s+to\s+(?:think|consider|reflect|ponder|ask|wonder)\b)"
)
"""What may not follow the words of an option without an amount: `Stop worrying`."""


@dataclass(frozen=True)
class Mention:
    """A mention of one option in a text: its start and end, and its amount if it has one."""

    option: Option
    amount: int | None
    start: int
    end: int

    def verdict(self) -> Reply:
        """The option as an action; a failure if its amount is not offered."""
        option = self.option
        if option.low is None or option.high is None:
            return Reply(action=option.action)
        if self.amount is None:
            if option.low == option.high:
                return Reply(action=option.action, amount=option.low)
            return Reply(failure=NO_AMOUNT)
        if not option.low <= self.amount <= option.high:
            return Reply(failure=NOT_OFFERED)
        return Reply(action=option.action, amount=float(self.amount))


def mention_at(text: str, prompt: Prompt, start: int = 0) -> Mention | None:
    """The option named at `start`, by the longest match; None if two options match equally far."""
    candidates = []
    for option in prompt.options:
        for pattern in _patterns(option, prompt.options):
            match = pattern.match(text, start)
            if match is not None and match.end() > start:
                candidates.append(Mention(option, _amount(match), start, match.end()))
    if not candidates:
        return None
    longest = max(candidates, key=lambda mention: mention.end)
    rivals = {mention.option for mention in candidates if mention.end == longest.end}
    return longest if len(rivals) == 1 else None


def mentions(text: str, prompt: Prompt) -> list[Mention]:
    """Mentions of options by a word or an amount of money, in the order of the text."""
    results = []
    for option in prompt.options:
        for match in _mention(option).finditer(text):
            results.append(Mention(option, _amount(match), match.start(), match.end()))
    return sorted(results, key=lambda mention: mention.start)


def numbered(text: str, prompt: Prompt) -> list[Mention]:
    """Mentions of options by their number in the prompt, such as `2)`, in the order of the text."""
    results = []
    for option in prompt.options:
        if option.key:
            for match in _numbered(option.key).finditer(text):
                results.append(Mention(option, None, match.start(), match.end()))
    return sorted(results, key=lambda mention: mention.start)


@lru_cache(maxsize=4096)
def prompt_lines(text: str) -> frozenset[str]:
    """The lines of a prompt, in normal form."""
    return frozenset(lines_of(text))


def _amount(match: re.Match[str]) -> int | None:
    amount = match.groupdict().get("amount")
    return (
        int("".join(character for character in amount if character.isdigit())) if amount else None
    )


@lru_cache(maxsize=4096)
def _patterns(option: Option, options: tuple[Option, ...]) -> tuple[re.Pattern[str], ...]:
    """Patterns that name this option at the beginning of a phrase."""
    words = rf"(?:{_inflected_words(option)}){_END}" if option.words else ""
    keys = _key_patterns(option.key, words)
    if option.low is None:
        named = [rf"{words}{_NO_OTHER_VERB}"] if words else []
        named += [rf"{key}{_MARK}{words}{_NO_OTHER_VERB}" for key, _ in keys if words]
        return tuple(re.compile(text) for text in [*named, *(key + end for key, end in keys)])
    amount = rf"(?P<amount>{MONEY}|{_DIGITS}){_END}(?![.,][0-9]){_NO_NOUN}"
    stake = rf"(?:\s*\([^()]*\)(?=\s*[:=-]))?{_MARK}{_SIZE}(?<!-){amount}"
    texts = [
        rf"(?P<amount>{MONEY}){_END}{_CLOSED}",
        rf"(?P<amount>{_bare_amount(options)})(?![.,]?[0-9])(?![a-z%$)]){_CLOSED}",
    ]
    if words:
        texts += [rf"{words}{stake}", rf"{words}{_NO_STAKE}"]
    for key, end in keys:
        if words:
            texts += [rf"{key}{_MARK}(?:and\s+)?{words}{tail}" for tail in (stake, _NO_STAKE)]
        texts += [rf"{key}{_MARK}{_SIZE}(?<!-){amount}", rf"{key}{end}{_NO_STAKE}"]
    return tuple(re.compile(text) for text in texts)


def _key_patterns(key: str, words: str) -> list[tuple[str, str]]:
    """Patterns of an option's number, each with what has to follow where no word of the option
    does: anything but such a word if the number is marked as one (`2)`, `option 2`), and otherwise
    what may follow a bare number.
    """
    if not key:
        return []
    number = rf"{re.escape(key)}(?![0-9%a-z$])(?![.,][0-9])"
    no_amount = r"(?!\s*(?:\$(?!\s?[0-9])|dollars?\b|bucks\b))(?!\s*[-/+*x]\s*[0-9])"
    no_words = rf"(?!{_MARK}(?:and\s+)?(?:{words}))" if words else ""
    marked = rf"(?:\({number}\)|{number}\)|{_NAMED_KEY}\(?{number}\)?){no_amount}"
    return [(marked, no_words), (rf"\(?{number}\)?{no_amount}", rf"{no_words}{_CLOSED}")]


def _bare_amount(options: tuple[Option, ...]) -> str:
    """A number without a unit, unless it is the number of an option."""
    keys = "|".join(re.escape(option.key) for option in options if option.key)
    return rf"(?!(?:{keys})(?![0-9])){_DIGITS}" if keys else _DIGITS


@lru_cache(maxsize=4096)
def _mention(option: Option) -> re.Pattern[str]:
    words = rf"\b(?:{_exact_words(option)})(?![0-9a-z])" if option.words else r"(?!)"
    if option.low is None:
        return re.compile(words)
    return re.compile(rf"{words}(?:{_MARK}{_SIZE}(?P<amount>{MONEY}|{_DIGITS}))?")


@lru_cache(maxsize=256)
def _numbered(key: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![0-9a-z$.,]){re.escape(key)}\)|\boption {re.escape(key)}\b")


def _exact_words(option: Option) -> str:
    """A pattern of the option's words as they are, the longest first: `Betting is risky` names no
    option.
    """
    ordered = sorted((normal(word) for word in option.words), key=len, reverse=True)
    return "|".join(r"\s+".join(map(re.escape, word.split())) for word in ordered)


def _inflected_words(option: Option) -> str:
    """A pattern of the option's words, the longest first, each also with -s and -ing."""
    ordered = sorted((normal(word) for word in option.words), key=len, reverse=True)
    return "|".join(_inflected(word) for word in ordered)


def _inflected(word: str) -> str:
    verb, _, particles = word.partition(" ")
    stem = re.escape(verb)
    if verb.isalpha():
        stem += rf"(?:s|{re.escape(verb[-1])}?ing)?"
    return stem + "".join(rf"\s+{re.escape(part)}" for part in particles.split())
