"""How a feature's activations are spread over the samples of each group: one small histogram for
each of the clearest features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.work import Figure, RunInputs
from toolkit_stats.figures.firing import group_labels, hits, of_space

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit_stats.compare.contrasts import ContrastTable

FEATURES, COLUMNS, BINS = 6, 3, 14
WIDTH, HEIGHT, LEFT, TOP, BELOW = 230.0, 96.0, 40.0, 20.0, 40.0
SIDES = (("more", "var(--computed)"), ("less", "var(--failed)"))


@dataclass(frozen=True)
class _FeatureBins:
    """A feature's bins: from, to, and the share of each group's samples; silent ones apart."""

    name: str
    edges: Sequence[float]
    shares: Sequence[Sequence[float]]
    silent: Sequence[float]


def figures(inputs: RunInputs) -> Iterator[Figure]:
    """A figure for each contrast of two groups whose activations were kept."""
    from toolkit_stats.compare.contrasts import read_contrasts

    if not {"activations", "sample_meta"} <= set(inputs.tables()):
        return
    for contrast in read_contrasts(inputs):
        top = [int(index) for index in contrast.ranking()[:FEATURES]]
        if top:
            activations, meta = inputs.read("activations"), inputs.read("sample_meta")
            yield from value_histograms(activations, meta, contrast, top)


def value_histograms(
    activations: pa.Table, meta: pa.Table, contrast: ContrastTable, top: Sequence[int]
) -> Iterator[Figure]:
    """A histogram for each of the first features, if the contrast is of two groups."""
    import pyarrow.compute as pc

    groups = contrast.comparison.group_names
    labels = group_labels(meta, contrast) if contrast.effect == "d" and len(groups) == 2 else {}
    measured = set(pc.unique(activations["sample"]).to_pylist()) & labels.keys()
    sizes = Counter(_side(labels[sample], groups) for sample in measured)
    if not (sizes[0] and sizes[1]):
        return
    spreads = [
        _spread(of_space(activations, space_of(contrast, index)), contrast, index, labels, sizes)
        for index in top
    ]
    entries = [(colour, name) for (_, colour), name in zip(SIDES, groups, strict=True)]
    counted = f"All measured samples of both groups: {sizes[0]:,} and {sizes[1]:,}."
    drawn = f'{draw.key(entries)}{_drawn(spreads)}<p class="faint">{counted}</p>'
    words = f"Histograms of the activations of {len(spreads)} features in each group."
    yield Figure(contrast.name, drawn, words, list(_data(spreads, groups)))


def space_of(contrast: ContrastTable, index: int) -> str:
    """The id of an entry's space."""
    return str(contrast.spaces[contrast.space[index]].id)


def _side(label: str, groups: Sequence[str]) -> int:
    """Which of the two groups a label belongs to; `rest` is every other label."""
    return groups.index(label) if label in groups else groups.index("rest")


def _spread(
    rows: pa.Table,
    contrast: ContrastTable,
    index: int,
    labels: dict[str, str],
    sizes: Counter[int],
) -> _FeatureBins:
    largest: dict[str, float] = {}
    for sample, value in hits(rows, int(contrast.feature[index])):
        if sample in labels:
            largest[sample] = max(largest.get(sample, 0.0), value)
    width = max(largest.values(), default=1.0) / BINS
    counts = [[0] * BINS, [0] * BINS]
    for sample, value in largest.items():
        side = _side(labels[sample], contrast.comparison.group_names)
        counts[side][min(BINS - 1, int(value / width))] += 1
    return _FeatureBins(
        contrast.address(index),
        [width * number for number in range(BINS + 1)],
        [[count / sizes[side] for count in counts[side]] for side in (0, 1)],
        [1 - sum(counts[side]) / sizes[side] for side in (0, 1)],
    )


def _data(spreads: Sequence[_FeatureBins], groups: Sequence[str]) -> Iterator[dict[str, Any]]:
    for spread in spreads:
        for group, shares, silent in zip(groups, spread.shares, spread.silent, strict=True):
            named = {"feature": spread.name, "group": group}
            yield {**named, "from": None, "to": 0.0, "share": silent}
            for number, share in enumerate(shares):
                ends = {"from": spread.edges[number], "to": spread.edges[number + 1]}
                yield {**named, **ends, "share": share}


# --- the drawing ----------------------------------------------------------------------------------


def _drawn(spreads: Sequence[_FeatureBins]) -> str:
    panels = []
    for number, spread in enumerate(spreads):
        x = 20 + (number % COLUMNS) * (WIDTH + 20)
        y = (number // COLUMNS) * (TOP + HEIGHT + BELOW)
        panels.append(f'<g transform="translate({x:g} {y:g})">{"".join(_panel(spread))}</g>')
    columns, lines = min(len(spreads), COLUMNS), -(-len(spreads) // COLUMNS)
    wide, high = 20 + columns * (WIDTH + 20), lines * (TOP + HEIGHT + BELOW)
    across = "largest activation in a sample (left of 0: silent)"
    titles = [
        draw.text(wide / 2, high + 12, across, anchor="middle", kind="strong"),
        draw.text(12, high / 2, "share of samples", anchor="middle", kind="strong", turn=-90),
    ]
    return draw.svg(wide, high + 22, [*panels, *titles])


def _panel(spread: _FeatureBins) -> Iterator[str]:
    """Two rows of thin bars side by side; the first bin counts the samples in which it does not
    fire.
    """
    bottom, step = TOP + HEIGHT, (WIDTH - LEFT) / (BINS + 2)
    highest = max(*spread.silent, *spread.shares[0], *spread.shares[1], 0.01)
    yield draw.text(LEFT, 13, spread.name, kind="strong")
    for tick in draw.ticks(0, highest, 3):
        y = bottom - HEIGHT * tick / highest
        yield draw.line(LEFT, y, WIDTH, y, "grid" if tick else "axis")
        yield draw.text(LEFT - 5, y + 4, draw.number(tick), anchor="end")
    for side, (kind, _) in enumerate(SIDES):
        columns = [(0.0, spread.silent[side])]
        columns += [(number + 2.0, share) for number, share in enumerate(spread.shares[side])]
        for column, share in columns:
            tall = HEIGHT * share / highest
            x = LEFT + step * (column + 0.08 + 0.42 * side)
            box = f'x="{x:.1f}" y="{bottom - tall:.1f}" width="{step * 0.42:.1f}"'
            if share:
                about = f"<title>{share:.1%}</title>"
                yield f'<rect class="{kind}" {box} height="{tall:.1f}">{about}</rect>'
    zero, last = LEFT + step * 2, spread.edges[-1]
    for tick in draw.ticks(0, last, 3):
        x = zero + (WIDTH - zero) * tick / last
        yield draw.text(x, bottom + 15, draw.number(tick), anchor="middle")
