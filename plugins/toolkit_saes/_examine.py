"""The examination: does each SAE do on this model what its checkpoint declares?

Measured at the place that the SAE names and at the layers beside it, on the tokens of the first samples, BOS left out. An SAE fits when
its L0 lies within a factor of three of the declared one, it explains half of the variance, and no layer beside it suits it clearly
better: neighbouring streams resemble each other so much that an SAE put one layer off can pass the first two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.hookpoints import Hookpoint, hookpoint
from toolkit.models import Model
from toolkit.records import Params, Rows, Work
from toolkit.saes import Sae, space_id, space_row
from toolkit.tables import arrow_schema

from ._streams import distinct_texts, passes, without_bos

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 64
TOKENS = 8192
LOW, HIGH, LEAST_EV = 1 / 3, 3.0, 0.5
CLEARLY = 0.5
"""A place suits clearly better where at most this share of the variance left unexplained here is left, and L0 is nearer."""


class Examine(Params):
    """Nothing to choose: the limits are the toolkit's."""


@dataclass(frozen=True)
class Measured:
    """What an SAE did at one place."""

    l0: float
    explained_variance: float
    cosine: float
    dead_share: float
    tokens: int

    def fits(self, declared: float | None) -> bool:
        """Whether that is what it declares."""
        sparse = declared is None or LOW * declared <= self.l0 <= HIGH * declared
        return sparse and self.explained_variance >= LEAST_EV

    def suits_better(self, other: Measured, declared: float | None) -> bool:
        """Whether this place is clearly better than another one."""
        left, others = 1 - self.explained_variance, 1 - other.explained_variance
        nearer = declared is None or _ratio(self.l0, declared) <= _ratio(other.l0, declared)
        return self.fits(declared) and nearer and left <= CLEARLY * others


def examine(work: Work) -> Rows:
    """A row of `saes` for each SAE, and for each place where one that does not fit was tried."""
    import pyarrow as pa

    saes: list[Sae] = list(work.saes)
    beside = {sae.hookpoint: list(_beside(work.model, hookpoint(sae.hookpoint))) for sae in saes}
    streams = _streams(work, [*beside, *(name for names in beside.values() for name in names)])
    rows: list[dict[str, Any]] = []
    for done, sae in enumerate(saes):
        own = measure(sae, streams[sae.hookpoint])
        elsewhere = {name: measure(sae, streams[name]) for name in beside[sae.hookpoint]}
        rows += _rows(space_id(work.model.identity, sae), sae, own, elsewhere)
        sae.release_memory()
        work.report.progress(done + 1, len(saes))
    yield "saes", pa.Table.from_pylist(rows, schema=arrow_schema("saes"))
    spaces = [space_row(work.model.identity, sae) for sae in saes]
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


def _streams(work: Work, hookpoints: Sequence[str]) -> dict[str, Tensor]:
    """Every token's stream at each hookpoint."""
    import torch

    samples = work.inputs.read("samples").slice(0, SAMPLES).select(["sample", "token_ids"]).to_pylist()
    texts = distinct_texts(samples, without_bos(work.model))
    names = list(dict.fromkeys(hookpoints))
    if not texts:
        raise DataError("There are no samples to examine the SAEs on. Give the source something to read.")
    parts = [found.rows for found in passes(work.model, texts, names, TOKENS)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _beside(model: Model, point: Hookpoint) -> Iterator[str]:
    """The same site, one layer before and one after."""
    for layer in (point.layer - 1, point.layer + 1):
        if 0 <= layer < model.layers:
            yield str(Hookpoint(point.site, layer))


def measure(sae: Sae, rows: Tensor, chunk: int = 2048) -> Measured:
    """L0, explained variance and the rest over rows, in float64 sums."""
    import torch

    mean = rows.double().mean(0)
    active, error, spread, cosine = 0, 0.0, 0.0, 0.0
    fired = torch.zeros(sae.width, dtype=torch.bool, device=rows.device)
    for start in range(0, len(rows), chunk):
        given = rows[start : start + chunk].float()
        found = sae.encode(given)
        rebuilt = sae.decode(found)
        active += int((found > 0).sum())
        fired |= (found > 0).any(0)
        error += float((given - rebuilt).double().square().sum())
        spread += float((given.double() - mean).square().sum())
        cosine += float(torch.cosine_similarity(given, rebuilt, dim=-1).double().sum())
    if not spread:
        raise DataError(
            f"examination of SAE {sae.name}: the first {SAMPLES} samples give {len(rows)} tokens, all with the same stream, so that "
            f"there is nothing to explain. Give more samples, or longer ones."
        )
    count = len(rows)
    return Measured(active / count, 1 - error / spread, cosine / count, 1 - float(fired.double().mean()), count)


def _rows(space: str, sae: Sae, own: Measured, elsewhere: dict[str, Measured]) -> Iterator[dict[str, Any]]:
    message = explain(sae, own, elsewhere)
    yield _row(space, sae, sae.hookpoint, own, "does not fit" if message else "fits", message)
    for place, found in elsewhere.items():
        yield _row(space, sae, place, found, "suits better" if found.suits_better(own, sae.declared_l0) else "suits worse", "")


def _row(space: str, sae: Sae, place: str, found: Measured, verdict: str, message: str) -> dict[str, Any]:
    return {
        "space": space,
        "place": place,
        "l0": found.l0,
        "declared_l0": sae.declared_l0,
        "explained_variance": found.explained_variance,
        "cosine": found.cosine,
        "dead_share": found.dead_share,
        "tokens": found.tokens,
        "verdict": verdict,
        "message": message,
    }


def explain(sae: Sae, own: Measured, elsewhere: dict[str, Measured]) -> str:
    """What was measured against what was declared, and the likely cause; nothing when the SAE fits."""
    better = [(place, found) for place, found in elsewhere.items() if found.suits_better(own, sae.declared_l0)]
    if own.fits(sae.declared_l0) and not better:
        return ""
    declared = "" if sae.declared_l0 is None else f" against {sae.declared_l0:g} declared"
    said = (
        f"SAE {sae.name} does not fit at {sae.hookpoint}: L0 {own.l0:.1f}{declared}, explained variance "
        f"{own.explained_variance:.2f} (at least {LEAST_EV} wanted)."
    )
    return f"{said} {_cause(sae.declared_l0, own, better)}"


def _cause(declared: float | None, own: Measured, better: list[tuple[str, Measured]]) -> str:
    if better:
        place, found = max(better, key=lambda pair: pair[1].explained_variance)
        return (
            f"At {place} it would: L0 {found.l0:.1f}, explained variance {found.explained_variance:.2f}. The layer is off by one."
        )
    if declared is not None and own.l0 > HIGH * declared and own.explained_variance >= LEAST_EV:
        return "Far too many features fire: the threshold is missing, or is in other units than the activations."
    if declared is not None and own.l0 < LOW * declared:
        return "Far too few features fire: a norm factor is missing, so that its inputs are too small, or it is of another model."
    return "It fits at neither layer beside it: it is of another model or another site."


def _ratio(l0: float, declared: float) -> float:
    """How far off, in either direction."""
    return abs(math.log(max(l0, 1e-9) / declared))
