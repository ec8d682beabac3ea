"""Params of comparisons: the samples, what is independent, the family of the correction, and the
thresholds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from toolkit.activations.kept_positions import AtKept
from toolkit.parts import Params

REST = "rest"
"""In `between`: every sample that has the metadata and is not in the other group."""


SPREAD: Any = Field(
    "guarded",
    description="Variances where groups have their own: none below the pooled one (`guarded`), or "
    "each group's own, as in SciPy (`own`).",
)


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and len(names) == 2:
        raise ValueError(f"both groups are '{twice[0]}'; name two different ones")
    if twice:
        raise ValueError(f"'{twice[0]}' is named twice; name each group once")
    return names


class Samples(Params):
    """Which samples are compared, by which key, and what is independent among them."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    by: str = Field(
        min_length=1,
        description="The metadata key that holds a sample's group, or the number to correlate "
        "with.",
    )
    unit: str = Field(
        "unit",
        min_length=1,
        description="The independent unit: `unit` (or `game`, `sentence`: the unit of the "
        "samples), `sample`, or a metadata key.",
    )
    cluster: Literal["prompt", "state", "none"] = Field(
        "prompt",
        description="Which samples form a cluster, besides those of one unit. prompt: samples with "
        "equal prompts; state: also samples with an equal metadata key `state` (the same "
        "game state, whatever its wording); none: no others.",
    )
    half: Literal["all", "select", "confirm"] = Field(
        "all", description="Which half of the units is compared, or all of them."
    )


class Compare(AtKept, Samples):
    """The params of every comparison."""

    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Significance level: the allowed false discovery rate, or the family-wise "
        "error rate with holm and bonferroni.",
    )
    correct: Literal["bh", "by", "storey", "holm", "bonferroni"] = Field(
        "bh",
        description="Correction: bh, by and storey control the false discovery rate; holm and "
        "bonferroni the family-wise error rate.",
    )
    family: Literal["all", "space", "discovered"] = Field(
        "all",
        description="Which tests are corrected together: those of all spaces; those of each "
        "space; or, tested on `half: confirm`, only the features that a needed stage found "
        "significant on `half: select`.",
    )
    min_count: int = Field(
        0,
        ge=0,
        description="Minimum number of compared samples in which a feature of the family fired.",
    )
    min_density: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Minimum share of the compared samples in which a feature of the family fired.",
    )
    details: Literal["discovered", "all"] = Field(
        "discovered",
        description="Which features get intervals and test statistics in addition to effect, p "
        "and q.",
    )
    pool: Literal["max", "mean"] = Field(
        "max", description="How values at several positions of a sample are pooled into one."
    )
    missing: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="What to do with samples that were not measured (no row in a space): refuse "
        "to run, or leave them out and report their number.",
    )

    @model_validator(mode="after")
    def _on_the_other_half(self) -> Compare:
        if self.family == "discovered" and self.half != "confirm":
            raise ValueError(
                "family: 'discovered' is tested on units that did not select the features: "
                "half: confirm, and "
                f"half: select in the stage that it needs (found half: {self.half})"
            )
        return self


Pair = Annotated[
    tuple[str, str],
    AfterValidator(_different),
    Field(
        description="The two groups, `rest` for all others; positive effects are higher in the "
        "first."
    ),
]


class Between(Samples):
    """Two groups, without tests of single features."""

    between: Pair


class TwoGroups(Compare):
    """Two groups, and the smallest difference that counts."""

    between: Pair
    min_abs_d: float = Field(0.0, ge=0, description="Smallest |d| that counts as significant.")


class AurocGroups(TwoGroups):
    """AUROC: each group has its own spread."""

    spread: Literal["guarded", "own"] = SPREAD


class Means(TwoGroups):
    """Tests of means, which can be adjusted for covariates."""

    spread: Literal["guarded", "own"] = SPREAD

    covariates: tuple[str, ...] = Field(
        (),
        description="Metadata keys to adjust for in a second test: a number as a linear term, "
        "text as categories.",
    )
    within: str | None = Field(
        None,
        min_length=1,
        description="A metadata key; the adjusted test compares samples with the same value of it.",
    )


class Ranks(TwoGroups):
    """Rank tests, over all samples or within strata."""

    within: str | None = Field(
        None,
        min_length=1,
        description="A metadata key; ranks are taken within its values, then pooled.",
    )


class Shuffles(TwoGroups):
    """A permutation test."""

    permutations: int = Field(
        999,
        ge=19,
        le=100_000,
        description="Number of permutations of the group labels over clusters.",
    )
    within: str | None = Field(
        None,
        min_length=1,
        description="A metadata key; labels are shuffled within its values only.",
    )


class Trend(Compare):
    """Correlation with a number."""

    method: Literal["pearson", "spearman"] = Field(
        "spearman",
        description="Correlation of ranks (spearman) or of values (pearson, which makes false "
        "discoveries where the number is skewed).",
    )
    min_abs_r: float = Field(
        0.0, ge=0, le=1, description="Smallest |r| that counts as significant."
    )


class SeveralGroups(Compare):
    """Several groups at once."""

    between: Annotated[tuple[str, ...], AfterValidator(_different)] | None = Field(
        None, min_length=2, description="The groups to compare; by default all values of `by`."
    )
    min_eta2: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Smallest eta squared (share of the variance) that counts as significant.",
    )
