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
        min_length=1, description="Continuations of the prompt whose logits the path explains."
    )
    minus: tuple[str, ...] = Field(
        min_length=1, description="Continuations whose logits are subtracted."
    )
    through: tuple[str, ...] = Field(
        min_length=1,
        description="Addresses of features from the outcome down, such as [31/10692, 8/2059].",
    )
    to: Selector = Field(description="The tokens where the path begins, such as {span: balance}.")
    freeze: tuple[Literal["attention", "norms", "mlp"], ...] = Field(
        ("attention", "norms"),
        description="What is held constant in gradients; interventions hold nothing constant.",
    )
    steps: int = Field(
        32,
        ge=1,
        le=1024,
        description="Number of gradients to average between the stream without the lower end of a "
        "hop and the unedited stream; 1: one gradient at the midpoint.",
    )
    min_effect: float = Field(
        MIN_EFFECT,
        ge=0,
        description="Minimum effect of the intervention on the upper end for a hop to be "
        "confirmed.",
    )
    batch: int = Field(8, ge=1, description="Samples per step.")
    name: str | None = Field(None, min_length=1, description="The name of the path in tables.")

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
        description="Minimum mean effect of a confirmed hop.",
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Largest q of a confirmed hop.")
