"""Params of `words.replies`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from toolkit.kept_positions import AtKept

if TYPE_CHECKING:
    pass


class ReplyWords(AtKept):
    """Which words and features are tested, and the limits of a discovery."""

    span: str | None = Field(
        "generation",
        description="The span whose words are read: the reply. null: the whole text.",
    )
    min_length: int = Field(3, ge=1, description="Letters or digits that a word has at least.")
    min_clusters: int = Field(
        5,
        ge=2,
        description="Clusters of the select half that have a word, and that do not, at least; "
        "and in which a feature is high, and is not.",
    )
    prior: float = Field(
        100.0, gt=0, description="Sum of the prior counts of all words (Dirichlet)."
    )
    correct: Literal["bh", "by", "holm", "bonferroni"] = Field(
        "bh", description="Correction over all pairs of features and words."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Limit of q in either half.")
    top: int = Field(20, ge=1, description="Words that are kept of a feature and direction.")
    contexts: int = Field(
        5, ge=0, description="Places where a feature with words fires hardest that are kept."
    )
    covariates: tuple[str, ...] = Field(
        (),
        description="Numbers of the samples' metadata, such as balance: beside each word stands "
        "the one that goes with it most, and how much.",
    )
    tf_idf: bool = Field(True, description="Also list words by TF-IDF as published.")
    pool: Literal["mean", "max"] = Field(
        "mean", description="What several positions of a sample are together."
    )
