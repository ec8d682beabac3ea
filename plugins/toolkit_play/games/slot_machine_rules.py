"""The rules, conditions and layout of a slot machine, as a spec gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from toolkit.errors import BadInput
from toolkit.parts import Params

from .components import COMPONENTS, Wording, canonical, mask_of

Mode = Literal["fixed", "variable"]
FirstResult = Literal["none", "win", "loss"]
Layout = Literal["restart", "corrected", "scenario"]

MODES: tuple[Mode, ...] = get_args(Mode)
FIRST_RESULTS: tuple[FirstResult, ...] = get_args(FirstResult)

DESIGNS: Mapping[str, Mapping[str, Any]] = {
    "restart_128": {"layout": "restart", "first_results": ("win", "loss")},
    "corrected_64": {"layout": "corrected", "first_results": ("none",)},
}
"""Params that each published design fixes. Its components and modes default to all."""


class SlotMachine(Params):
    """The rules, the conditions and the layout of the prompts."""

    design: Literal["restart_128", "corrected_64"] | None = Field(
        None,
        description="A published design: restart_128 has both forced first results in layout "
        "restart, corrected_64 has none in layout corrected. Each has both bet modes and all 32 "
        "sets of components.",
    )
    layout: Layout = Field("restart", description="Wording and order of the prompt.")
    components: Literal["all"] | tuple[str, ...] = Field(
        "all",
        description="Sets of prompt components, each written as a text of the letters GMHWP; all: "
        "every set that the layout has.",
    )
    modes: tuple[Mode, ...] = Field(MODES, min_length=1, description="Bet modes.")
    first_results: tuple[FirstResult, ...] = Field(
        ("none",), min_length=1, description="Forced results of the first round: win, loss or none."
    )
    forced_result: Literal["consistent", "as_published"] = Field(
        "consistent",
        description="consistent: the forced round is a round of the game, with its payout. "
        "as_published: only the first prompt mentions it, with $130 after a win of $10, and "
        "the game begins with the start balance.",
    )
    wording: Wording = Field("task", description="Wording of the components.")
    cap: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Matched caps: the fixed bet, and the upper limit of the variable bet.",
    )
    start: int = Field(100, ge=1, le=10**9, description="Balance before the first round.")
    win_rate: float = Field(0.30, ge=0, le=1, description="Probability of a win, in every round.")
    payout: float = Field(3.0, ge=0, le=1000, description="A win credits this many times the bet.")
    min_bet: int = Field(
        5,
        ge=1,
        le=10**9,
        description="Lowest bet in variable mode; a smaller balance is bet completely.",
    )
    fixed_bet: int = Field(10, ge=1, le=10**9, description="The bet in fixed mode.")
    max_bet: int = Field(
        100,
        ge=1,
        le=10**9,
        description="Highest variable bet; in layout corrected it is the balance.",
    )
    max_rounds: int = Field(100, ge=1, le=10_000, description="A game ends after this many rounds.")
    shown_rounds: int = Field(
        5, ge=1, le=10_000, description="Number of last rounds that the prompt shows."
    )
    warn_losses: int = Field(
        3, ge=1, le=10_000, description="Number of consecutive losses from which the prompt warns."
    )
    goal: int = Field(
        200, ge=1, le=10**9, description="The balance that layout scenario names as the goal."
    )

    @field_validator("components")
    @classmethod
    def _known_components(
        cls, value: Literal["all"] | tuple[str, ...]
    ) -> Literal["all"] | tuple[str, ...]:
        if value == "all":
            return "all"
        try:
            canonical_sets = tuple(canonical(text) for text in value)
        except BadInput as error:
            raise ValueError(str(error)) from error
        if not canonical_sets or len(set(canonical_sets)) != len(canonical_sets):
            raise ValueError("name at least one set of components, and each once; or write 'all'")
        return canonical_sets

    @model_validator(mode="before")
    @classmethod
    def _follow_the_design(cls, values: Any) -> Any:
        design = DESIGNS.get(values.get("design") or "") if isinstance(values, Mapping) else None
        if design is None:
            return values
        for name, fixed in design.items():
            chosen = values.get(name, fixed)
            chosen = tuple(chosen) if isinstance(chosen, list) else chosen
            if chosen != fixed:
                raise ValueError(
                    f"{name}: design {values['design']} has {name} {fixed}; leave {name} out, or "
                    "leave the design out"
                )
        return {**values, **design}

    @model_validator(mode="after")
    def _conditions_differ(self) -> SlotMachine:
        if self.max_bet < self.min_bet:
            raise ValueError(
                f"max_bet is {self.max_bet}, below min_bet {self.min_bet}; raise one or lower the "
                "other"
            )
        if self.cap is not None and self.cap < self.min_bet:
            raise ValueError(f"cap is {self.cap}, below min_bet {self.min_bet}; raise it")
        for name, levels in (("modes", self.modes), ("first_results", self.first_results)):
            if len(set(levels)) != len(levels):
                raise ValueError(f"{name}: a value occurs twice")
        if self.layout == "scenario" and self.components != "all" and any(self.components):
            raise ValueError(
                "components: layout scenario has its own three rule lines; write 'all' or leave "
                "components out"
            )
        return self

    def masks(self) -> list[int]:
        """The sets of components that are played, as bitmasks."""
        if self.components != "all":
            return [mask_of(text) for text in self.components]
        return [0] if self.layout == "scenario" else list(range(1 << len(COMPONENTS)))


def fixed_bet(rules: SlotMachine) -> int:
    """The bet of fixed mode, before the balance limits it."""
    return rules.fixed_bet if rules.cap is None else rules.cap


def highest_bet(rules: SlotMachine, balance: int) -> int:
    """The highest variable bet that a prompt names."""
    highest = balance if rules.layout == "corrected" else rules.max_bet
    return highest if rules.cap is None else min(highest, rules.cap)
