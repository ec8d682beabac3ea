"""How well two descriptions of a feature agree: a label, words of replies, promoted tokens.

A description is a set of stems. Agreement is the cosine of two sets: shared stems over the
geometric mean of their sizes, from 0 to 1. The agreement expected by chance depends on the
descriptions of the other features, so each number is shown with the mean over them and its rank
among them. Light: no NumPy.
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
"""Words that say nothing about a feature, including the stock words of labels."""
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
    """The agreement of a description with its feature, compared with its agreement with other
    features.
    """

    score: float
    baseline: float
    """The mean over the other features."""
    p: float
    """The share of all features, including this one, that agree at least as well."""


def ranked(
    description: frozenset[str],
    same_feature: frozenset[str],
    other_features: Sequence[frozenset[str]],
) -> RankedAgreement:
    """The agreement of `description` with `same_feature`, another description of its feature, and
    with those of `other_features`.
    """
    score = agreement(description, same_feature)
    other_scores = [agreement(description, other) for other in other_features]
    mean = sum(other_scores) / len(other_scores) if other_scores else 0.0
    as_good = sum(value >= score for value in other_scores)
    return RankedAgreement(score, mean, (1 + as_good) / (1 + len(other_scores)))


def polarity(description: frozenset[str], towards: frozenset[str], away: frozenset[str]) -> float:
    """From -1 to 1: whether a description names words that stand for an outcome or words that stand
    for the other outcomes.
    """
    for_it, against = len(description & towards), len(description & away)
    return (for_it - against) / (for_it + against) if for_it + against else 0.0


def _stem(word: str) -> str:
    """Strip the ending, then one of two equal letters at the end: `betting` becomes `bet`."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST:
            word = word[: -len(ending)]
            break
    doubled = len(word) > _SHORTEST and word[-1] == word[-2] and not word[-1].isdigit()
    return word[:-1] if doubled else word
