"""The params of an attribution."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from toolkit.parts import Params

Method = Literal[
    "published",
    "rollout",
    "direct",
    "gradient_activation",
    "attribution_patching",
    "integrated_gradients",
    "relp",
]
METHODS: tuple[Method, ...] = get_args(Method)
OF_PAIRS = ("attribution_patching", "integrated_gradients", "relp")
"""Methods that attribute the difference between two prompts."""


class OutcomeParams(Params):
    """The number that is explained: the mean logit of some tokens minus that of others."""

    plus: tuple[str, ...] = Field(
        min_length=1, description="Continuations of the prompt; the first token of each counts."
    )
    minus: tuple[str, ...] = Field(
        min_length=1, description="Continuations whose first tokens are subtracted."
    )


class Attribute(OutcomeParams):
    """The methods, the pairs of prompts, and how much is checked by exact patching."""

    methods: tuple[Method, ...] = Field(METHODS, min_length=1, description="Which methods.")
    pair: str = Field(
        "changed_from",
        min_length=1,
        description="The metadata key by which a changed prompt names the clean one it belongs to.",
    )
    importance: dict[str, float] = Field(
        {},
        description="Addresses of features and their importance, for the published formula: "
        "attention x activation x importance.",
    )
    steps: int = Field(8, ge=1, le=256, description="Points of integrated gradients.")
    exact: bool = Field(
        True, description="Patch each token, block and head, and the largest features, exactly."
    )
    exact_features: int = Field(
        20,
        ge=0,
        description="Features (each at one token) that are patched exactly, per layer: the largest "
        "of all methods.",
    )
    heads: Literal["saes", "all"] = Field(
        "saes",
        description="Layers whose heads attribution patching and exact patching take: those of the "
        "SAEs, or all of the model. `direct` always has the heads of all layers.",
    )
    batch: int = Field(
        2,
        ge=1,
        description="Samples of one step; a clean prompt and its changed copies share one, since "
        "they share a unit.",
    )
    keep: int = Field(
        50,
        ge=1,
        description="Features that get a row, per method and layer; the others are summed.",
    )

    @model_serializer(mode="wrap")
    def _without_default_heads(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The params without `heads` at its default, so that it changes no content key."""
        params: dict[str, Any] = dump(self)
        if params.get("heads") == "saes":
            del params["heads"]
        return params
