"""Alternatives for an SAE that does not fit: other sites of its layer, BOS included, and other ways
to run its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from toolkit.errors import BadInput
from toolkit.hookpoints import SITES, Hookpoint, hookpoint
from toolkit.models import Model
from toolkit.saes import Sae
from toolkit_saes.encode.canonical import CanonicalSae
from toolkit_saes.encode.weights import Gate, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit_saes.examine.measurement import SaeMeasurement

LAYER = "The layer is off by one."
SITE = "It belongs to another site."
BEFORE, BEHIND = "It belongs before the post-norm.", "It belongs after the post-norm."
BOS = "What it declares was measured with BOS among the tokens."
DROPPED = (
    "A norm factor was dropped: inputs and outputs are to be scaled by {:.3g}, sqrt(d) over the "
    "mean norm."
)
DOUBLED = "A norm factor is applied that is in the weights already, or belongs to another model."
SUBTRACTED = "b_dec is subtracted from the inputs, and should not be."
FORGOTTEN = "b_dec is to be subtracted from the inputs, and is not."
THRESHOLD = "The threshold is missing, or is in other units than the activations."
_READS = ("mlp_in_normed", "mlp_in", "resid_mid")
_WRITES = ("mlp_out", "mlp_raw")
NEAR = 1.1
"""Norm factors this close to 1 make no detectable difference."""


@dataclass(frozen=True)
class TrialSite:
    """Where an SAE reads and writes in a trial. `str` is its name in table `saes`."""

    reads: str
    writes: str

    def __str__(self) -> str:
        return self.reads if self.reads == self.writes else f"{self.reads} -> {self.writes}"


def declared_site(sae: Sae) -> TrialSite:
    """The site that the SAE declares."""
    return TrialSite(sae.hookpoint, sae.output_hookpoint)


def adjacent_sites(model: Model, site: TrialSite) -> Iterator[TrialSite]:
    """The same site, one layer before and one after."""
    ends = hookpoint(site.reads), hookpoint(site.writes)
    for step in (-1, 1):
        moved = [Hookpoint(end.site, end.layer + step) for end in ends]
        if all(0 <= end.layer < model.layers for end in moved):
            yield TrialSite(*map(str, moved))


def other_sites(sae: Sae, shown: Mapping[str, Tensor]) -> Iterator[tuple[TrialSite, str]]:
    """Other sites of its layer with the same width, out of those that the model has, and the cause
    if one of them fits.
    """
    layer = sae.layer
    reads, writes = hookpoint(sae.hookpoint).site, hookpoint(sae.output_hookpoint).site
    if sae.hookpoint == sae.output_hookpoint:
        pairs = [
            (site, site)
            for site in SITES
            if not (site == "resid_pre" and reads == "resid_post" and layer)
        ]
    else:
        pairs = [
            (before, after)
            for before in dict.fromkeys((reads, *_READS))
            for after in dict.fromkeys((writes, *_WRITES))
        ]
    for before, after in pairs:
        site = TrialSite(f"{before}.{layer}", f"{after}.{layer}")
        if (before, after) != (reads, writes) and {site.reads, site.writes} <= set(shown):
            if (
                shown[site.reads].shape[-1] == sae.inputs
                and shown[site.writes].shape[-1] == sae.outputs
            ):
                yield (
                    site,
                    {("mlp_out", "mlp_raw"): BEFORE, ("mlp_raw", "mlp_out"): BEHIND}.get(
                        (writes, after), SITE
                    ),
                )


def shows(model: Model, name: str) -> bool:
    """Whether a model can capture a site."""
    try:
        model.run([[0]], [name])
    except BadInput:
        return False
    return True


def b_dec_otherwise(sae: Sae) -> Iterator[tuple[str, str, Sae]]:
    """The opposite handling of b_dec: not subtracted from the inputs where it is, subtracted where
    it is not.
    """
    if isinstance(sae, CanonicalSae) and sae.hookpoint == sae.output_hookpoint:
        is_subtracted = sae.subtracts_b_dec()
        name, cause = (
            ("b_dec not subtracted", SUBTRACTED)
            if is_subtracted
            else ("b_dec subtracted", FORGOTTEN)
        )
        yield (
            name,
            cause,
            sae.run_as(lambda weights: replace(weights, subtract_b_dec=not is_subtracted)),
        )


def norms_otherwise(sae: Sae, rows: Tensor, targets: Tensor) -> Iterator[tuple[str, str, Sae]]:
    """Inputs and outputs scaled by sqrt(d) over their mean norms, or unscaled; thresholds in either
    unit.
    """
    if not isinstance(sae, CanonicalSae):
        return
    factors = [
        vectors.shape[-1] ** 0.5 / float(vectors.float().norm(dim=-1).mean())
        for vectors in (rows, targets)
    ]
    if max(*factors, *(1 / factor for factor in factors)) < NEAR:
        return
    for inverse, cause in ((False, DROPPED.format(factors[0])), (True, DOUBLED)):
        scale_in, scale_out = ((1 / factor if inverse else factor) for factor in factors)
        for rescaled in (False, True):
            name = (
                f"inputs times {scale_in:.3g}, thresholds "
                f"{f'times {scale_out:.3g}' if rescaled else 'kept'}"
            )
            yield (
                name,
                cause,
                sae.run_as(
                    partial(_scaled, scale_in=scale_in, scale_out=scale_out, rescaled=rescaled)
                ),
            )


def thresholds_otherwise(
    sae: Sae, measured: SaeMeasurement, rows: Tensor
) -> Iterator[tuple[str, str, Sae]]:
    """Where far too many features fire and little is explained: the threshold that leaves the
    declared L0.
    """
    declared = sae.declared_l0
    if (
        not isinstance(sae, CanonicalSae)
        or declared is None
        or measured.l0 <= 3 * declared
        or measured.fits(None)
    ):
        return
    active = sae.encode(rows).flatten()
    least = float(active.topk(min(active.numel(), max(1, round(declared * len(rows))))).values[-1])
    yield f"threshold {least:.3g}", THRESHOLD, sae.run_as(partial(_cut, least=least))


def _cut(weights: Weights, least: float) -> Weights:
    gate: Gate = "jumprelu" if weights.gate == "relu" else weights.gate
    return replace(weights, gate=gate, threshold=weights.b_enc.new_tensor(least))


def _scaled(weights: Weights, scale_in: float, scale_out: float, rescaled: bool) -> Weights:
    """Weights run at another scale."""
    threshold = weights.threshold
    if rescaled and threshold is not None:
        threshold = threshold * scale_out
    return replace(
        weights,
        scale_in=weights.scale_in * scale_in,
        scale_out=weights.scale_out * scale_out,
        threshold=threshold,
    )


def hookpoints(sites: Sequence[TrialSite]) -> list[str]:
    """The hookpoints to capture for some sites."""
    return list(dict.fromkeys(name for site in sites for name in (site.reads, site.writes)))
