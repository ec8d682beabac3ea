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
        min_length=1,
        description="Continuations whose first tokens are subtracted from those of `plus`.",
    )


class Attribute(OutcomeParams):
    """The methods, the pairs of prompts, and how much is checked by exact patching."""

    methods: tuple[Method, ...] = Field(
        METHODS, min_length=1, description="The attribution methods to run."
    )
    pair: str = Field(
        "changed_from",
        min_length=1,
        description="The metadata key of a changed prompt that holds the id of its clean prompt.",
    )
    importance: dict[str, float] = Field(
        {},
        description="Addresses of features and their importance, for the published formula: "
        "attention x activation x importance.",
    )
    steps: int = Field(
        8, ge=1, le=256, description="Number of interpolation steps of integrated gradients."
    )
    exact: bool = Field(
        True, description="Patch each token, block and head, and the largest features, exactly."
    )
    exact_features: int = Field(
        20,
        ge=0,
        description="Number of features (each at one token) to patch exactly per layer: those "
        "with the largest attribution by any method.",
    )
    heads: Literal["saes", "all"] = Field(
        "saes",
        description="Layers whose heads are patched, exactly and by attribution patching: those "
        "of the SAEs, or all of the model. `direct` always covers the heads of all layers.",
    )
    batch: int = Field(
        2,
        ge=1,
        description="Samples per step; a clean prompt and its changed copies are in the same step, "
        "since they are one unit.",
    )
    keep: int = Field(
        50,
        ge=1,
        description="Number of features with a row of their own, per method and layer; the others "
        "are summed.",
    )

    @model_serializer(mode="wrap")
    def _without_default_heads(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The params without `heads` at its default, so that it changes no content key."""
        params: dict[str, Any] = dump(self)
        if params.get("heads") == "saes":
            del params["heads"]
        return params
