"""Measures every arm of every candidate at every decision point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError

from .arms import PROMPT_ONLY, SETS, SpaceEdits, rows_of_arms
from .baselines import ids_with_wording
from .estimates import estimate
from .passes import EditedStreams, Reading, push_edits, read_prompt
from .points import clusters_of, weights_of
from .rows import Measured
from .setup import Screen

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from .params import Wording

SHAM_TOLERANCE = 1e-4

NEAREST = 10
"""A random feature is drawn from this many with the nearest firing rates."""


def measure(screen: Screen) -> Measured:
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
    planned = [
        (edits, arm, EditedStreams(edits.hookpoint, streams))
        for edits in spaces
        for arm, streams in edits.edits(reading, screen.params.arms)
    ]
    pushed = push_edits(screen.model, screen.outcomes, reading, [rows for _, _, rows in planned])
    count = sum(len(rows.streams) for _, _, rows in planned)
    made = sum(len(chances) for chances, _ in pushed)
    if made != count:
        raise DataError(
            f"{count} edits were planned at a decision point and {made} were made: "
            f"{screen.model.identity.name}'s `suffix` loses rows. Its loader is at fault."
        )
    for (edits, arm, _), (chances, kl) in zip(planned, pushed, strict=True):
        yield edits, arm, chances, kl


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
    means = screen.means.get(sae.output_hookpoint)
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
