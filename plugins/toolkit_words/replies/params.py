"""Params of `words.replies`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from toolkit.activations.kept_positions import AtKept

if TYPE_CHECKING:
    pass


class ReplyWords(AtKept):
    """Which words and features are tested, and the limits of a discovery."""

    span: str | None = Field(
        "generation",
        description="The span whose words are used, by default the reply; null: the whole text.",
    )
    min_length: int = Field(3, ge=1, description="Minimum number of letters or digits in a word.")
    min_clusters: int = Field(
        5,
        ge=2,
        description="Minimum number of clusters of the select half that have a word, that lack "
        "it, in which a feature is high, and in which it is not.",
    )
    prior: float = Field(
        100.0, gt=0, description="Sum of the prior counts of all words (Dirichlet)."
    )
    correct: Literal["bh", "by", "holm", "bonferroni"] = Field(
        "bh", description="Multiple-testing correction over all pairs of a feature and a word."
    )
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Largest q, in each half, that counts as significant."
    )
    top: int = Field(
        20, ge=1, description="Maximum number of words to keep for each feature and direction."
    )
    contexts: int = Field(
        5,
        ge=0,
        description="Number of contexts to keep for each feature with words: the positions where "
        "it fires most strongly.",
    )
    covariates: tuple[str, ...] = Field(
        (),
        description="Numeric metadata keys of the samples, such as balance: each word is listed "
        "with the key that is most associated with it, and the strength of the association.",
    )
    tf_idf: bool = Field(True, description="Also list words by TF-IDF as published.")
    pool: Literal["mean", "max"] = Field(
        "mean", description="How values at several positions of a sample are pooled into one."
    )
