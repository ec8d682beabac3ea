"""Params of `trace.pathway`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from toolkit.activations.kept_positions import AtKept
from toolkit_stats.samples.params import Between

if TYPE_CHECKING:
    pass


class Pathway(AtKept, Between):
    """Which groups, which features to follow, and which statistics to compute."""

    order: str | None = Field(
        None,
        min_length=1,
        description="The metadata key that orders a unit's decisions; else sample ids do.",
    )
    track: tuple[str, ...] = Field(
        (), description="Addresses of the features to follow; without any, the `top` of each space."
    )
    top: int = Field(
        5,
        ge=1,
        le=100,
        description="Features of each space that are followed, the largest |d| first.",
    )
    pool: Literal["max", "mean"] = Field(
        "max", description="How several positions of a sample become one value."
    )
    links: Literal["adjacent", "all", "none"] = Field(
        "adjacent",
        description="Correlations of features: between a layer and the next one there is, all "
        "layers, or none.",
    )
    method: Literal["spearman", "pearson"] = Field(
        "spearman",
        description="What correlations are computed from: ranks (which a few strong cases "
        "cannot dominate), or values.",
    )
    min_count: int = Field(
        5,
        ge=2,
        description="Fewest clusters in which a feature must fire for its pairs to be in the "
        "family.",
    )
    keep: int = Field(
        1000, ge=1, le=1_000_000, description="How many of the strongest pairs are written."
    )
    components: int = Field(
        3, ge=1, le=20, description="Principal components of the followed features."
    )
    p_from: int = Field(
        10, ge=3, description="Clusters that the smaller group needs before p-values are shown."
    )
