"""`patch.delta`: a causal screen of features at the last token of decision points.

Each candidate is set to the mean of either group, error term kept, beside its control arms. The
effect that counts is *specific*: one group's value against the other's, in the exact probability of
an outcome. Effects that are significant over the units are compared with random directions of equal
length at the same points. `patch.verdicts` judges the features of all steps together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toolkit.comparisons import addresses_of
from toolkit.errors import DataError
from toolkit.saes import space_id

from .arms import PROMPT_ONLY, SETS, MeanDifference, SpaceEdits, check_sites, rows_of_arms
from .baselines import ids_with_wording, mean_differences, shuffled_values
from .candidates import ComparedFeatures, family, read_features, with_unfired
from .control import RandomDecoder
from .estimates import estimate
from .gradients import estimates, mean_gradients
from .null import run_direction_tests
from .observed import warn_out_of_range
from .outcomes import Outcomes, read_outcomes
from .passes import Reading, push, read_prompt
from .points import Point, clusters_of, decision_points, weights_of
from .rows import Measured, effect_rows, screen_rows

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from toolkit.models import Model
    from toolkit.saes import Sae
    from toolkit.work import Rows, Work

    from .params import Delta, Wording
    from .pool import DirectionTest

SHAM_TOLERANCE = 1e-4
NEAREST = 10
"""A random feature is drawn from this many with the nearest firing rates."""


@dataclass(frozen=True, eq=False)
class Screen:
    """Everything that is the same at every point. `family` are rows of `compared`, `step_rows`
    those of this step; `checked` is the number of features in the family that are screened exactly.
    `id` is shared by the steps of a stage and its control, and by no other screen.
    """

    work: Work
    model: Model
    params: Delta
    compared: ComparedFeatures
    family: np.ndarray[Any, Any]
    step_rows: np.ndarray[Any, Any]
    candidates: ComparedFeatures
    saes: Mapping[int, Sae]
    points: Sequence[Point]
    outcomes: Outcomes
    checked: int
    shuffled: np.ndarray[Any, Any] | None = None
    means: Mapping[str, MeanDifference] = field(default_factory=dict)
    id: str = ""

    @property
    def column(self) -> int:
        """Index of the outcome that verdicts are about."""
        return self.outcomes.names.index(self.params.about)

    def read(self, point: Point) -> Reading:
        """Read the prompt of a decision point."""
        hookpoints = sorted({sae.hookpoint for sae in self.saes.values()})
        return read_prompt(self.model, self.outcomes, point.ids, hookpoints, point.position)


def patch(work: Work) -> Rows:
    """Rows of `screens` for the features of this step, and of `effects` for those that pass."""
    screen = _prepare(work)
    if screen is None:
        return
    measured, passing, direction_tests = _screened(screen)
    yield "screens", screen_rows(screen, measured, direction_tests)
    kept = passing if screen.params.keep == "passing" else passing | True
    yield "effects", effect_rows(screen, measured, direction_tests, kept)
    if screen.params.control_saes == "random_decoder":
        control = _with_random_decoders(screen)
        measured, _, direction_tests = _screened(control)
        yield "control_screens", screen_rows(control, measured, direction_tests, "control_screens")


def _screened(screen: Screen) -> tuple[Measured, Any, dict[int, DirectionTest]]:
    """The results of all arms, which candidates pass on their own, and their direction tests."""
    measured = _measure(screen)
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
    hookpoints = sorted({sae.hookpoint for sae in saes.values()})
    gradients = mean_gradients(work, "relp", points, outcomes, hookpoints)
    sizes = np.zeros(len(family_rows))
    for space, sae in saes.items():
        members = np.flatnonzero(compared.space[family_rows] == space)
        predicted = estimates(
            compared, family_rows[members].tolist(), sae, gradients[sae.hookpoint]
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
    hookpoints = sorted({sae.hookpoint for sae in screen.saes.values()})
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


# --- all arms -------------------------------------------------------------------------------------


def _measure(screen: Screen) -> Measured:
    """Measure every arm of every candidate at every point."""
    import numpy as np

    weights, clusters = weights_of(screen.points), clusters_of(screen.points)
    shape = len(screen.step_rows), len(screen.points)
    arms = rows_of_arms(screen.params.arms)
    chances = {
        arm: np.zeros((*shape, len(screen.outcomes.names)), dtype=np.float32) for arm in arms
    }
    base = np.zeros((len(screen.points), len(screen.outcomes.names)))
    kl = {arm: np.zeros(shape, np.float32) for arm in SETS}
    fires, edits_made = np.zeros(shape, bool), np.zeros(shape[0], np.int64)
    spaces = [_space_edits(screen, space) for space in screen.saes]
    for number, point in enumerate(screen.points):
        reading = screen.read(point)
        base[number] = reading.chances
        for edits in spaces:
            fires[edits.members, number] = (edits.own_values(reading) > 0).cpu().numpy()
        for edits, arm, probabilities, divergences in push_all(screen, reading, spaces):
            chances[arm][edits.members, number] = probabilities
            edits_made[edits.members] += 1
            if arm in SETS:
                kl[arm][edits.members, number] = divergences
        screen.work.report.progress(number + 1, len(screen.points))
    _check_counts(screen, arms, edits_made)
    if screen.params.prompt_only is not None:
        chances[PROMPT_ONLY] = _prompt_only(screen, screen.params.prompt_only, shape)
    _check_sham(screen, chances["sham"], base)
    column = screen.column
    difference = (chances["set_a"] - chances["set_b"])[:, :, column].astype(np.float64)
    specific = estimate(difference, weights, clusters, screen.work.rng("patch.bootstrap"))
    return Measured(chances, base, kl, fires, edits_made, weights, clusters, specific)


def _check_counts(screen: Screen, arms: Sequence[str], edits_made: np.ndarray[Any, Any]) -> None:
    """Check that every arm of every candidate was made once at every point."""
    planned = len(arms) * len(screen.points)
    if (edits_made != planned).any():
        member = int((edits_made != planned).argmax())
        feature = int(screen.candidates.feature[member])
        raise DataError(
            f"feature {feature}: {planned} edits were planned, one for each of {len(arms)} rows at "
            f"{len(screen.points)} decision points, and {edits_made[member]} were made."
        )


def _prompt_only(screen: Screen, wording: Wording, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Probabilities of the unedited model if the prompt asks for the behaviour, the same for every
    candidate.
    """
    import numpy as np

    probabilities = []
    for point in screen.points:
        ids = ids_with_wording(screen.work, wording, point.text)
        probabilities.append(read_prompt(screen.model, screen.outcomes, ids, []).chances)
    return np.broadcast_to(
        np.array(probabilities, np.float32), (*shape, len(screen.outcomes.names))
    )


