"""Sparse autoencoders: adapters of published layouts, their examination, and extraction of their features."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.records import Part, ReportSection, SaePart, StagePart

from . import _decoders, _examine, _extract, _gemma_scope, _llama_scope, _section


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield SaePart(
        name="llama_scope",
        help="SAEs in the original Llama Scope layout (hyperparams.json, checkpoints/final.safetensors).",
        params=_llama_scope.LlamaScope,
        identify=_llama_scope.identify,
        load=_llama_scope.load,
        decoder=_decoders.llama_scope,
        downloads=_llama_scope.downloads,
    )
    yield SaePart(
        name="gemma_scope",
        help="SAEs in the Gemma Scope 1 layout (layer_L/width_W/average_l0_N/params.npz).",
        params=_gemma_scope.GemmaScope,
        identify=_gemma_scope.identify,
        load=_gemma_scope.load,
        decoder=_decoders.gemma_scope,
        downloads=_gemma_scope.downloads,
    )
    yield StagePart(
        name="examine.saes",
        help="L0 and explained variance of each SAE on the first samples, against what it declares.",
        params=_examine.Examine,
        run=_examine.examine,
        reads=("samples",),
        writes=("saes", "spaces"),
        first=_examine.SAMPLES,
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="extract.activations",
        help="Active features of every SAE, all from one forward pass.",
        params=_extract.Extract,
        run=_extract.extract,
        reads=("samples",),
        writes=("activations", "spaces"),
        split="batch",
        uses_model=True,
        uses_saes=True,
    )
    yield ReportSection(
        name="examination",
        title="Examination of the SAEs",
        help="Measured before use, on the tokens of the first samples, BOS left out.",
        reads=("saes", "spaces"),
        run=_section.figures,
        order=15,
    )
