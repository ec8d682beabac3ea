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
        description="The span whose words are read: the reply. null: the whole text.",
    )
    min_length: int = Field(3, ge=1, description="Fewest letters or digits of a word.")
    min_clusters: int = Field(
        5,
        ge=2,
        description="Fewest clusters of the select half that must have a word, and lack it; "
        "and in which a feature must be high, and not high.",
    )
    prior: float = Field(
        100.0, gt=0, description="Sum of the prior counts of all words (Dirichlet)."
    )
    correct: Literal["bh", "by", "holm", "bonferroni"] = Field(
        "bh", description="Correction over all pairs of features and words."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Limit of q in either half.")
    top: int = Field(
        20, ge=1, description="Most words that are kept for each feature and direction."
    )
    contexts: int = Field(
        5,
        ge=0,
        description="For each feature with words, how many of the places where it fires hardest "
        "are kept.",
    )
    covariates: tuple[str, ...] = Field(
        (),
        description="Numbers of the samples' metadata, such as balance: each word is listed "
        "with the one that goes with it most, and how much.",
    )
    tf_idf: bool = Field(True, description="Also list words by TF-IDF as published.")
    pool: Literal["mean", "max"] = Field(
        "mean", description="How several positions of a sample become one value."
    )
