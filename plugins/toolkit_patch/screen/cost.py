"""Cost estimates of the patching stages. A screen pushes every edit of every candidate through the
blocks above its SAE, and tries random directions in a share of the spaces.
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

VERDICT_ROW = 200
"""Bytes of a row of `verdicts`."""
FLOAT_BYTES = 4
"""Bytes of a number in float32, such as the probability of a candidate, point and arm."""
SCREEN_ROW = 320
"""Bytes of a row of `screens`."""
COMPARED_FEATURE = 80
"""Bytes in memory per feature of the comparison."""
TRIED_SPACES = 0.1
"""Share of the spaces in which random directions are expected to be tried."""


def screening(params: Delta, load: Workload) -> Cost:
    """One pass per point, whose keys and values are kept; every edit then recomputes only its last
    token.
    """
    model, saes = load.model, load.saes
    points = min(params.points, load.samples)
    prompts = min(points, load.distinct)
    mean_length = load.tokens / load.distinct if load.distinct else 0
    features = family_size(params, saes)
    arms = len(rows_of_arms(params.arms))
    spaces = max(1, saes.get("count", 1))
    direction_pushes = max(1.0, TRIED_SPACES * spaces) * params.directions * LENGTHS
    edits = features * arms * prompts + direction_pushes * min(prompts, params.direction_points)
    layers = model.get("layers", 1)
    blocks_above = max(0, layers - 1 - min(saes.get("layers", None) or [0]))
    steps = -(-features // params.step)
    means = min(2 * MEAN_SAMPLES, load.samples) if "mean_difference" in params.arms else 0
    passes = prompts + means + (prompts if params.prompt_only is not None else 0)
    # A forward and a backward pass cost as much as three forward passes.
    gradient_passes = 3 * prompts if params.screen == "relp_then_exact" else 0
    prefix = steps * (passes + gradient_passes) * mean_length * token_flops(model, mean_length)
    if params.at != "last":
        edits *= max(1.0, mean_length)
    suffix = edits * (
        token_flops(model, 2 * mean_length, -(-blocks_above // 2)) + head_flops(model)
    )
    result_bytes = min(features, params.step) * (
        prompts * arms * (len(params.outcomes) + 1) * FLOAT_BYTES
        + 3 * model.get("width", 0) * FLOAT_BYTES
    )
    push_bytes = ROWS * model.get("width", 0) * 12 + TILE_NUMBERS * 16
    feature_bytes = saes.get("features", 0) * COMPARED_FEATURE
    point_bytes = load.longest * (token_bytes(model, layers) + key_bytes(model))
    return Cost(
        forwards=steps * (passes + (prompts if gradient_passes else 0)) + 1,
        flops=prefix + suffix,
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(
            model.get("bytes", 0)
            + saes.get("bytes", 0)
            + point_bytes
            + result_bytes
            + push_bytes
            + feature_bytes
        ),
        disk=features * SCREEN_ROW
        + min(features, 64) * (points * arms + 2 * arms) * (len(params.outcomes) + 1) * ROW,
        exact=False,
    )


def judging(params: Verdicts, load: Workload) -> Cost:
    """One pass over the rows of a screen, and a row of `verdicts` per feature at most."""
    features = load.saes.get("features", 0)
    return Cost(memory=features * VERDICT_ROW * 2, disk=features * VERDICT_ROW, exact=False)


def steering(params: Steering, load: Workload) -> Cost:
    """One pass per sample of the axis and per point, and every direction at every dose."""
    model = load.model
    points = min(params.points, load.samples)
    prompts, axis = min(points, load.distinct), min(params.axis_samples, load.distinct)
    mean_length = load.tokens / load.distinct if load.distinct else 0
    rows = (1 + params.directions) * len(params.doses)
    layers = model.get("layers", 1)
    blocks_above = max(0, layers - 1 - params.chosen_layers(layers)[0])
    suffix = (
        prompts * rows * (token_flops(model, 2 * mean_length, blocks_above) + head_flops(model))
    )
    state_bytes = rows * model.get("width", 0) * 12 + TILE_NUMBERS * 16
    point_bytes = load.longest * (token_bytes(model, layers) + key_bytes(model))
    return Cost(
        forwards=prompts + axis,
        flops=(prompts + axis) * mean_length * token_flops(model, mean_length) + suffix,
        read=int(model.get("bytes", 0)),
        memory=int(model.get("bytes", 0) + point_bytes + state_bytes),
        disk=(rows + 1) * (len(params.outcomes) + 1) * ROW,
        exact=False,
    )


def joining(params: Joint, load: Workload) -> Cost:
    """One pass per point, and from it the set, its members, the pairs and the random sets."""
    model, saes = load.model, load.saes
    points = min(params.points, load.samples)
    prompts = min(points, load.distinct)
    mean_length = load.tokens / load.distinct if load.distinct else 0
    members = len(params.features) or params.top
    pairs = params.pairs * (params.pairs - 1) // 2
    rows = 2 * (1 + members + pairs + params.sets) + 1
    layers = model.get("layers", 1)
    blocks_above = max(0, layers - 1 - min(saes.get("layers", None) or [0]))
    suffix = (
        prompts * rows * (token_flops(model, 2 * mean_length, blocks_above) + head_flops(model))
    )
    state_bytes = rows * layers * model.get("width", 0) * 8 + TILE_NUMBERS * 16
    point_bytes = load.longest * (token_bytes(model, layers) + key_bytes(model))
    feature_bytes = saes.get("features", 0) * COMPARED_FEATURE
    return Cost(
        forwards=prompts + 1,
        flops=(prompts + 1) * mean_length * token_flops(model, mean_length) + suffix,
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(
            model.get("bytes", 0) + saes.get("bytes", 0) + point_bytes + state_bytes + feature_bytes
        ),
        disk=3 * (2 + pairs) * ROW,
        exact=False,
    )


def dosing(params: Doses, load: Workload) -> Cost:
    """One pass per point, and from it every feature at every dose and at both means."""
    model, saes = load.model, load.saes
    prompts = min(params.points, load.samples, load.distinct)
    mean_length = load.tokens / load.distinct if load.distinct else 0
    members = len(params.features) or params.top
    rows = members * (len(params.doses) + 2)
    layers = model.get("layers", 1)
    blocks_above = max(0, layers - 1 - min(saes.get("layers", None) or [0]))
    suffix = (
        prompts * rows * (token_flops(model, 2 * mean_length, blocks_above) + head_flops(model))
    )
    state_bytes = rows * model.get("width", 0) * 12 + TILE_NUMBERS * 16
    point_bytes = load.longest * (token_bytes(model, layers) + key_bytes(model))
    feature_bytes = saes.get("features", 0) * COMPARED_FEATURE
    return Cost(
        forwards=prompts + 1,
        flops=(prompts + 1) * mean_length * token_flops(model, mean_length) + suffix,
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(
            model.get("bytes", 0) + saes.get("bytes", 0) + point_bytes + state_bytes + feature_bytes
        ),
        disk=(rows + members) * ROW,
        exact=False,
    )


def attributing(params: Attribution, load: Workload) -> Cost:
    """One forward and one backward pass per point and method; a backward pass costs two forward
    ones.
    """
    model, saes = load.model, load.saes
    points = min(params.points, load.samples)
    prompts = min(points, load.distinct)
    mean_length = load.tokens / load.distinct if load.distinct else 0
    passes = 3 * prompts * len(params.methods)
    layers = model.get("layers", 1)
    graph_bytes = load.longest * (token_bytes(model, layers) + key_bytes(model)) * 4
    features = saes.get("features", 0)
    return Cost(
        forwards=prompts * len(params.methods),
        flops=passes * mean_length * token_flops(model, mean_length),
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(
            model.get("bytes", 0) + saes.get("bytes", 0) + graph_bytes + features * COMPARED_FEATURE
        ),
        disk=features * len(params.methods) * ROW,
        exact=False,
    )


def pairing(params: PairedGames, load: Workload) -> Cost:
    """One pass over the rows of games."""
    return Cost(memory=ROW * ROW, disk=ROW * ROW, exact=False)
