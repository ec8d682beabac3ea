"""The params of traced paths."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from toolkit.parts import Params
from toolkit.samples.selectors import Selector

MIN_EFFECT = 1e-3


class TracePath(Params):
    """A path from an outcome through features, top layer first, to tokens."""

    plus: tuple[str, ...] = Field(
        min_length=1, description="Continuations of the prompt that the path explains."
    )
    minus: tuple[str, ...] = Field(
        min_length=1, description="Continuations that they are compared with."
    )
    through: tuple[str, ...] = Field(
        min_length=1,
        description="Addresses of features from the outcome down, such as [31/10692, 8/2059].",
    )
    to: Selector = Field(description="The tokens where the path begins, such as {span: balance}.")
    freeze: tuple[Literal["attention", "norms", "mlp"], ...] = Field(
        ("attention", "norms"),
        description="What gradients hold constant; interventions freeze nothing.",
    )
    steps: int = Field(
        32,
        ge=1,
        le=1024,
        description="Gradients that are averaged on the way from the stream without the lower end "
        "to the stream as it is; 1: one gradient, half way.",
    )
    min_effect: float = Field(
        MIN_EFFECT,
        ge=0,
        description="A hop is not confirmed if its intervention moves the upper end by less.",
    )
    batch: int = Field(8, ge=1, description="Samples of one step.")
    name: str | None = Field(None, min_length=1, description="The path's name in tables.")

    @field_validator("to", mode="before")
    @classmethod
    def _is_selector(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"write a selector, such as {{span: balance}}, not '{value}'")
        return value

    def label(self) -> str:
        """The path as text, or its name."""
        outcome = f"{'|'.join(self.plus)} - {'|'.join(self.minus)}"
        end = self.to.span or "tokens"
        return self.name or " <- ".join([outcome, *self.through, end])


class SummarisePaths(Params):
    """The conditions for a hop to be confirmed over all prompts."""

    min_effect: float = Field(
        MIN_EFFECT,
        ge=0,
        description="A hop with a smaller mean effect is not confirmed.",
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="The largest q of a confirmed hop.")
