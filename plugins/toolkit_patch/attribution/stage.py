"""`patch.attribution`: estimates the effect of each screened feature by gradients, to compare with
the exact one.

One forward and one backward pass per decision point give the gradient of an outcome's probability
at the output of every SAE. A feature's specific effect is then estimated as (difference of its
two values) x (its decoder row . gradient). `atp` takes the plain gradient (attribution patching),
`relp` the one with attention patterns, the scale of norms and the gates of MLPs held constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.saes import space_id
from toolkit_patch.one_screen import of_one_screen
from toolkit_patch.screen.candidates import read_features
from toolkit_patch.screen.gradients import Method, estimates, mean_gradients
from toolkit_patch.screen.outcomes import read_outcomes
from toolkit_patch.screen.params import PatchOutcomes
from toolkit_patch.screen.points import decision_points

if TYPE_CHECKING:
    from toolkit.saes import Sae
    from toolkit.work import Rows, Work
    from toolkit_patch.screen.candidates import ComparedFeatures

    Row = Mapping[str, Any]


class Attribution(PatchOutcomes):
    """Which gradients are taken, and at which decision points."""

    between: tuple[str, str] | None = Field(
        None,
        description="The two groups whose means a feature is set to, named as in the comparison.",
    )
    methods: tuple[Method, ...] = Field(
        ("atp", "relp"), min_length=1, description="The gradient methods."
    )
    points: int = Field(
        200,
        ge=2,
        description="Maximum number of decision points; with the number of the screen they are "
        "the same points.",
    )
    half: Literal["confirm", "all"] = Field(
        "confirm", description="confirm: the half of the units that the comparison did not see."
    )


def attribute(work: Work) -> Rows:
    """Rows of `gradient_effects` for every screened feature of the contrast."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    params: Attribution = work.params
    compared = read_features(work.inputs, params.between, params.half, work.seed)
    exact = _screened(work, compared)
    saes = {space_id(work.model.identity, sae): sae for sae in work.saes}
    used_saes = {space: sae for space, sae in saes.items() if any(space == key[0] for key in exact)}
    points = decision_points(work, params.points, params.half)
    outcomes = read_outcomes(work.model, params.outcomes, points[0].text, points[0].ids)
    hookpoints = sorted({sae.output_hookpoint for sae in used_saes.values()})
    rows: list[dict[str, Any]] = []
    for number, method in enumerate(params.methods):
        finished = number, len(params.methods)
        gradients = mean_gradients(work, method, points, outcomes, hookpoints, finished)
        for space, sae in used_saes.items():
            rows += _space_rows(
                compared, exact, space, sae, gradients[sae.output_hookpoint], method
            )
    for row in rows:
        row |= {"comparison": compared.comparison.id, "outcome": params.about}
    yield "gradient_effects", pa.Table.from_pylist(rows, schema=arrow_schema("gradient_effects"))


def _screened(work: Work, compared: ComparedFeatures) -> dict[tuple[str, int], float]:
    """The exact specific effect of each screened feature."""
    rows = [
        row
        for row in work.inputs.read("screens").to_pylist()
        if row["comparison"] == compared.comparison.id and row["outcome"] == work.params.about
    ]
    return {(row["space"], row["feature"]): row["effect"] for row in of_one_screen(rows)}


def _space_rows(
    compared: ComparedFeatures,
    exact: Mapping[tuple[str, int], float],
    space: str,
    sae: Sae,
    gradient: Any,
    method: Method,
) -> list[dict[str, Any]]:
    """One row per screened feature of a space."""
    space_index = compared.spaces.index(space)
    rows = [
        row
        for row in compared.of_space(space_index)
        if (space, int(compared.feature[row])) in exact
    ]
    features = [int(compared.feature[row]) for row in rows]
    predicted = estimates(compared, rows, sae, gradient)
    return [
        {
            "space": space,
            "feature": feature,
            "method": method,
            "estimate": estimate,
            "exact": exact[space, feature],
        }
        for feature, estimate in zip(features, predicted.tolist(), strict=True)
    ]
