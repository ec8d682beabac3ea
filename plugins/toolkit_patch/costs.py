"""Cost estimates of the patching stages. A screen pushes every edit of every candidate through the
blocks above its SAE, and tries random directions in a share of the spaces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolkit.costs import ROW, Cost, head_flops, key_bytes, token_bytes, token_flops
from toolkit.models.readout import TILE_NUMBERS

from .screen.arms import DIRECTIONS, FEATURES, rows_of_arms
from .screen.baselines import MEAN_SAMPLES
from .screen.params import family_size
from .screen.passes import ROWS
from .screen.pool import LENGTHS

if TYPE_CHECKING:
    from toolkit.costs import Workload

    from .attribution.stage import Attribution
    from .doses.params import Doses
    from .games.stage import PairedGames
    from .joint.params import Joint
    from .published.params import Published
    from .screen.params import Delta, Verdicts
    from .steer.params import Steering

VERDICT_ROW, EFFECT_ROW = 260, 24
"""Stored bytes of a row of `verdicts`, and of one of `effects`, whose rows resemble each other."""
SUFFIX_BYTES, LOGIT_BYTES = 1 << 29, 16
"""The most memory of a suffix's widest blocks, and the memory of one logit with the values made
from it.
"""
TABLE_BYTES = 5 << 10
"""Stored bytes of what a step writes to a table, besides its rows."""
KEPT = 64
"""The most features that are expected to pass, each with rows for single decision points."""
FLOAT_BYTES = 4
"""Bytes of a number in float32, such as the probability of a candidate, point and arm."""
SCREEN_ROW = 320
"""Bytes of a row of `screens`."""
RULE_ROWS, RULE_ROW = 6, 10
"""Rows of a feature under the published rules, and their stored bytes."""
COMPARED_FEATURE = 80
"""Bytes in memory per feature of the comparison."""
SCREENED, JUDGED = "screened_features", "judged_features"
"""Totals of a screen's cost: the features that it tries, and that number times the decoders tried.
"""
PASSING = 1 / 3
"""Share of these features that are expected to pass."""
TRIED_SPACES = 0.5
"""Share of the spaces in which random directions are expected to be tried."""
READINGS = 3
"""How often each point at which directions are tried is read in a space."""


@dataclass(frozen=True)
class _PromptCounts:
    """The decision points of a stage: how many, how many of them are distinct, and the mean number
    of tokens.
    """

    points: int
    distinct: int
    tokens: float

    @classmethod
    def of(cls, points: int, load: Workload) -> _PromptCounts:
        points = min(points, load.samples)
        mean = load.tokens / load.distinct if load.distinct else 0
        return cls(points, min(points, load.distinct), mean)

    def passes(self, count: float, load: Workload) -> float:
        """The operations of this many forward passes."""
        return count * self.tokens * token_flops(load.model, self.tokens)


def _edited_suffixes(load: Workload, prompts: _PromptCounts, edits: float, blocks: int) -> float:
    """The operations of edits of a last token: each recomputes it in this many blocks, attending to
    the whole prompt, and unembeds the next token.
    """
    block_flops = token_flops(load.model, 2 * prompts.tokens, blocks)
    return edits * (block_flops + head_flops(load.model))


def _edited_memory(load: Workload, rows: int, row_bytes: int) -> int:
    """Peak memory of edits of one prompt: the model and the SAEs, the prompt with its keys, a state
    for each row, what a block needs for those of a tile, logits, and the comparison.
    """
    model = load.model
    prompt = load.longest * (token_bytes(model, model.get("layers", 1)) + key_bytes(model))
    inside = min(rows * token_bytes(model, 1), SUFFIX_BYTES)
    logits = min(rows * model.get("vocabulary", 0), TILE_NUMBERS) * LOGIT_BYTES
    compared = load.saes.get("features", 0) * COMPARED_FEATURE
    return int(_weights(load) + prompt + rows * row_bytes + inside + logits + compared)


def _blocks_above_saes(load: Workload) -> int:
    """The blocks above the lowest SAE."""
    lowest = min(load.saes.get("layers", None) or [0])
    return max(0, int(load.model.get("layers", 1)) - 1 - int(lowest))


def _weights(load: Workload) -> int:
    """Bytes of the model's and the SAEs' files."""
    return int(load.model.get("bytes", 0) + load.saes.get("bytes", 0))


def screening(params: Delta, load: Workload) -> Cost:
    """One pass per point, whose keys and values are kept; every edit then recomputes only its last
    token. A control is screened after it, with fewer arms.
    """
    prompts = _PromptCounts.of(params.points, load)
    features = family_size(params, load.saes)
    steps, screens = -(-features // params.step), 2 if params.control_saes else 1
    passes = steps * _passes_of_step(params, load, prompts)
    # A forward and a backward pass cost as much as three forward passes.
    gradients = steps * prompts.distinct if params.screen == "relp_then_exact" else 0
    return Cost(
        forwards=passes + gradients + 1,
        flops=prompts.passes(passes + 3 * gradients, load)
        + _edited_suffixes(
            load, prompts, _edits(params, load, prompts), -(-_blocks_above_saes(load) // 2)
        ),
        read=_weights(load),
        memory=_edited_memory(load, _rows_at_once(params, load), load.model.get("width", 0) * 12)
        + _results_of_step(params, load, prompts),
        disk=features * SCREEN_ROW * screens
        + _effect_rows(params, features, prompts) * EFFECT_ROW
        + steps * (1 + screens) * TABLE_BYTES,
        table_rows=features * screens + _effect_rows(params, features, prompts),
        totals={SCREENED: features, JUDGED: features * screens},
        exact=False,
    )


def expected_screening(params: Delta, load: Workload) -> Cost:
    """The cost if a third of the most features that may pass do so."""
    most, prompts = screening(params, load), _PromptCounts.of(params.points, load)
    if params.keep == "all":
        return most
    features = family_size(params, load.saes)
    kept = _effect_rows(params, features, prompts)
    dropped = kept - int(kept * PASSING)
    return replace(
        most, disk=most.disk - dropped * EFFECT_ROW, table_rows=most.table_rows - dropped
    )


def _passes_of_step(params: Delta, load: Workload, prompts: _PromptCounts) -> int:
    """The whole passes of one step: prompts, the samples of the mean streams, prompts in words, and
    those of the spaces in which directions are tried.
    """
    means = min(2 * MEAN_SAMPLES, load.samples) if "mean_difference" in params.arms else 0
    in_words = prompts.distinct if params.prompt_only is not None else 0
    control = prompts.distinct if params.control_saes else 0
    tried = prompts.distinct + READINGS * min(prompts.distinct, params.direction_points)
    tried *= 2 if params.control_saes else 1
    return prompts.distinct + means + in_words + control + int(_tried_spaces(params, load) * tried)


def _tried_spaces(params: Delta, load: Workload) -> float:
    """The spaces in which random directions are expected to be tried, in one step: none where no
    effect is large enough to be compared with them.
    """
    if params.min_effect >= 1:
        return 0.0
    return max(1.0, TRIED_SPACES * int(load.saes.get("count", 1)))


def _edits(params: Delta, load: Workload, prompts: _PromptCounts) -> float:
    """The edited tokens of all candidates, arms and random directions."""
    arms = len(rows_of_arms(params.arms)) + (len(rows_of_arms(())) if params.control_saes else 0)
    directions = _tried_spaces(params, load) * params.directions * LENGTHS
    edits = float(family_size(params, load.saes) * arms * prompts.distinct)
    edits += directions * min(prompts.distinct, params.direction_points)
    return edits if params.at == "last" else edits * max(1.0, prompts.tokens)


def _rows_at_once(params: Delta, load: Workload) -> int:
    """The most edits of one prompt that are in memory together."""
    features = min(family_size(params, load.saes), params.step)
    return min(ROWS, max(features * len(rows_of_arms(params.arms)), params.directions * LENGTHS))


def _results_of_step(params: Delta, load: Workload, prompts: _PromptCounts) -> int:
    """Bytes of the probabilities of one step, and of what its edits need of each candidate."""
    arms = len(rows_of_arms(params.arms))
    width = int(load.model.get("width", 0))
    numbers = prompts.distinct * arms * (len(params.outcomes) + 1) + 3 * width
    return min(family_size(params, load.saes), params.step) * numbers * FLOAT_BYTES


def _effect_rows(params: Delta, features: int, prompts: _PromptCounts) -> int:
    """Rows of `effects`: of the features that pass, or of all. Random arms have rows over all
    points only.
    """
    arms = rows_of_arms(params.arms)
    at_points = [arm for arm in arms if arm not in (*FEATURES, *DIRECTIONS)]
    rows = (prompts.points * len(at_points) + len(arms) + 1) * (len(params.outcomes) + 1)
    return (features if params.keep == "all" else min(features, KEPT)) * rows


def judging(params: Verdicts, load: Workload) -> Cost:
    """One pass over the rows of a screen and its control, and a row of `verdicts` for each."""
    screened = load.totals.get(SCREENED, load.saes.get("features", 0))
    judged = load.totals.get(JUDGED, screened)
    stored = judged * VERDICT_ROW + (2 if judged > screened else 1) * TABLE_BYTES
    return Cost(memory=2 * stored, disk=stored, table_rows=judged, exact=False)


def applying_rules(params: Published, load: Workload) -> Cost:
    """One pass over the rows of a screen, and the published rules' verdicts on each feature."""
    rows = RULE_ROWS * load.totals.get(SCREENED, load.saes.get("features", 0))
    stored = rows * RULE_ROW
    return Cost(memory=rows * ROW, disk=stored, table_rows=rows, exact=False)


