"""`patch.delta`: a causal screen of features at the last token of decision points. Features of a
transcoder are edited where it writes.

Each candidate is set to the mean of either group, error term kept, and has control arms. The
effect that counts is *specific*: one group's value against the other's, in the exact probability of
an outcome. Effects that are significant over the units are compared with random directions of equal
length at the same points. `patch.verdicts` judges the features of all steps together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.features.comparisons import addresses_of
from toolkit.saes import space_id

from .arms import MeanDifference, check_sites
from .baselines import mean_differences, shuffled_values
from .candidates import ComparedFeatures, family, read_features, with_unfired
from .control import RandomDecoder
from .gradients import estimates, mean_gradients
from .measure import measure
from .null import run_direction_tests
from .observed import warn_out_of_range
from .outcomes import Outcomes, read_outcomes
from .points import Point, decision_points
from .rows import Measured, effect_rows, screen_rows
from .setup import Screen

if TYPE_CHECKING:
    import numpy as np

    from toolkit.saes import Sae
    from toolkit.work import Rows, Work

    from .pool import DirectionTest


def patch(work: Work) -> Rows:
    """Rows of `screens` for the features of this step, and of `effects` for those that pass."""
    screen = _prepare(work)
    if screen is None:
        return
    measured, passing, direction_tests = _screened(screen)
    yield "screens", screen_rows(screen, measured, direction_tests)
    written = passing if screen.params.keep == "passing" else passing | True
    yield "effects", effect_rows(screen, measured, direction_tests, written)
    if screen.params.control_saes == "random_decoder":
        control = _with_random_decoders(screen)
        measured, _, direction_tests = _screened(control)
        yield "control_screens", screen_rows(control, measured, direction_tests, "control_screens")


def _screened(screen: Screen) -> tuple[Measured, Any, dict[int, DirectionTest]]:
    """The results of all arms, which candidates pass on their own, and their direction tests."""
    measured = measure(screen)
    passing = abs(measured.specific.mean) >= screen.params.min_effect
    passing &= measured.specific.p <= screen.params.alpha
    return measured, passing, run_direction_tests(screen, passing)


def _with_random_decoders(screen: Screen) -> Screen:
    """The same screen of SAEs with random decoders, with the sham and both values only."""
    saes = {
        space: RandomDecoder(sae, screen.work, screen.candidates.spaces[space])
        for space, sae in screen.saes.items()
    }
    params = screen.params.model_copy(update={"arms": (), "prompt_only": None})
    return replace(screen, saes=saes, params=params, shuffled=None, means={})


def _prepare(work: Work) -> Screen | None:
    import numpy as np

    params, model = work.params, work.model
    compared = read_features(work.inputs, params.between, params.half, work.seed)
    spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    compared = with_unfired(compared, params.candidates, spaces)
    family_rows = family(compared, params.candidates, spaces)
    start, stop = work.features or (0, len(family_rows))
    if start >= len(family_rows):
        return None
    points = decision_points(work, params.points, params.half, params.at)
    outcomes = read_outcomes(model, params.outcomes, points[0].text, points[0].ids)
    checked = family_rows
    if params.screen == "relp_then_exact" and len(family_rows) > params.exact_checks:
        checked = _by_gradient(work, compared, family_rows, points, outcomes)
    step_rows = np.asarray(checked[start:stop])
    if not len(step_rows):
        return None
    candidates = compared.take(step_rows)
    saes = _saes(work, candidates, addresses_of(work.inputs))
    check_sites(model, list(saes.values()))
    _report_whole_encoders(work, saes)
    _check_values(candidates, saes)
    warn_out_of_range(work, candidates, candidates.values.max(axis=1))
    screen = Screen(
        work, model, params, compared, family_rows, step_rows, candidates, saes, points, outcomes,
        len(checked),
    )  # fmt: skip
    screen = _with_baselines(screen)
    return replace(screen, id=_id(screen))


def _id(screen: Screen) -> str:
    """A hash of the params, the comparison, the seed and the decision points."""
    points = [[point.ids, point.position, point.owners] for point in screen.points]
    facts = [screen.params.model_dump(mode="json"), screen.compared.comparison.id]
    material = json.dumps([*facts, screen.work.seed, points], sort_keys=True)
    return hashlib.sha256(material.encode()).hexdigest()[:16]


def _by_gradient(
    work: Work,
    compared: ComparedFeatures,
    family_rows: np.ndarray[Any, Any],
    points: Sequence[Point],
    outcomes: Outcomes,
) -> np.ndarray[Any, Any]:
    """The rows of the family with the largest effects by a gradient estimate, in their order."""
    import numpy as np

    saes = _saes(work, compared.take(family_rows), addresses_of(work.inputs))
    check_sites(work.model, list(saes.values()))
    hookpoints = sorted({sae.output_hookpoint for sae in saes.values()})
    gradients = mean_gradients(work, "relp", points, outcomes, hookpoints)
    sizes = np.zeros(len(family_rows))
    for space, sae in saes.items():
        members = np.flatnonzero(compared.space[family_rows] == space)
        predicted = estimates(
            compared, family_rows[members].tolist(), sae, gradients[sae.output_hookpoint]
        )
        sizes[members] = abs(predicted)
    order = np.argsort(-sizes, kind="stable")[: work.params.exact_checks]
    return family_rows[np.sort(order)]


def _with_baselines(screen: Screen) -> Screen:
    """Add what the arms `shuffled` and `mean_difference` need. If it is missing, drop the arm and
    warn.
    """
    work, arms = screen.work, set(screen.params.arms)
    shuffled = shuffled_values(work, screen.candidates) if "shuffled" in arms else None
    hookpoints = sorted({sae.output_hookpoint for sae in screen.saes.values()})
    means: Mapping[str, MeanDifference] = {}
    if "mean_difference" in arms:
        comparison = screen.compared.comparison
        means = mean_differences(work, comparison, hookpoints, screen.params.at)
    missing = [] if shuffled is not None else ["shuffled"]
    missing += [] if means else ["mean_difference"]
    dropped = [arm for arm in missing if arm in arms]
    if dropped:
        work.report.event(
            "warning",
            text=f"arms {', '.join(dropped)} are left out: they need the labels of the compared "
            f"samples ('{screen.compared.comparison.by}') among the samples of this stage, and "
            "`shuffled` their activations too. Need the stage that extracted them.",
        )
    kept = tuple(arm for arm in screen.params.arms if arm not in dropped)
    params = screen.params.model_copy(update={"arms": kept})
    return replace(screen, params=params, shuffled=shuffled, means=means)


def _saes(work: Work, candidates: ComparedFeatures, addresses: Mapping[str, str]) -> dict[int, Sae]:
    """The SAE of each space in use. A feature of another space is refused: its index means nothing
    here.
    """
    import numpy as np

    model = work.model
    loaded = {space_id(model.identity, sae): sae for sae in work.saes}
    saes = {}
    for space in np.unique(candidates.space).tolist():
        id = candidates.spaces[space]
        if id not in loaded:
            feature = int(candidates.feature[candidates.of_space(space)[0]])
            loaded_names = ", ".join(
                f"{model.identity.name}/{sae.hookpoint}/{sae.name}" for sae in loaded.values()
            )
            raise DataError(
                f"feature {feature} belongs to space {addresses.get(id, id)}, and no SAE of this "
                f"stage makes that space with {model.identity.name}; they make "
                f"{loaded_names}. Patch with the model and SAEs that the features were found with."
            )
        saes[space] = loaded[id]
    return saes


def _report_whole_encoders(work: Work, saes: Mapping[int, Sae]) -> None:
    """Warn about SAEs whose features compete (TopK): one column does not give a feature's value."""
    sae_names = sorted(sae.name for sae in saes.values() if not sae.pointwise)
    if sae_names:
        work.report.event(
            "warning",
            text=f"features of {', '.join(sae_names)} compete with each other, so every decision "
            "point is encoded whole, by a full matrix product for each SAE. Setting one feature "
            "leaves the others at their values.",
        )


def _check_values(candidates: ComparedFeatures, saes: Mapping[int, Sae]) -> None:
    """Refuse values below zero for SAEs whose activations are never negative."""
    for space, sae in saes.items():
        rows = candidates.of_space(space)
        negative = rows[candidates.values[rows].min(axis=1) < 0]
        if len(negative) and not sae.signed:
            feature = int(candidates.feature[negative[0]])
            value = candidates.values[negative[0]].min()
            raise DataError(
                f"feature {feature} of {sae.name} would be set to {value:.4g}, and its activations "
                "are never below zero. The values are those of another space; compare the "
                "features that this SAE makes."
            )
