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
        description="The metadata key that orders the decisions of a unit; by default they are "
        "ordered by sample id.",
    )
    track: tuple[str, ...] = Field(
        (),
        description="Addresses of the features to follow; by default the `top` features of each "
        "space.",
    )
    top: int = Field(
        5,
        ge=1,
        le=100,
        description="Number of features to follow per space: those with the largest |d|.",
    )
    pool: Literal["max", "mean"] = Field(
        "max", description="How values at several positions of a sample are pooled into one."
    )
    links: Literal["adjacent", "all", "none"] = Field(
        "adjacent",
        description="Between which layers features are correlated: each layer and the next "
        "available one, all layers, or none.",
    )
    method: Literal["spearman", "pearson"] = Field(
        "spearman",
        description="Correlation of ranks (spearman), which a few extreme values cannot dominate, "
        "or of values (pearson).",
    )
    min_count: int = Field(
        5,
        ge=2,
        description="Minimum number of clusters in which a feature must fire for its pairs to be "
        "tested.",
    )
    keep: int = Field(
        1000, ge=1, le=1_000_000, description="Number of pairs to write, the strongest first."
    )
    components: int = Field(
        3, ge=1, le=20, description="Number of principal components of the followed features."
    )
    p_from: int = Field(
        10,
        ge=3,
        description="Minimum number of clusters in the smaller group for p-values to be reported.",
    )
