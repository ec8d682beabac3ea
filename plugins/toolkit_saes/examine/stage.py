"""The examination: does each SAE do on this model what its checkpoint declares?

Measured at the site that the SAE declares and at the adjacent layers, on the tokens of the first
samples, BOS left out. An SAE fits when its L0 is within a factor of three of the declared one, it
explains half of the variance, and no adjacent layer fits clearly better: neighbouring streams are
so similar that an SAE placed one layer off can pass the first two. The other sites of its layer are
tried on a few rows, and so are common mistakes in running its weights: b_dec subtracted or not, a
norm factor dropped or applied twice, and, where far too many features fire, a missing threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.hookpoints import SITES
from toolkit.models.streams import distinct_texts, every, passes, without_bos
from toolkit.parts import Params
from toolkit.saes import Sae, space_id, space_row
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work
from toolkit_saes.examine.alternatives import (
    BOS,
    LAYER,
    TrialSite,
    adjacent_sites,
    b_dec_otherwise,
    declared_site,
    hookpoints,
    norms_otherwise,
    other_sites,
    shows,
    thresholds_otherwise,
)
from toolkit_saes.examine.measurement import (
    HIGH,
    LEAST_EV,
    LOW,
    SAMPLES,
    SaeMeasurement,
    measure,
    ratio,
)

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 8192
"Padded tokens per forward pass."
SCREENED = 512
"""Tokens on which other sites and recipes are tried first."""
NEAR = 1.5
"""An L0 within this factor is close to the declared one: of several sites that fit, these are named
first.
"""


class Examine(Params):
    """No params: the limits are fixed."""


Tried = dict[str, tuple[SaeMeasurement, str]]
"""Measurements at other sites or with other recipes, with the cause if one of them is better."""


def examine(work: Work) -> Rows:
    """Rows of `saes`: each SAE at its site, at the adjacent layers, and where or how it would fit
    better.
    """
    import pyarrow as pa

    saes: list[Sae] = list(work.saes)
    sites = {
        sae: [declared_site(sae), *adjacent_sites(work.model, declared_site(sae))] for sae in saes
    }
    streams = _streams(
        work, hookpoints([site for neighbours in sites.values() for site in neighbours])
    )
    rows: list[dict[str, Any]] = []
    screen = AlternativesScreen(work)
    for done, sae in enumerate(saes):
        measured, *neighbours = (_measure_at(sae, streams, site) for site in sites[sae])
        tried = {
            str(site): (measurement, LAYER)
            for site, measurement in zip(sites[sae][1:], neighbours, strict=True)
        }
        better = screen.better(sae, measured, streams)
        rows += _rows(space_id(work.model.identity, sae), sae, measured, tried, better)
        sae.release_memory()
        work.report.progress(done + 1, len(saes))
    yield "saes", pa.Table.from_pylist(rows, schema=arrow_schema("saes"))
    spaces = [space_row(work.model.identity, sae) for sae in saes]
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


def _measure_at(sae: Sae, streams: dict[str, Tensor], site: TrialSite) -> SaeMeasurement:
    return measure(sae, streams[site.reads], targets=streams[site.writes])


class AlternativesScreen:
    """Tries sites and recipes on a few rows first; those that fit are measured on all rows.

    The few rows of all sites of a layer are kept for the next SAE, which is often of the same
    layer.
    """

    def __init__(self, work: Work) -> None:
        self._work, self._layer = work, -1
        self._shown: dict[str, Tensor] = {}

    def better(self, sae: Sae, measured: SaeMeasurement, streams: dict[str, Tensor]) -> Tried:
        """The sites and recipes that fit an SAE better than its own, adjacent layers apart."""
        site = declared_site(sae)
        rows, targets = streams[site.reads], streams[site.writes]
        results = dict(self._recipes(sae, site, rows, targets))
        results |= dict(self._sites(sae, site))
        if not results and not measured.fits(sae.declared_l0):
            results |= dict(self._with_bos(sae, measured, site))
        return {
            name: tried
            for name, tried in results.items()
            if _is_better(name, tried[0], measured, sae.declared_l0)
        }

    def _recipes(
        self, sae: Sae, site: TrialSite, rows: Tensor, targets: Tensor
    ) -> Iterator[tuple[str, tuple[SaeMeasurement, str]]]:
        few, right = rows[:SCREENED], targets[:SCREENED]
        measured = measure(sae, few, targets=right)
        recipes = chain(
            b_dec_otherwise(sae),
            norms_otherwise(sae, rows, targets),
            thresholds_otherwise(sae, measured, few),
        )
        for name, cause, recipe in recipes:
            if measure(recipe, few, targets=right).repairs(measured, sae.declared_l0):
                yield f"{site} ({name})", (measure(recipe, rows, targets=targets), cause)

    def _sites(
        self, sae: Sae, declared_site: TrialSite
    ) -> Iterator[tuple[str, tuple[SaeMeasurement, str]]]:
        if sae.layer != self._layer:
            self._layer, self._shown = sae.layer, self._few_rows(sae.layer)
        if not {declared_site.reads, declared_site.writes} <= set(self._shown):
            return
        measured = measure(
            sae, self._shown[declared_site.reads], targets=self._shown[declared_site.writes]
        )
        for site, cause in other_sites(sae, self._shown):
            few = measure(sae, self._shown[site.reads], targets=self._shown[site.writes])
            if few.suits_by_far(measured, sae.declared_l0):
                streams = _streams(self._work, hookpoints([site]))
                yield (
                    f"{site}",
                    (measure(sae, streams[site.reads], targets=streams[site.writes]), cause),
                )

    def _few_rows(self, layer: int) -> dict[str, Tensor]:
        names = [f"{site}.{layer}" for site in SITES if site != "attn_probs"]
        return _streams(
            self._work,
            [name for name in names if shows(self._work.model, name)],
            max_texts=SCREENED,
        )

    def _with_bos(
        self, sae: Sae, measured: SaeMeasurement, site: TrialSite
    ) -> Iterator[tuple[str, tuple[SaeMeasurement, str]]]:
        streams = _streams(self._work, hookpoints([site]), bos=True)
        yield (
            f"{site} (with BOS)",
            (measure(sae, streams[site.reads], targets=streams[site.writes]), BOS),
        )


def _is_better(
    name: str, measurement: SaeMeasurement, measured: SaeMeasurement, declared: float | None
) -> bool:
    """Whether a trial counts: a recipe has to repair the SAE, a site to fit clearly better."""
    return (
        measurement.repairs(measured, declared)
        if "(" in name
        else measurement.suits_by_far(measured, declared)
    )


def _streams(
    work: Work, names: Sequence[str], *, bos: bool = False, max_texts: int | None = None
) -> dict[str, Tensor]:
    """The stream at each hookpoint for all tokens, or those of the first `max_texts` texts; without
    BOS unless `bos` is set.
    """
    import torch

    samples = (
        work.inputs.read("samples").slice(0, SAMPLES).select(["sample", "token_ids"]).to_pylist()
    )
    texts = distinct_texts(samples, every if bos else without_bos(work.model))
    if not texts:
        raise DataError(
            "There are no samples to examine the SAEs on. Give the source at least one text."
        )
    if max_texts is not None:
        texts = [
            text
            for text, end in zip(
                texts, accumulate(len(text.positions) for text in texts), strict=True
            )
            if end <= max_texts
        ] or texts[:1]
    parts = [batch.rows for batch in passes(work.model, texts, names, TOKENS)]
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _rows(
    space: str, sae: Sae, measured: SaeMeasurement, neighbours: Tried, better: Tried
) -> Iterator[dict[str, Any]]:
    everywhere = {**neighbours, **better}
    causes = {name: cause for name, (_, cause) in everywhere.items()}
    message = explain(
        sae,
        measured,
        {name: measurement for name, (measurement, _) in everywhere.items()},
        causes,
        [*better],
    )
    yield _row(space, sae, sae.hookpoint, measured, "does not fit" if message else "fits", message)
    for name, (measurement, _) in everywhere.items():
        suits = name in better or measurement.suits_better(measured, sae.declared_l0)
        yield _row(space, sae, name, measurement, "suits better" if suits else "suits worse", "")


def _row(
    space: str, sae: Sae, site: str, measurement: SaeMeasurement, verdict: str, message: str
) -> dict[str, Any]:
    return {
        "space": space,
        "site": site,
        "l0": measurement.l0,
        "declared_l0": sae.declared_l0,
        "explained_variance": measurement.explained_variance,
        "cosine": measurement.cosine,
        "dead_share": measurement.dead_share,
        "tokens": measurement.tokens,
        "verdict": verdict,
        "message": message,
    }


def explain(
    sae: Sae,
    measured: SaeMeasurement,
    elsewhere: Mapping[str, SaeMeasurement],
    causes: Mapping[str, str] | None = None,
    known_better: Sequence[str] = (),
) -> str:
    """The message for an SAE that does not fit, with the likely cause; empty when it fits.

    `causes` gives the cause for each site or recipe of `elsewhere` (the layer, where none is
    given).
    """
    neighbours = [name for name in elsewhere if causes is None or causes[name] == LAYER]
    better = [
        (name, measurement)
        for name, measurement in elsewhere.items()
        if name in known_better
        or (name in neighbours and measurement.suits_better(measured, sae.declared_l0))
    ]
    if measured.fits(sae.declared_l0) and not better:
        return ""
    declared = "" if sae.declared_l0 is None else f" against {sae.declared_l0:g} declared"
    index = (
        sae.hookpoint
        if sae.hookpoint == sae.output_hookpoint
        else f"{sae.hookpoint} -> {sae.output_hookpoint}"
    )
    problem = (
        f"SAE {sae.name} does not fit at {index}: L0 {measured.l0:.1f}{declared}, explained "
        f"variance {measured.explained_variance:.2f} (at least {LEAST_EV} is expected)."
    )
    return f"{problem} {_cause(sae.declared_l0, measured, better, causes or {})}"


def _cause(
    declared: float | None,
    measured: SaeMeasurement,
    better: list[tuple[str, SaeMeasurement]],
    causes: Mapping[str, str],
) -> str:
    if better:
        name, measurement = max(
            better,
            key=lambda pair: (_near_declared(pair[1].l0, declared), pair[1].explained_variance),
        )
        return (
            f"At {name} it would: L0 {measurement.l0:.1f}, explained variance "
            f"{measurement.explained_variance:.2f}. {causes.get(name, LAYER)}"
        )
    if (
        declared is not None
        and measured.l0 > HIGH * declared
        and measured.explained_variance >= LEAST_EV
    ):
        return (
            "Far too many features fire: the threshold is missing, or is in other units than the "
            "activations."
        )
    if declared is not None and measured.l0 < LOW * declared:
        return (
            "Far too few features fire: a norm factor is missing, so that its inputs are too "
            "small, or it belongs to another model."
        )
    return "It does not fit at the adjacent layers either: it belongs to another model or site."


def _near_declared(l0: float, declared: float | None) -> bool:
    """Whether L0 is close to the declared one: of several that fit, these come first."""
    return declared is not None and ratio(l0, declared) <= math.log(NEAR)
