"""`play.patched`: whole games while features of SAEs are held at other values.

A patch is persistent: it edits every targeted token of each prompt and each reply, including tokens
whose keys and values are cached, so that the cache does not change results. `tokens: reply` starts
at the last token of a prompt, from which the first token of the reply is sampled; earlier rounds
are then part of the prompt and are read unedited.

`random_directions` plays that many arms instead, the null of the patch: each makes the same changes
along its own random directions, which are as long as the decoder rows.

Games share repetitions, luck and token draws with the unpatched ones: each pair differs by the
patch alone until the two texts diverge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from toolkit.activations.observed import is_outside, largest_activations, outside_warning
from toolkit.errors import BadInput, DataError, choices
from toolkit.features.addresses import layer_of, locate, parse
from toolkit.parts import Params
from toolkit.saes import space_row
from toolkit.work import Rows, Work

from .arms import Arm, edits_at
from .params import Play
from .params import count_games as games_per_arm

OPERATIONS = ("set", "add", "scale")


class Patch(Params):
    """One feature, or those with given verdicts in a screen, and what is done to it."""

    feature: str | None = Field(
        None, min_length=1, description="Address of the feature, such as 25/2059."
    )
    verdicts: tuple[str, ...] = Field(
        (),
        description="Alternative to `feature`: features with these verdicts in the needed stages.",
    )
    top: int = Field(
        3,
        ge=1,
        description="Maximum number of features with these verdicts: those with the largest "
        "effects.",
    )
    set: float | None = Field(
        None,
        description="Hold the feature at this value. A value above the largest in the activations "
        "of the needed stages causes a warning.",
    )
    add: float | None = Field(None, description="Add this to the feature's value.")
    scale: float | None = Field(
        None, description="Multiply the feature's value by this; 0 ablates it."
    )

    @field_validator("feature")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        try:
            if address is not None:
                parse(address)
        except BadInput as error:
            raise ValueError(str(error)) from None
        return address

    @model_validator(mode="after")
    def _does_one_thing(self) -> Patch:
        operations = [name for name in OPERATIONS if getattr(self, name) is not None]
        if len(operations) != 1:
            raise ValueError(f"give exactly one of {', '.join(OPERATIONS)}")
        if (self.feature is None) != bool(self.verdicts):
            raise ValueError("give either `feature` or `verdicts`")
        return self


class PatchedPlay(Play):
    """Which games are played, and which features are held at other values meanwhile."""

    arm: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="The name of this intervention: the column `arm` of its games, and part of "
        "their names.",
    )
    patch: tuple[Patch, ...] = Field(
        min_length=1,
        description="The features that are changed, all at once; an edit at a later layer sees the "
        "stream that earlier edits left.",
    )
    tokens: Literal["all", "reply"] = Field(
        "all", description="all: every token; reply: from the last token of the prompt on."
    )

    random_directions: int = Field(
        0,
        ge=0,
        le=1000,
        description="Number of arms `NAME_1`, `NAME_2` ... that are played instead, each with the "
        "same changes along random directions as long as the decoder rows.",
    )
    null: bool = Field(
        False,
        description="Whether this is a null arm, such as a patch of random features: `patch.games` "
        "ranks the other arms among the null arms. Arms of `random_directions` always are.",
    )


def count_games(params: PatchedPlay) -> int:
    """The number of games of all arms."""
    return games_per_arm(params) * max(1, params.random_directions)


def play_patched(work: Work) -> Rows:
    """Play this step's games under the patch."""
    from .play import play

    yield from play(work, _arms(work))


def _arms(work: Work) -> list[Arm]:
    params: PatchedPlay = work.params
    _warn_out_of_range(work)
    operations = [operation for patch in params.patch for operation in _operations(work, patch)]
    if not params.random_directions:
        return [_arm(params, params.arm, operations, is_null=params.null)]
    return [
        _arm(
            params,
            f"{params.arm}_{number + 1}",
            _along_random(work, operations, number),
            is_null=True,
        )
        for number in range(params.random_directions)
    ]


def _arm(params: PatchedPlay, name: str, operations: Sequence[Any], *, is_null: bool) -> Arm:
    shared = edits_at(operations, 0) if params.tokens == "all" else ()
    return Arm(name, is_null, operations, params.tokens, shared)


