"""The params of `patch.delta` and `patch.verdicts`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from toolkit.parts import Params
from toolkit.samples.selectors import At

from .candidate_files import read_addresses

Arm = Literal["reconstruct", "random_feature", "random_direction", "shuffled", "mean_difference"]
ARMS: tuple[Arm, ...] = (
    "reconstruct",
    "random_feature",
    "random_direction",
    "shuffled",
    "mean_difference",
)
"""Control arms that a spec may leave out. The sham and the values of both groups always run."""


class Candidates(Params):
    """Which features are screened: the family that every p-value is corrected over."""

    top: int | None = Field(
        16, ge=1, description="Number of features to screen; null: all that pass the limits below."
    )
    by: Literal["abs_d", "q"] = Field(
        "abs_d", description="How features are ranked: by |d| or by q."
    )
    per: Literal["run", "layer"] = Field(
        "run", description="layer: `top` features of each space; run: `top` of all spaces together."
    )
    min_abs_d: float = Field(0.3, ge=0, description="Features with a smaller |d| are left out.")
    max_q: float | None = Field(
        0.05, gt=0, le=1, description="Features with a larger q are left out; null: none."
    )
    min_count: int = Field(
        10, ge=1, description="Minimum number of samples in which a feature must have fired."
    )
    features: tuple[str, ...] = Field(
        (), description="Addresses such as 25/2059: these features and no others."
    )

    unfired: Literal["refuse", "screen"] = Field(
        "refuse",
        description="What to do with named features that never fired in the compared samples: "
        "refuse to run, or screen them with the value 0 for both groups, so that the declared "
        "family stays complete.",
    )
    file: str | None = Field(
        None,
        description="A file of features, relative to the spec: CSV with a column `address` (as "
        "`toolkit query features --csv` writes it) or `layer` and `feature`, or the JSON of the "
        "sink `exp1_json`. These features and no others.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_all(cls, candidates: Any, info: ValidationInfo) -> Any:
        """`all` stands for every feature that ever fired. `file` is replaced by the features in it,
        so that its content enters the key of the stage.
        """
        if candidates == "all":
            return {"top": None, "min_abs_d": 0.0, "max_q": None, "min_count": 1}
        if isinstance(candidates, dict) and candidates.get("file") is not None:
            others = {name: value for name, value in candidates.items() if name != "file"}
            if others.get("features"):
                raise ValueError("give `file` or `features`, not both")
            folder = (info.context or {}).get("folder")
            return {**others, "features": read_addresses(str(candidates["file"]), folder)}
        return candidates


class Wording(Params):
    """A wording that is put into a prompt to ask for the behaviour."""

    text: str = Field(min_length=1, description="The wording.")
    before: str | None = Field(
        None,
        min_length=1,
        description="Insert the wording before the last occurrence of this text in the prompt; "
        "null: at the start of the prompt.",
    )


class PatchOutcomes(Params):
    """The outcomes whose probabilities are measured, and the one that a stage reports on."""

    outcomes: dict[str, tuple[str, ...]] = Field(
        description="For each outcome, the continuations of the prompt that count as it; their "
        "first tokens must differ.",
        min_length=1,
    )
    outcome: str | None = Field(
        None,
        description="The outcome whose probability effects are measured on; by default the first "
        "one.",
    )

    @model_validator(mode="after")
    def _names_an_outcome(self) -> Self:
        from toolkit.errors import choices, nearest

        if self.outcome is not None and self.outcome not in self.outcomes:
            raise ValueError(
                f"there is no outcome '{self.outcome}'.{nearest(self.outcome, self.outcomes)} "
                f"Outcomes: {choices(self.outcomes)}."
            )
        return self

    @property
    def about(self) -> str:
        """The outcome that effects are about."""
        return self.outcome or next(iter(self.outcomes))


class FollowUp(PatchOutcomes):
    """At which decision points the features that a screen found are measured again."""

    between: tuple[str, str] | None = Field(
        None,
        description="The two groups whose means a feature is set to, named as in the comparison.",
    )
    points: int = Field(
        120,
        ge=2,
        description="Maximum number of decision points; every unit contributes one before any "
        "contributes a second.",
    )
    half: Literal["select", "confirm", "all"] = Field(
        "select",
        description="select: the half of the units that the screen did not use, so that effects "
        "are independent of those that chose the features.",
    )


class Delta(PatchOutcomes, At):
    """What is screened, at which decision points, and what counts as an outcome."""

    between: tuple[str, str] | None = Field(
        None,
        description="The two groups whose means a feature is set to, named as in the comparison.",
    )
    candidates: Candidates = Field(
        default_factory=lambda: Candidates.model_validate({}),
        description="Which features are screened: a rule, addresses, a file of addresses, or "
        "`all`.",
    )
    screen: Literal["exact", "relp_then_exact"] = Field(
        "exact",
        description="exact: every candidate; relp_then_exact: those whose effect a gradient (RelP) "
        "estimates largest. The others stay in the family, with p 1.",
    )
    exact_checks: int = Field(
        512, ge=1, description="With relp_then_exact: how many candidates are screened exactly."
    )
    points: int = Field(
        200,
        ge=2,
        description="Maximum number of decision points; every unit contributes one before any "
        "contributes a second.",
    )
    half: Literal["confirm", "all"] = Field(
        "confirm", description="confirm: the half of the units that the comparison did not see."
    )
    arms: tuple[Arm, ...] = Field(
        ARMS, description="Control arms in addition to the sham arm and the two group values."
    )
    control_saes: Literal["random_decoder"] | None = Field(
        None,
        description="random_decoder: the same candidates are screened again with the encoders as "
        "they are and decoder rows replaced by random directions of equal length; the report "
        "states both rates of verdicts. null: no control.",
    )
    prompt_only: Wording | None = Field(
        None,
        description="A reference arm: the unedited model, with this wording in the prompt that "
        "asks for the behaviour.",
    )
    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Features whose effect over the units has a larger p are not compared with "
        "random directions and are not called causal.",
    )
    min_effect: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Features that change the probability by less are not compared with random "
        "directions and are not called causal.",
    )
    null: Literal["auto", "features", "directions"] = Field(
        "auto",
        description="What random directions are: decoder rows of other features that fire as "
        "often, or random combinations of the decoder rows of all features that fire. auto: "
        "decoder rows where enough features are not candidates.",
    )
    directions: int = Field(
        999,
        ge=19,
        description="Maximum number of random directions per space, shared by its features.",
    )
    direction_points: int = Field(
        60,
        ge=2,
        description="Maximum number of decision points at which random directions are tested.",
    )
    keep: Literal["passing", "all"] = Field(
        "passing", description="Which features get rows per decision point in `effects`."
    )
    step: int = Field(4096, ge=1, description="Features per step.")


class Verdicts(Params):
    """When a screened feature is called causal."""

    alpha: float = Field(
        0.05, gt=0, lt=1, description="Largest corrected p-value of a causal feature."
    )
    min_effect: float = Field(
        0.01, ge=0, le=1, description="Smaller changes of the probability are not called causal."
    )


def written_tables(params: Delta) -> tuple[str, ...]:
    """The tables that a screen writes with these params."""
    return ("screens", "effects", *(("control_screens",) if params.control_saes else ()))


def family_size(params: Delta, saes: Any) -> int:
    """The most features that are screened exactly, from the params and the facts about the SAEs."""
    family = _declared_size(params.candidates, saes)
    return family if params.screen == "exact" else min(family, params.exact_checks)


def _declared_size(candidates: Candidates, saes: Any) -> int:
    if candidates.features:
        return len(candidates.features)
    feature_count = int(saes.get("features", 1 << 20))
    if candidates.top is None:
        return feature_count
    return min(
        feature_count,
        candidates.top * (int(saes.get("count", 1)) if candidates.per == "layer" else 1),
    )
