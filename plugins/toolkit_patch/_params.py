"""What a spec says of a causal screen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit.parts import Params


class Delta(Params):
    """What is screened, on which decision points, and what counts as an outcome."""

    outcomes: dict[str, tuple[str, ...]] = Field(
        description="Outcome -> the continuations of the prompt that mean it; they "
        "must "
        "differ from their "
        "first token on.",
        min_length=1,
    )
    outcome: str | None = Field(
        None, description="The outcome that verdicts are about; the first one if left out."
    )
    between: tuple[str, str] | None = Field(
        None, description="The two groups whose means are the values; as compared."
    )
    top: int = Field(
        8, ge=1, description="How many features are screened: those with the largest |d|."
    )
    min_abs_d: float = Field(0.3, ge=0, description="Features with a smaller |d| are not screened.")
    min_count: int = Field(10, ge=1, description="A feature must have fired in so many samples.")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Limit of q, for the selection and for the verdicts."
    )
    min_effect: float = Field(
        0.01, ge=0, le=1, description="Smaller changes of the probability are no effect."
    )
    points: int = Field(
        200, ge=2, description="Decision points at most; one of each unit before a second of any."
    )
    half: Literal["confirm", "all"] = Field(
        "confirm", description="confirm: the half of the units that the comparison did not see."
    )
    random: int = Field(
        20, ge=19, description="Random features beside each candidate; 19 are needed to tell 5 %."
    )