def _along_random(work: Work, operations: Sequence[Any], number: int) -> list[Any]:
    """The same operations, each along a random direction as long as its decoder row."""
    import torch

    from toolkit.edits import OnFeatures

    results = []
    for index, (hookpoint, operation, read_hookpoint) in enumerate(operations):
        if not isinstance(operation, OnFeatures):
            raise BadInput(
                f"random_directions: features of the SAE at {hookpoint} compete with each other, "
                "so their changes cannot be sent along another direction. Use a ReLU or JumpReLU "
                "SAE, or name random features."
            )
        rows = operation.decoder_rows
        rng = work.rng("play.direction", number, index)
        samples = torch.from_numpy(rng.standard_normal(tuple(rows.shape))).to(rows)
        lengths = rows.norm(dim=-1, keepdim=True)
        directions = torch.nn.functional.normalize(samples, dim=-1) * lengths
        results.append((hookpoint, replace(operation, decoder_rows=directions), read_hookpoint))
    return results


def _warn_out_of_range(work: Work) -> None:
    """Warn once about features that are held at more than their largest observed value."""
    set_features = [
        (name, patch.set, largest[0])
        for patch in work.params.patch
        if patch.set is not None
        for name, space, index in _features(work, patch)
        if (largest := largest_activations(work.inputs, space, [index])) is not None
    ]
    above = [entry for entry in set_features if is_outside(entry[1], entry[2])]
    if above and not (work.units or (0, 0))[0]:
        name, value, largest = above[0]
        text = outside_warning(
            len(above), len(set_features), f"feature {name}", value, float(largest)
        )
        work.report.event("warning", text=text)


def _operations(work: Work, patch: Patch) -> list[tuple[str, Any, str | None]]:
    """The operation on each feature that a patch names, by layer."""
    return [_operation(work, patch, *feature) for feature in _features(work, patch)]


def _features(work: Work, patch: Patch) -> list[tuple[str, str, int]]:
    """The features that a patch names, by layer: (address, space, index)."""
    rows = [space_row(work.model.identity, sae) for sae in work.saes]
    if patch.feature is not None:
        space, index = locate(patch.feature, rows)
        return [(patch.feature, str(space["space"]), index)]
    verdict_rows = work.inputs.read("verdicts").to_pylist() if _has_verdicts(work) else []
    matching = [row for row in verdict_rows if row["verdict"] in patch.verdicts]
    matching.sort(key=lambda row: (-abs(row["effect"]), row["space"], row["feature"]))
    feature_keys = list(dict.fromkeys((row["space"], row["feature"]) for row in matching))[
        : patch.top
    ]
    if not feature_keys:
        known_verdicts = sorted({str(row["verdict"]) for row in verdict_rows})
        raise DataError(
            f"patch: no feature has the verdict {' or '.join(patch.verdicts)}. Verdicts of the "
            f"needed stages: {choices(known_verdicts)}. Need a stage of `patch.verdicts`, "
            "or name features."
        )
    layers = {row["space"]: layer_of(row) or 0 for row in rows}
    unknown_space = next((space for space, _ in feature_keys if space not in layers), None)
    if unknown_space is not None:
        raise DataError(
            f"patch: a feature with a verdict is of space {unknown_space}, and the SAEs of this "
            f"stage make {choices([str(row['address']) for row in rows])}. Use the same SAEs."
        )
    feature_keys.sort(key=lambda key: (layers[key[0]], key[1]))
    return [(f"{layers[space]}/{index}", space, index) for space, index in feature_keys]


def _has_verdicts(work: Work) -> bool:
    return "verdicts" in work.inputs.tables()


def _operation(
    work: Work, patch: Patch, name: str, space: str, index: int
) -> tuple[str, Any, str | None]:
    """The operation on a feature, with the hookpoint to edit and the one to read."""
    from toolkit.edits import Add, OnFeatures, Scale, Set

    ids = [space_row(work.model.identity, sae)["space"] for sae in work.saes]
    sae = work.saes[ids.index(space)]
    if patch.set is not None:
        if patch.set < 0:
            raise BadInput(
                f"patch: {name} is set to {patch.set:g}; the activations of this SAE are "
                "never below zero. Set it to 0, or add a negative number."
            )
        change: Any = Set(patch.set)
    elif patch.add is not None:
        change = Add(patch.add)
    else:
        change = Scale(float(patch.scale or 0.0))
    read_hookpoint = None if sae.output_hookpoint == sae.hookpoint else sae.hookpoint
    return sae.output_hookpoint, OnFeatures.of(sae, [index], change), read_hookpoint
