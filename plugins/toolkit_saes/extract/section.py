"""The report section `firing`: how many features of each SAE fire in the texts of an extraction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit import figures as draw
from toolkit.features.addresses import layer_of
from toolkit.work import Figure, Finding, Inputs

WIDTH, HEIGHT, MARGIN, TOP = 560.0, 240.0, 76.0, 12.0
RANK = 60


@dataclass(frozen=True)
class _FiringCounts:
    """How many features of one space fire in any text, and how many at one token on average."""

    address: str
    layer: int | None
    width: int
    features: int
    per_token: float

    @property
    def share(self) -> float:
        """The share of its features that fire."""
        return self.features / self.width


def figures(inputs: Inputs) -> Iterator[Figure]:
    """Shares by layer, and a table of all SAEs; nothing where features were compared."""
    spaces = _fired(inputs)
    if not spaces:
        return
    data = [
        {
            "SAE": each.address,
            "layer": each.layer,
            "features": each.width,
            "fire": each.features,
            "share": each.share,
            "per_token": each.per_token,
        }
        for each in spaces
    ]
    with_layer = [each for each in spaces if each.layer is not None]
    if with_layer:
        alt = "For each SAE, the share of its features that fire in any text."
        yield Figure("Features that fire, by layer", _chart(with_layer), alt, data)
    cells = [
        (
            draw.escaped(each.address),
            f"{each.width:,}",
            f"{each.features:,}",
            draw.percent(each.share),
            f"{each.per_token:.1f}",
        )
        for each in spaces
    ]
    heads = ("SAE", "features", "fire in any text", "share", "at one token")
    caption = "Features that fire in any text, and how many at one token on average"
    yield Figure("Features that fire, by SAE", draw.table(caption, heads, cells), caption, data)


def findings(inputs: Inputs) -> Iterator[Finding]:
    """How many features fire, and at which layers most and fewest of them."""
    spaces = _fired(inputs)
    if not spaces:
        return
    features, width = (
        sum(each.features for each in spaces),
        sum(each.width for each in spaces),
    )
    samples = len(inputs.read("activations")["sample"].unique())
    most, fewest = (pick(spaces, key=lambda each: each.share) for pick in (max, min))
    per_token = sum(each.per_token for each in spaces) / len(spaces)
    saes = "1 SAE" if len(spaces) == 1 else f"{len(spaces):,} SAEs"
    sentence = (
        f"{features:,} of the {width:,} features of {saes} ({draw.percent(features / width)}) fire "
        f"in at least one of {samples:,} texts, {per_token:.1f} of an SAE at one token"
    )
    if len(spaces) > 1:
        sentence += (
            f"; most in {most.address} ({draw.percent(most.share)}), fewest in "
            f"{fewest.address} ({draw.percent(fewest.share)})"
        )
    yield Finding(sentence=f"{sentence}.", number=features / width, n=_units(inputs), rank=RANK)


def _units(inputs: Inputs) -> int | None:
    """The independent units of the texts."""
    if "samples" not in inputs.tables():
        return None
    return len(inputs.read("samples")["unit"].unique())


def _fired(inputs: Inputs) -> list[_FiringCounts]:
    """By layer, then address. A run that compares features answers with the comparison."""
    import pyarrow.compute as pc

    tables = set(inputs.tables())
    if not {"activations", "spaces"} <= tables or "comparisons" in tables:
        return []
    activations = inputs.read("activations").select(["space", "features"])
    fired = []
    for row in {row["space"]: row for row in inputs.read("spaces").to_pylist()}.values():
        lists = activations.filter(pc.equal(activations["space"], row["space"]))["features"]
        if len(lists):
            entries = lists.combine_chunks().flatten()
            count, per_token = pc.count_distinct(entries).as_py(), len(entries) / len(lists)
            fired.append(
                _FiringCounts(row["address"], layer_of(row), int(row["width"]), count, per_token)
            )
    return sorted(fired, key=lambda each: (-1 if each.layer is None else each.layer, each.address))


def _chart(spaces: Sequence[_FiringCounts]) -> str:
    """Draw each SAE as a dot: its layer (horizontal), the share of features firing (vertical)."""
    layers = sorted({each.layer for each in spaces if each.layer is not None})
    x = draw.ChartAxis(layers[0] - 0.5, layers[-1] + 0.5, MARGIN, MARGIN + WIDTH)
    y = draw.ChartAxis(0, max(0.01, *(each.share for each in spaces)), TOP + HEIGHT, TOP)
    step = 1 + len(layers) // 16
    body = [
        *draw.x_ticks(x, TOP, TOP + HEIGHT, [float(each) for each in layers[::step]], draw.number),
        *draw.y_ticks(y, MARGIN, MARGIN + WIDTH, y.ticks(5), lambda share: draw.percent(share)),
        draw.x_title(x, TOP + HEIGHT + 38, "layer"),
        draw.y_title(y, 14, "features that fire"),
    ]
    for each in spaces:
        title = f"{each.address}: {each.features:,} of {each.width:,}"
        place = x.at(float(each.layer or 0)), y.at(each.share)
        body.append(draw.circle(*place, 4, "dot", title, colour="var(--computed)"))
    return draw.svg(WIDTH + MARGIN + 24, TOP + HEIGHT + 46, body)