def steering(params: Steering, load: Workload) -> Cost:
    """One pass per sample of the axis and per point, and every direction at every dose."""
    prompts, axis = _PromptCounts.of(params.points, load), min(params.axis_samples, load.distinct)
    layers = load.model.get("layers", 1)
    rows = (1 + params.directions) * len(params.doses)
    blocks = max(0, layers - 1 - params.chosen_layers(layers)[0])
    return Cost(
        forwards=prompts.distinct + axis,
        flops=prompts.passes(prompts.distinct + axis, load)
        + _edited_suffixes(load, prompts, prompts.distinct * rows, blocks),
        read=_weights(load),
        memory=_edited_memory(load, rows, load.model.get("width", 0) * 12),
        disk=(rows + 1) * (len(params.outcomes) + 1) * ROW + 2 * TABLE_BYTES,
        table_rows=(rows + 1) * (len(params.outcomes) + 1),
        exact=False,
    )


def joining(params: Joint, load: Workload) -> Cost:
    """One pass per point, and from it the set, its members, the pairs and the random sets."""
    prompts = _PromptCounts.of(params.points, load)
    pairs = params.pairs * (params.pairs - 1) // 2
    rows = 2 * (1 + (len(params.features) or params.top) + pairs + params.sets) + 1
    row_bytes = load.model.get("layers", 1) * load.model.get("width", 0) * 8
    cost = _edited_points(load, prompts, rows, row_bytes)
    return replace(cost, disk=(4 + 3 * pairs) * ROW + TABLE_BYTES, table_rows=4 + 3 * pairs)


