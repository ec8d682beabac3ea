"""Features and attention of every token, what moves an outcome, and by which path."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import (
    Estimates,
    LabelKeys,
    Part,
    ReportSection,
    SinkPart,
    SourcePart,
    StagePart,
    Steps,
)

from . import costs
from .attribute import params as attribute_params
from .attribute import stage as attribute_stage
from .report import section
from .sinks import exp6_json
from .sources import scenarios
from .trace import params as trace_params
from .trace import stage as trace_stage
from .trace import summary as trace_summary
from .track import contrasts, layers, params, stage


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield SourcePart(
        name="scenarios",
        help="Named situations of a game, with spans from its prompt builder; contradictions are "
        "flagged.",
        params=scenarios.Scenarios,
        run=scenarios.read_samples,
        estimates=Estimates(max_rows=scenarios.max_rows, texts=scenarios.texts),
        labels=LabelKeys(offered=scenarios.labels),
        uses_model=True,
    )
    yield from _tracking_parts()
    yield from _attribution_parts()
    yield ReportSection(
        name="tokens",
        title="Tokens, attention and attribution",
        help="Features and attention by token, what moves the outcome, and by which path.",
        reads=("span_contrasts", "attribution_checks", "paths"),
        run=section.figures,
        findings=section.findings,
        order=35,
    )
    yield SinkPart(
        name="exp6_json",
        help="Features and attention of each token, in the JSON of the token study, zeros left "
        "out.",
        params=exp6_json.Exp6Json,
        run=exp6_json.write,
        reads=("activations", "attention", "spaces", "samples", "sample_meta"),
    )


def _tracking_parts() -> Iterator[Part]:
    yield StagePart(
        name="track.tokens",
        help="Features at every token, and attention of every head, all from one pass.",
        params=params.TrackTokens,
        run=stage.track_tokens,
        reads=("samples",),
        writes=("activations", "spaces", "attention"),
        writes_for=lambda stage_params: tuple(stage.written_tables(stage_params)),
        steps=Steps(size="batch", group_equal_texts=True),
        estimates=Estimates(cost=costs.tracking),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="track.attention",
        help="Attention of every head at the chosen queries; opens no SAE.",
        params=params.TrackAttention,
        run=stage.track_attention,
        reads=("samples",),
        writes=("attention",),
        steps=Steps(size="batch", group_equal_texts=True),
        estimates=Estimates(cost=costs.tracking_attention),
        check=layers.check_layers,
        uses_model=True,
    )
    yield StagePart(
        name="track.contrasts",
        help="Per span and layer: share of attention and activation, between two groups.",
        params=contrasts.Contrasts,
        run=contrasts.contrast,
        reads=("samples", "sample_meta"),
        optional=("attention", "activations", "spaces"),
        writes=("span_contrasts",),
        labels=LabelKeys(used=contrasts.label_uses),
        estimates=Estimates(cost=costs.contrasting),
    )


def _attribution_parts() -> Iterator[Part]:
    yield StagePart(
        name="attribute.tokens",
        help="What each token, head, block and feature contributes to an outcome, by "
        "several methods.",
        params=attribute_params.Attribute,
        run=attribute_stage.attribute,
        reads=("samples", "sample_meta"),
        writes=("attributions", "attribution_checks", "spaces"),
        steps=Steps(size="batch", whole_units=True),
        estimates=Estimates(cost=costs.attributing),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="trace.path",
        help="Follows a path from an outcome through features to tokens, each hop checked.",
        params=trace_params.TracePath,
        run=trace_stage.trace,
        reads=("samples",),
        writes=("paths", "path_parts", "spaces"),
        steps=Steps(size="batch"),
        estimates=Estimates(cost=costs.tracing),
        uses_model=True,
        uses_saes=True,
    )
    yield StagePart(
        name="trace.summary",
        help="Each hop of traced paths over all prompts: interval by unit, p, q and a verdict.",
        params=trace_params.SummarisePaths,
        run=trace_summary.summarise,
        reads=("samples", "paths"),
        writes=("paths",),
        estimates=Estimates(cost=costs.summarising),
    )