def push_all(screen: Screen, reading: Reading, spaces: Sequence[SpaceEdits]) -> Any:
    """Push all edits of a point together, rows of several layers in a batch: (edits, arm,
    probabilities, divergences).
    """
    import torch

    planned = [
        (edits, arm, streams)
        for edits in spaces
        for arm, streams in edits.edits(reading, screen.params.arms)
    ]
    layers = torch.cat([torch.full((len(rows),), edits.layer) for edits, _, rows in planned])
    streams = torch.cat([rows for _, _, rows in planned])
    chances, kl = push(screen.model, screen.outcomes, reading, layers, streams)
    if len(chances) != len(streams):
        raise DataError(
            f"{len(streams)} edits were planned at a decision point and {len(chances)} were made: "
            f"{screen.model.identity.name}'s `suffix` loses rows. Its loader is at fault."
        )
    start = 0
    for edits, arm, rows in planned:
        yield edits, arm, chances[start : start + len(rows)], kl[start : start + len(rows)]
        start += len(rows)


def _space_edits(screen: Screen, space: int) -> SpaceEdits:
    """The data of the edits of one space, the same at all points."""
    import torch

    sae, members = screen.saes[space], screen.candidates.of_space(space)
    features = screen.candidates.feature[members]
    rows = sae.decoder_rows(features.tolist()).float()
    lengths = rows.norm(dim=1, keepdim=True)
    arms, feature_directions, random_directions = screen.params.arms, None, None
    if "random_feature" in arms:
        random_features = [_random_feature(screen, space, int(feature)) for feature in features]
        feature_directions = (
            torch.nn.functional.normalize(sae.decoder_rows(random_features).float(), dim=1)
            * lengths
        )
    if "random_direction" in arms:
        samples = _random_directions(screen, space, features.tolist(), rows)
        random_directions = torch.nn.functional.normalize(samples, dim=1) * lengths
    values = torch.from_numpy(screen.candidates.values[members]).to(rows)
    index = torch.tensor(features.tolist(), dtype=torch.long)
    shuffled = screen.shuffled
    shuffled_pairs = None if shuffled is None else torch.from_numpy(shuffled[members]).to(rows)
    means = screen.means.get(sae.hookpoint)
    return SpaceEdits(
        sae,
        members,
        index,
        values,
        rows,
        feature_directions,
        random_directions,
        shuffled_pairs,
        means,
    )


def _random_directions(
    screen: Screen, space: int, features: Sequence[int], decoder_rows: Tensor
) -> Tensor:
    """One normal vector for each feature."""
    import torch

    name, width = screen.candidates.spaces[space], decoder_rows.shape[1]
    samples = [
        torch.from_numpy(screen.work.rng("patch.direction", name, feature).standard_normal(width))
        for feature in features
    ]
    return torch.stack(samples).to(decoder_rows)


def _random_feature(screen: Screen, space: int, feature: int) -> int:
    """Another feature of the space with a similar firing rate, not a candidate if possible."""
    import numpy as np

    compared = screen.compared
    rows = compared.of_space(space)
    others = rows[compared.feature[rows] != feature]
    unscreened = np.setdiff1d(others, screen.family)
    others = unscreened if len(unscreened) else others
    if not len(others):
        return feature
    rate = compared.rate[rows[compared.feature[rows] == feature][0]]
    nearest = others[np.argsort(abs(compared.rate[others] - rate), kind="stable")[:NEAREST]]
    rng = screen.work.rng("patch.random", compared.spaces[space], feature)
    return int(compared.feature[nearest[int(rng.integers(len(nearest)))]])


def _check_sham(screen: Screen, sham: Any, base: Any) -> None:
    """Check that setting a feature to its own value changes nothing: otherwise no other number here
    means anything.
    """
    worst = float(abs(sham - base[None]).max())
    if worst > SHAM_TOLERANCE:
        raise DataError(
            f"The sham arm changes a probability by {worst:.2g} (at most {SHAM_TOLERANCE:g} "
            f"allowed) over {len(screen.points)} points: {screen.model.identity.name}'s `suffix` "
            "does not agree with its own pass. Its loader is at fault, or its dtype too coarse."
        )
