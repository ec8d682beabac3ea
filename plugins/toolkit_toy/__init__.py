"""The toy subject: parts that count and hash. They exercise the toolkit end to end and are the
shortest example of each kind.

Nothing here means anything about a language model; `specs/toy.yaml` uses all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import ModelPart, Part, ReportSection, SaePart, SourcePart, StagePart, Steps

from . import _parts


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of the toy subject."""
    yield ModelPart(
        name="toy",
        help="A number instead of a model.",
        params=_parts.Toy,
        identify=_parts.identify,
        load=_parts.load,
    )
    yield SaePart(
        name="toy",
        help="A number instead of SAEs.",
        params=_parts.Toy,
        identify=_parts.identify,
        load=_parts.load,
        examine=None,
    )
    yield SourcePart(
        name="count",
        help="Samples that count upwards, in two groups.",
        params=_parts.Count,
        run=_parts.count,
    )
    yield StagePart(
        name="extract.hash",
        help="Sparse activations made from a hash of the text.",
        params=_parts.Hash,
        run=_parts.extract_hash,
        reads=("samples",),
        writes=("activations", "spaces"),
        steps=Steps(size="batch"),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="compare.means",
        help="Mean activation of each feature in each group of samples.",
        params=_parts.MeansParams,
        run=_parts.compare_means,
        reads=("samples", "sample_meta", "activations"),
        writes=("features",),
        version="2",
    )
    yield ReportSection(
        name="toy-means",
        title="Group means",
        help="Largest differences of means.",
        reads=("features",),
        run=_parts.figure,
    )
