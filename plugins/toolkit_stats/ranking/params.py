"""Params of `compare.ranking`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from toolkit.activations.kept_positions import Asked, AtKept

if TYPE_CHECKING:
    pass

PRESETS: Mapping[str, tuple[float, float, float]] = {
    "default": (0.4, 0.5, 0.2),
    "strict": (0.6, 0.7, 0.1),
    "loose": (0.3, 0.4, 0.3),
}
"""Smallest r, smallest true-positive rate, largest false-positive rate."""


class Ranking(AtKept):
    """Which label, how strict, and how many features are written."""

    by: str = Field(min_length=1, description="The metadata key that holds the label, a number.")
    labels: tuple[float, ...] = Field(
        (0, 1, 2, 3), min_length=2, description="The values of the label, in rising order."
    )
    at: Asked | None = Field(
        "last",
        description="Which of the kept positions to read, as in a comparison; the largest value of "
        "a sample's positions counts. The published pipeline reads the last token.",
    )
    preset: Literal["default", "strict", "loose"] = Field(
        "default", description="Filters on r, TPR and FPR, as published."
    )
    min_r: float | None = Field(
        None, ge=-1, le=1, description="Minimum r, instead of the preset's."
    )
    min_tpr: float | None = Field(
        None, ge=0, le=1, description="Minimum true-positive rate, instead of the preset's."
    )
    max_fpr: float | None = Field(
        None, ge=0, le=1, description="Maximum false-positive rate, instead of the preset's."
    )
    missing: Literal["error", "null"] = Field(
        "error",
        description="What to do with a label that has no samples, and with samples that have no "
        "label: refuse to run (error), or report them as unknown and leave them out (null).",
    )
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Allowed false discovery rate of the sound ranking."
    )
    rows: int = Field(
        2000,
        ge=1,
        description="Number of features to write: the best by either score; all that pass are "
        "written too.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Ranking:
        if list(self.labels) != sorted(set(self.labels)):
            raise ValueError(
                f"labels {list(self.labels)} do not rise; write each once, from none to most"
            )
        return self

    def filters(self) -> tuple[float, float, float]:
        """Smallest r, smallest TPR, largest FPR."""
        own_values = (self.min_r, self.min_tpr, self.max_fpr)
        r, tpr, fpr = (
            given_value if given_value is not None else usual
            for given_value, usual in zip(own_values, PRESETS[self.preset], strict=True)
        )
        return r, tpr, fpr
