"""How far two descriptions of a feature agree: a label, words of replies, promoted tokens.

A description is a set of stems. Agreement is the cosine of two sets: shared stems over the
geometric mean of their sizes, from 0 to 1. What it is by chance is up to the descriptions of the
other features, so a number is shown beside the mean over them and with its rank among them. Light:
no NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_COMMON = frozenset(
    "a about after all also an and any are as at be been being but by can concept concepts context "
    "contexts do does each expression expressions for from had has have here how if in indicating "
    "instance instances into is it its like may mention mentions more most no not of on one or "
    "other over phrase phrases reference references related relating some specific such text than "
    "that the their them then there these they this those to token tokens up use various was were "
    "what when where which who will with word words would you your".split()
)
"""Words that say nothing about a feature; among them those that labels are full of."""
_ENDINGS = "ations ation ings ing edly ers er ies ed es ly s y e".split()
_SHORTEST = 3


def stems(text: str) -> frozenset[str]:
    """The stems of a text: letters and digits in lower case, common words left out, endings cut."""
    words = re.findall(r"[^\W_]+", text.lower())
    return frozenset(_stem(word) for word in words if len(word) > 1 and word not in _COMMON)


def stems_of(texts: Iterable[str]) -> frozenset[str]:
    """The stems of several texts together."""
    return frozenset(stem for text in texts for stem in stems(text))


def agreement(first: frozenset[str], second: frozenset[str]) -> float:
    """The cosine of two sets of stems; 0 where one is empty."""
    if not first or not second:
        return 0.0
    shared = len(first & second)
    return float(shared / (len(first) * len(second)) ** 0.5)


@dataclass(frozen=True)
class RankedAgreement:
    """An agreement beside those that the same description has with other features."""

    score: float
    baseline: float
    """The mean over the other features."""
    p: float
    """The share of all features, this one counted, that agree at least as well."""


def ranked(
    first: frozenset[str], own: frozenset[str], others: Sequence[frozenset[str]]
) -> RankedAgreement:
    """The agreement of `first` with the feature's `own` description, and with those of `others`."""
    score = agreement(first, own)
    elsewhere = [agreement(first, other) for other in others]
    mean = sum(elsewhere) / len(elsewhere) if elsewhere else 0.0
    as_good = sum(value >= score for value in elsewhere)
    return RankedAgreement(score, mean, (1 + as_good) / (1 + len(elsewhere)))


def polarity(description: frozenset[str], towards: frozenset[str], away: frozenset[str]) -> float:
    """From -1 to 1: whether a description names words that stand for an outcome, or for others."""
    for_it, against = len(description & towards), len(description & away)
    return (for_it - against) / (for_it + against) if for_it + against else 0.0


def _stem(word: str) -> str:
    """Without its ending, and with one of two equal letters at the end: `betting` is `bet`."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST:
            word = word[: -len(ending)]
            break
    doubled = len(word) > _SHORTEST and word[-1] == word[-2] and not word[-1].isdigit()
    return word[:-1] if doubled else word
