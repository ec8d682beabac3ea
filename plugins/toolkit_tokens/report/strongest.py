"""Findings of the strongest parts: the token, head and feature that move an outcome most, the
feature that fires most strongly at a token, and the one that changes most through games.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit.features.addresses import layer_of, prefixes, short
from toolkit.work import Finding, Inputs
from toolkit_tokens.attribute.params import OF_PAIRS

from .timelines import changes_through_games, last_space

Row = Mapping[str, Any]
PARTS = ("token", "head", "feature")
METHODS = ("integrated_gradients", *OF_PAIRS)
"""The method whose value stands beside the exact effect: the first that has the part."""
PART_RANK, GAME_RANK, TOKEN_RANK = 20, 35, 38
MIN_UNITS = 5
"""With fewer units a finding has no interval; its sentence has the range."""
SEED = 0


# --- attributions ---------------------------------------------------------------------------------


def part_findings(inputs: Inputs) -> Iterator[Finding]:
    """The token, head and feature with the largest mean effect on each outcome."""
    rows = inputs.read("attributions").to_pylist()
    names = prefixes(inputs.read("spaces").to_pylist()) if "spaces" in inputs.tables() else {}
    samples = {}
    if "samples" in inputs.tables():
        samples = {row["sample"]: row for row in inputs.read("samples").to_pylist()}
    for outcome in sorted({row["outcome"] for row in rows}):
        of_outcome = [row for row in rows if row["outcome"] == outcome]
        for number, part in enumerate(PARTS):
            chosen = _rows_of_part(of_outcome, part)
            if chosen:
                yield _part_finding(part, chosen, names, samples, PART_RANK + number)


def _rows_of_part(rows: Sequence[Row], part: str) -> list[Row]:
    """The rows of a part by one method, only those patched alone where some were; of tokens those
    at the lowest layer, since at the last one the last token carries nearly everything.
    """
    by_method = {
        method: [row for row in rows if (row["part"], row["method"]) == (part, method)]
        for method in METHODS
    }
    chosen: list[Row] = next(filter(None, by_method.values()), [])
    if part == "token" and chosen:
        lowest = min(-1 if row["layer"] is None else row["layer"] for row in chosen)
        chosen = [row for row in chosen if row["layer"] in (None, lowest)]
    return [row for row in chosen if row["exact"] is not None] or chosen


def _part_finding(
    part: str,
    rows: Sequence[Row],
    names: Mapping[str, str],
    samples: Mapping[str, Row],
    rank: int,
) -> Finding:
    """The part with the largest mean effect; of a part at several positions of a prompt, that at
    the strongest one counts.
    """
    by_name: dict[str, dict[tuple[str, str], Row]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: abs(_effect(row))):
        name = _name(part, row, names, samples)
        by_name[name][row["sample"], row["against"]] = row
    totals = {
        name: abs(sum(_effect(row) for row in pairs.values())) for name, pairs in by_name.items()
    }
    best = max(totals, key=lambda name: (totals[name], name))
    pairs = list(by_name[best].values())
    mean, interval = _mean([_effect(row) for row in pairs])
    return Finding(
        sentence=_part_sentence(part, best, len(by_name), pairs),
        number=mean,
        interval=interval,
        n=len({row["sample"] for row in pairs}),
        rank=rank,
    )


def _part_sentence(part: str, best: str, tried: int, pairs: Sequence[Row]) -> str:
    """What was tried, which part came out first, and that it was chosen on these pairs."""
    mean = sum(_effect(row) for row in pairs) / len(pairs)
    value = sum(row["value"] for row in pairs) / len(pairs)
    outcome, method = pairs[0]["outcome"], pairs[0]["method"]
    over = _over([_effect(row) for row in pairs], "pair of prompts")
    among = f"{over}; the largest of {tried:,}, chosen on these very pairs" if tried > 1 else over
    if pairs[0]["exact"] is None:  # not patched: nothing is known to have moved
        return (
            f"{method} gives the {part} {best} the largest share of the outcome {outcome}: "
            f"{mean:+.3g} ({among}; not patched)."
        )
    return (
        f"Of the {part}s patched alone, {best} moves the outcome {outcome} most: by {mean:+.3g}, "
        f"where {method} gives it {value:+.3g} ({among})."
    )


def _effect(row: Row) -> float:
    """What patching the part alone does; without that, the value that the method gives it."""
    return float(row["value"] if row["exact"] is None else row["exact"])


def _name(part: str, row: Row, names: Mapping[str, str], samples: Mapping[str, Row]) -> str:
    if part == "head":
        return f"head {row['head']} of layer {row['layer']}"
    if part == "feature":
        return f"{names.get(row['space'], '')}{row['feature']}"
    return f"{_token(samples.get(row['sample']), row['position'])} (layer {row['layer']})"


def _token(sample: Row | None, position: int) -> str:
    """A token by the span that has it, so that it is one token in all prompts."""
    if sample is None or position >= len(sample["pieces"]):
        return f"position {position}"
    for span in sample["spans"] or ():
        if span["start"] <= position < span["end"]:
            return f"a token of the span {span['name']}"
    return repr(sample["pieces"][position])


# --- tracking -------------------------------------------------------------------------------------


def token_finding(inputs: Inputs) -> Iterator[Finding]:
    """Find the feature of the last layer that fires most strongly at one token, averaged over
    samples. The first token of a text is left out.
    """
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    samples = {row["sample"]: row for row in inputs.read("samples").to_pylist()}
    last = last_space(spaces)
    peaks = _peaks(inputs, last, samples)
    tracked = {sample for fired in peaks.values() for sample in fired}
    if not peaks:
        return
    feature, token = max(peaks, key=lambda key: (sum(peaks[key].values()), key))
    fired = peaks[feature, token]
    values = list(fired.values())
    mean, interval = _mean(values)
    units = {samples[sample]["unit"] for sample in fired}
    yield Finding(
        sentence=f"At layer {layer_of(spaces[last])}, {short(spaces[last], feature)} fires most "
        f"strongly at one token, {token!r}: {mean:.3g} ({_over(values, 'sample')}; chosen on these "
        f"very samples); it fires there in {len(values):,} of {len(tracked):,} samples.",
        number=mean,
        interval=interval if len(units) == len(values) else None,
        n=len(units),
        rank=TOKEN_RANK,
    )


def _peaks(
    inputs: Inputs, space: str, samples: Mapping[str, Row]
) -> dict[tuple[int, str], dict[str, float]]:
    """(feature, token) -> the largest value in each sample."""
    import pyarrow.compute as pc

    table = inputs.read("activations")
    peaks: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for row in table.filter(pc.equal(table["space"], space)).to_pylist():
        sample = samples.get(row["sample"])
        if sample is None or (row["position"] == 0 and sample["bos"]):
            continue
        token = sample["pieces"][row["position"]]
        for feature, value in zip(row["features"], row["values"], strict=True):
            fired = peaks[feature, token]
            fired[row["sample"]] = max(fired.get(row["sample"], 0.0), float(value))
    return peaks


def game_finding(inputs: Inputs) -> Iterator[Finding]:
    """The feature of the last layer that changes most from the first to the last decision."""
    changes = changes_through_games(inputs)
    if not changes:
        return
    best = max(changes, key=lambda change: (abs(sum(change.changes)), change.address))
    mean, interval = _mean(best.changes)
    yield Finding(
        sentence=f"From the first to the last decision of a game, {best.address} changes most: "
        f"{mean:+.3g} ({_over(best.changes, 'game')}; chosen on these very games), from "
        f"{best.first:.3g} to {best.last:.3g}.",
        number=mean,
        interval=interval,
        n=len(best.changes),
        rank=GAME_RANK,
    )


# --- numbers --------------------------------------------------------------------------------------


def _mean(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The mean over units, with its interval if there are enough of them."""
    if len(values) < MIN_UNITS:
        return sum(values) / len(values), None
    import numpy as np

    from toolkit_tokens.statistics import mean

    value, low, high = mean(np.asarray(values, float), np.random.default_rng(SEED))
    return value, (low, high)


def _over(values: Sequence[float], unit: str) -> str:
    """How many units a mean is over, and their range."""
    if len(values) == 1:
        return f"1 {unit}"
    head, _, rest = unit.partition(" ")
    units = f"{head}s {rest}".strip()
    return f"mean of {len(values):,} {units}, {min(values):+.3g} to {max(values):+.3g}"
