"""What a screen costs at most: every edit of every candidate through all blocks above the lowest
SAE, and random directions for as many spaces as there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.costs import ROW, Cost, head_flops, key_bytes, token_bytes, token_flops
from toolkit.readout import TILE_NUMBERS

from .arms import rows_of_arms
from .baselines import MEAN_SAMPLES
from .params import family_size
from .passes import ROWS
from .pool import LENGTHS

if TYPE_CHECKING:
    from toolkit.costs import Workload
    from toolkit_patch.attribution.stage import Attribution
    from toolkit_patch.doses.params import Doses
    from toolkit_patch.games.stage import PairedGames
    from toolkit_patch.joint.params import Joint
    from toolkit_patch.steer.params import Steering

    from .params import Delta, Verdicts

JUDGED = 200
"""Bytes of a row of `verdicts`."""
ITEM = 4
"""Bytes of a probability that is held for a candidate, a point and an arm."""
SCREEN_ROW = 320
"""Bytes of a row of `screens`."""
KNOWN = 80
"""Bytes of what is held of every feature that the comparison saw."""
TRIED = 0.1
"""Share of the spaces in which random directions are expected to be tried."""


def screening(params: Delta, load: Workload) -> Cost:
    """A pass a point, whose keys are kept; from it every edit goes up by its last token alone."""
    model, saes = load.model, load.saes
    points = min(params.points, load.samples)
    prompts = min(points, load.distinct)
    mean = load.tokens / load.distinct if load.distinct else 0
    features = family_size(params, saes)
    arms = len(rows_of_arms(params.arms))
    spaces = max(1, saes.get("count", 1))
    tried = max(1.0, TRIED * spaces) * params.directions * LENGTHS
    edits = features * arms * prompts + tried * min(prompts, params.direction_points)
    layers = model.get("layers", 1)
    above = max(0, layers - 1 - min(saes.get("layers", None) or [0]))
    steps = -(-features // params.step)
    means = min(2 * MEAN_SAMPLES, load.samples) if "mean_difference" in params.arms else 0
    passes = prompts + means + (prompts if params.prompt_only is not None else 0)
    # A pass forward and one back are as much as three.
    ranked = 3 * prompts if params.screen == "relp_then_exact" else 0
    prefix = steps * (passes + ranked) * mean * token_flops(model, mean)
    if params.at != "last":
        edits *= max(1.0, mean)
    suffix = edits * (token_flops(model, 2 * mean, -(-above // 2)) + head_flops(model))
    held = min(features, params.step) * (
        prompts * arms * (len(params.outcomes) + 1) * ITEM + 3 * model.get("width", 0) * ITEM
    )
    pushed = ROWS * model.get("width", 0) * 12 + TILE_NUMBERS * 16
    known = saes.get("features", 0) * KNOWN
    point = load.longest * (token_bytes(model, layers) + key_bytes(model))
    return Cost(
        forwards=steps * (passes + (prompts if ranked else 0)) + 1,
        flops=prefix + suffix,
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(model.get("bytes", 0) + saes.get("bytes", 0) + point + held + pushed + known),
        disk=features * SCREEN_ROW
        + min(features, 64) * (points * arms + 2 * arms) * (len(params.outcomes) + 1) * ROW,
        exact=False,
    )


def judging(params: Verdicts, load: Workload) -> Cost:
    """A pass over the rows of a screen: one row of `verdicts` for each, as many as features at
    most.
    """
    features = load.saes.get("features", 0)
    return Cost(memory=features * JUDGED * 2, disk=features * JUDGED, exact=False)


def steering(params: Steering, load: Workload) -> Cost:
    """A pass for each sample of the axis and for each point, and every direction at every dose."""
    model = load.model
    points = min(params.points, load.samples)
    prompts, axis = min(points, load.distinct), min(params.axis_samples, load.distinct)
    mean = load.tokens / load.distinct if load.distinct else 0
    rows = (1 + params.directions) * len(params.doses)
    layers = model.get("layers", 1)
    above = max(0, layers - 1 - params.chosen_layers(layers)[0])
    suffix = prompts * rows * (token_flops(model, 2 * mean, above) + head_flops(model))
    states = rows * model.get("width", 0) * 12 + TILE_NUMBERS * 16
    point = load.longest * (token_bytes(model, layers) + key_bytes(model))
    return Cost(
        forwards=prompts + axis,
        flops=(prompts + axis) * mean * token_flops(model, mean) + suffix,
        read=int(model.get("bytes", 0)),
        memory=int(model.get("bytes", 0) + point + states),
        disk=(rows + 1) * (len(params.outcomes) + 1) * ROW,
        exact=False,
    )


def joining(params: Joint, load: Workload) -> Cost:
    """A pass a point, and from it the set, its members, the pairs and the random sets."""
    model, saes = load.model, load.saes
    points = min(params.points, load.samples)
    prompts = min(points, load.distinct)
    mean = load.tokens / load.distinct if load.distinct else 0
    members = len(params.features) or params.top
    pairs = params.pairs * (params.pairs - 1) // 2
    rows = 2 * (1 + members + pairs + params.sets) + 1
    layers = model.get("layers", 1)
    above = max(0, layers - 1 - min(saes.get("layers", None) or [0]))
    suffix = prompts * rows * (token_flops(model, 2 * mean, above) + head_flops(model))
    held = rows * layers * model.get("width", 0) * 8 + TILE_NUMBERS * 16
    point = load.longest * (token_bytes(model, layers) + key_bytes(model))
    known = saes.get("features", 0) * KNOWN
    return Cost(
        forwards=prompts + 1,
        flops=(prompts + 1) * mean * token_flops(model, mean) + suffix,
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(model.get("bytes", 0) + saes.get("bytes", 0) + point + held + known),
        disk=3 * (2 + pairs) * ROW,
        exact=False,
    )


def dosing(params: Doses, load: Workload) -> Cost:
    """A pass a point, and from it every feature at every dose and at both means."""
    model, saes = load.model, load.saes
    prompts = min(params.points, load.samples, load.distinct)
    mean = load.tokens / load.distinct if load.distinct else 0
    members = len(params.features) or params.top
    rows = members * (len(params.doses) + 2)
    layers = model.get("layers", 1)
    above = max(0, layers - 1 - min(saes.get("layers", None) or [0]))
    suffix = prompts * rows * (token_flops(model, 2 * mean, above) + head_flops(model))
    held = rows * model.get("width", 0) * 12 + TILE_NUMBERS * 16
    point = load.longest * (token_bytes(model, layers) + key_bytes(model))
    known = saes.get("features", 0) * KNOWN
    return Cost(
        forwards=prompts + 1,
        flops=(prompts + 1) * mean * token_flops(model, mean) + suffix,
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(model.get("bytes", 0) + saes.get("bytes", 0) + point + held + known),
        disk=(rows + members) * ROW,
        exact=False,
    )


def attributing(params: Attribution, load: Workload) -> Cost:
    """For each point and method a pass forward and one back, which is as much as two."""
    model, saes = load.model, load.saes
    points = min(params.points, load.samples)
    prompts = min(points, load.distinct)
    mean = load.tokens / load.distinct if load.distinct else 0
    passes = 3 * prompts * len(params.methods)
    layers = model.get("layers", 1)
    held = load.longest * (token_bytes(model, layers) + key_bytes(model)) * 4
    features = saes.get("features", 0)
    return Cost(
        forwards=prompts * len(params.methods),
        flops=passes * mean * token_flops(model, mean),
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(model.get("bytes", 0) + saes.get("bytes", 0) + held + features * KNOWN),
        disk=features * len(params.methods) * ROW,
        exact=False,
    )


def pairing(params: PairedGames, load: Workload) -> Cost:
    """A pass over the rows of games."""
    return Cost(memory=ROW * ROW, disk=ROW * ROW, exact=False)