def dosing(params: Doses, load: Workload) -> Cost:
    """One pass per point, and from it every feature at every dose and at both means."""
    members = len(params.features) or params.top
    rows = members * (len(params.doses) + 2)
    prompts, row_bytes = _PromptCounts.of(params.points, load), load.model.get("width", 0) * 12
    cost = _edited_points(load, prompts, rows, row_bytes)
    written = members * (len(params.doses) + 1)
    return replace(cost, disk=(rows + members) * ROW + 2 * TABLE_BYTES, table_rows=written)


def _edited_points(load: Workload, prompts: _PromptCounts, rows: int, row_bytes: int) -> Cost:
    """One pass per point, and from it this many edits of features of SAEs."""
    blocks = _blocks_above_saes(load)
    return Cost(
        forwards=prompts.distinct + 1,
        flops=prompts.passes(prompts.distinct + 1, load)
        + _edited_suffixes(load, prompts, prompts.distinct * rows, blocks),
        read=_weights(load),
        memory=_edited_memory(load, rows, row_bytes),
        exact=False,
    )


def attributing(params: Attribution, load: Workload) -> Cost:
    """One forward and one backward pass per point and method; a backward pass costs two forward
    ones.
    """
    model, saes = load.model, load.saes
    prompts, features = _PromptCounts.of(params.points, load), saes.get("features", 0)
    screened = load.totals.get(SCREENED, features)
    passes = prompts.distinct * len(params.methods)
    graph = load.longest * (token_bytes(model, model.get("layers", 1)) + key_bytes(model)) * 4
    return Cost(
        forwards=passes,
        flops=prompts.passes(3 * passes, load),
        read=_weights(load),
        memory=_weights(load) + int(graph + features * COMPARED_FEATURE),
        disk=screened * len(params.methods) * ROW + TABLE_BYTES,
        table_rows=screened * len(params.methods),
        exact=False,
    )


def pairing(params: PairedGames, load: Workload) -> Cost:
    """One pass over the rows of games."""
    return Cost(memory=2 * TABLE_BYTES, disk=TABLE_BYTES, exact=False)
