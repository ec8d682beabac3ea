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
    description="Where groups have their own spreads: no variance below the pooled one "
    "(`guarded`), or as SciPy has it (`own`).",
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
        description="The metadata key that names a sample's group, or whose number is followed.",
    )
    unit: str = Field(
        "unit",
        min_length=1,
        description="What is independent: `unit` (also `game`, `sentence`: the samples' own "
        "units), `sample`, or a metadata key.",
    )
    cluster: Literal["prompt", "state", "none"] = Field(
        "prompt",
        description="Which samples are one cluster: those with equal prompts; also those whose "
        "metadata key `state` is equal (what the game says, however it is worded); or none.",
    )
    half: Literal["all", "select", "confirm"] = Field(
        "all", description="Which half of the units is used, or all of them."
    )


class Compare(AtKept, Samples):
    """The params of every comparison."""

    alpha: float = Field(
        0.05, gt=0, lt=1, description="Share of false discoveries (or chance of one) to allow."
    )
    correct: Literal["bh", "by", "storey", "holm", "bonferroni"] = Field(
        "bh",
        description="Correction: bh, by and storey bound the share of false discoveries; holm and "
        "bonferroni any at all.",
    )
    family: Literal["all", "space", "discovered"] = Field(
        "all",
        description="What is corrected together: all spaces, each by itself, or what a needed "
        "stage found on `half: select` (its q and its cut) and this one tests on `half: confirm`.",
    )
    min_count: int = Field(
        0,
        ge=0,
        description="The family consists of the features that fired in at least this many "
        "compared samples.",
    )
    min_density: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Features of the family also fired in at least this share of the compared "
        "samples.",
    )
    details: Literal["discovered", "all"] = Field(
        "discovered",
        description="Which features get intervals and test statistics as well as effect, p and q.",
    )
    pool: Literal["max", "mean"] = Field(
        "max", description="How several positions of a sample become one value."
    )
    missing: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="Samples that were not measured (no row in a space): refuse to run, or leave "
        "them out and count them.",
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
    min_abs_d: float = Field(0.0, ge=0, description="Smallest |d| that is called significant.")


class AurocGroups(TwoGroups):
    """AUROC: each group has its own spread."""

    spread: Literal["guarded", "own"] = SPREAD


class Means(TwoGroups):
    """Tests of means, which can be adjusted for covariates."""

    spread: Literal["guarded", "own"] = SPREAD

    covariates: tuple[str, ...] = Field(
        (),
        description="Metadata keys to adjust for, in a second test: numbers by their slope, "
        "words by their value.",
    )
    within: str | None = Field(
        None,
        min_length=1,
        description="A metadata key; the adjusted test compares within its values.",
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
        999, ge=19, le=100_000, description="Shuffles of the groups' labels over clusters."
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
        description="Correlation of ranks, or of values (pearson: false discoveries where the "
        "number is skewed).",
    )
    min_abs_r: float = Field(
        0.0, ge=0, le=1, description="Smallest |r| that is called significant."
    )


class SeveralGroups(Compare):
    """Several groups at once."""

    between: Annotated[tuple[str, ...], AfterValidator(_different)] | None = Field(
        None, min_length=2, description="The groups; without it, all values of `by`."
    )
    min_eta2: float = Field(
        0.0, ge=0, le=1, description="Smallest share of the spread that is called significant."
    )
