"""Sparse autoencoders: adapters of published layouts, their examination, and extraction of their
features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from toolkit import hookimpl
from toolkit.parts import Estimates, Part, ReportSection, SaePart, StagePart, Steps
from toolkit_saes.examine import section as _section
from toolkit_saes.examine import stage as _examine
from toolkit_saes.examine.measurement import SAMPLES
from toolkit_saes.extract import costs as _cost
from toolkit_saes.extract import section as _firing
from toolkit_saes.extract import stage as _extract
from toolkit_saes.extract import summary as _summary
from toolkit_saes.layouts import auto as _auto
from toolkit_saes.layouts import decoders as _decoders
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import sae_lens_id as _sae_lens_id
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts.base import FileLayout
from toolkit_saes.layouts.location import SaeLocation


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield from _adapters()
    yield from _stages()
    yield ReportSection(
        name="examination",
        title="Examination of the SAEs",
        help="Measured before use, on the tokens of the first samples, BOS left out.",
        reads=("saes", "spaces"),
        run=_section.figures,
        findings=_section.findings,
        order=60,
    )
    yield ReportSection(
        name="firing",
        title="Features that fire",
        help="How many features of each SAE fire in the texts, where no stage compares them.",
        reads=("activations", "spaces"),
        run=_firing.figures,
        findings=_firing.findings,
        order=36,
    )


def _adapters() -> Iterator[Part]:
    yield _of_files(
        "llama_scope",
        "Llama Scope: R, M, A and TC, in the original layout and OpenMOSS's two later ones.",
        _llama_scope.LlamaScope,
        _llama_scope.LAYOUT,
        decoder=_decoders.llama_scope,
    )
    yield _of_files(
        "gemma_scope",
        "Gemma Scope 1 (params.npz): residual, MLP, attention, transcoders, embeddings.",
        _gemma_scope.GemmaScope,
        _gemma_scope.LAYOUT,
        decoder=_decoders.gemma_scope,
    )
    yield _of_files(
        "saelens",
        "SAELens's own files (cfg.json, sae_weights.safetensors), read without SAELens.",
        _saelens.SaeLens,
        _saelens.LAYOUT,
    )
    yield SaePart(
        name="sae_lens_id",
        help="Any release and id that an installed SAELens knows (extra `saelens`).",
        params=_sae_lens_id.SaeLensId,
        identify=_sae_lens_id.identify,
        load=_sae_lens_id.load,
        examine="examine.saes",
    )
    yield SaePart(
        name="auto",
        help="Detects the layout of a folder's SAEs and reads them with its adapter.",
        params=_auto.Auto,
        identify=_auto.identify,
        load=_auto.load,
        examine="examine.saes",
    )


def _of_files(
    name: str,
    help: str,
    params: type[SaeLocation],
    layout: FileLayout[Any],
    decoder: Callable[..., Any] | None = None,
) -> SaePart:
    """The adapter of a layout of files."""
    return SaePart(
        name=name,
        help=help,
        params=params,
        identify=layout.identify,
        load=layout.load,
        decoder=decoder,
        downloads=layout.downloads,
        examine="examine.saes",
    )


def _stages() -> Iterator[Part]:
    yield StagePart(
        name="examine.saes",
        help="L0 and explained variance of each SAE on the first samples, against what it "
        "declares.",
        params=_examine.Examine,
        run=_examine.examine,
        reads=("samples",),
        writes=("saes", "spaces"),
        steps=Steps(sample_limit=SAMPLES),
        estimates=Estimates(cost=_cost.examination),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="extract.activations",
        help="Active features of every SAE, all from one forward pass.",
        params=_extract.Extract,
        run=_extract.extract,
        reads=("samples",),
        writes=("activations", "spaces", "streams"),
        writes_for=_extract.written,
        steps=Steps(size="batch", group_equal_texts=True),
        estimates=Estimates(cost=_cost.extraction, batch_plan=_cost.batches),
        summary=_summary.summary,
        uses_model=True,
        uses_saes=True,
    )
