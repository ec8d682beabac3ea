"""Statistics over features: tests of groups, and the figures that show them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Estimates, LabelKeys, Part, ReportSection, SinkPart, StagePart
from toolkit_stats import costs as _cost
from toolkit_stats import declared as _compares
from toolkit_stats.baselines import leak as _leak
from toolkit_stats.baselines import probe as _probe
from toolkit_stats.baselines import residual as _residual
from toolkit_stats.baselines import section as _baselines_section
from toolkit_stats.compare import findings as _findings
from toolkit_stats.compare import stage as _compare
from toolkit_stats.figures import heatmap as _heatmap
from toolkit_stats.figures import histograms as _histograms
from toolkit_stats.figures import layer_profile as _layer_profile
from toolkit_stats.figures import top_features as _top_features
from toolkit_stats.figures import volcano as _volcano
from toolkit_stats.pathway import findings as _pathway_findings
from toolkit_stats.pathway import section as _pathway_section
from toolkit_stats.pathway import stage as _pathway
from toolkit_stats.pathway.params import Pathway
from toolkit_stats.ranking import section as _ranking_section
from toolkit_stats.ranking import sink as _ranking_sink
from toolkit_stats.ranking import stage as _ranking
from toolkit_stats.ranking.params import Ranking
from toolkit_stats.samples import params as _params
from toolkit_stats.samples.label_uses import label_uses


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield from _comparisons()
    yield from _baselines()
    yield from _paths_and_ranks()
    yield from _sections()
    yield from _feature_sections()


def _sections() -> Iterator[Part]:
    """Claims over all features, layer by layer."""
    yield ReportSection(
        name="baselines",
        title="What else predicts the label",
        help="Metadata, linear probes of the raw stream, and the best single feature, on held-out "
        "folds.",
        reads=("baselines",),
        run=_baselines_section.figures,
        findings=_baselines_section.findings,
        order=19,
    )
    yield ReportSection(
        name="layer-profile",
        title="Layers",
        help="How many features differ at each layer, in which direction, and how strongly.",
        reads=("features", "comparisons", "spaces"),
        run=_layer_profile.figures,
        findings=_findings.comparison_findings,
        order=20,
    )
    yield ReportSection(
        name="layer-features",
        title="Layers by features",
        help="The features of each layer with the largest effects.",
        reads=("features", "comparisons", "spaces"),
        run=_heatmap.figures,
        order=21,
    )


def _feature_sections() -> Iterator[Part]:
    """Single features, and the values behind them."""
    yield ReportSection(
        name="volcano",
        title="Effect and evidence",
        help="Each feature's effect size against the strength of the evidence for it.",
        reads=("features", "comparisons", "spaces"),
        run=_volcano.figures,
        order=21,
    )
    yield ReportSection(
        name="top-features",
        title="Top features",
        help="The features that differ most clearly, and the samples in which they fire most "
        "strongly.",
        reads=("features", "comparisons", "spaces", "activations", "samples", "sample_meta"),
        run=_top_features.figures,
        order=22,
    )
    yield ReportSection(
        name="values-by-group",
        title="Values by group",
        help="How the activations of the clearest features are spread over the samples of each "
        "group.",
        reads=("features", "comparisons", "spaces", "activations", "sample_meta"),
        run=_histograms.figures,
        order=22,
    )


_TESTS = (
    (
        "welch",
        _params.Means,
        _compare.compare_welch,
        "Which features differ between two groups: cluster-robust Welch tests of means.",
    ),
    (
        "student",
        _params.Means,
        _compare.compare_student,
        "Two groups by means with one spread for both: Student's test.",
    ),
    (
        "mann_whitney",
        _params.Ranks,
        _compare.compare_mann_whitney,
        "Two groups by ranks of cluster means: Mann-Whitney.",
    ),
    (
        "auroc",
        _params.AurocGroups,
        _compare.compare_auroc,
        "How well each feature tells the samples of two groups apart.",
    ),
    (
        "permutation",
        _params.Shuffles,
        _compare.compare_permutation,
        "Two groups, by permutations of their labels over clusters.",
    ),
    (
        "correlation",
        _params.Trend,
        _compare.compare_correlation,
        "Which features follow a number: Pearson's or Spearman's r.",
    ),
    (
        "anova",
        _params.SeveralGroups,
        _compare.compare_anova,
        "Which features differ among several groups, by cluster means.",
    ),
    (
        "kruskal",
        _params.SeveralGroups,
        _compare.compare_kruskal,
        "Which features differ among several groups, by ranks.",
    ),
)
"""Name, params, function and help of each test."""


def _comparisons() -> Iterator[Part]:
    for name, params, run, summary in _TESTS:
        yield StagePart(
            name=f"compare.{name}",
            help=summary,
            params=params,
            run=run,
            version="4" if name == "welch" else "3",
            reads=("samples", "sample_meta", "activations", "spaces"),
            optional=("features", "comparisons"),
            writes=("features", "comparisons"),
            estimates=Estimates(
                cost=_cost.comparison(name),
                expected=_cost.expected_comparison(name),
                comparison=_compares.features,
            ),
            labels=LabelKeys(used=label_uses),
        )


def _baselines() -> Iterator[Part]:
    """What every claim about features is compared with."""
    yield StagePart(
        name="compare.leak",
        help="How well metadata alone tell two groups apart, key by key and together, by "
        "cross-validation.",
        params=_leak.Leak,
        run=_leak.compare_leak,
        estimates=Estimates(cost=_cost.leak),
        labels=LabelKeys(used=label_uses),
        version="2",
        reads=("samples", "sample_meta"),
        writes=("baselines",),
    )
    yield StagePart(
        name="compare.probe",
        help="What a linear probe and a difference of means on the raw stream reach, and the "
        "best feature.",
        params=_probe.Probe,
        run=_probe.compare_probe,
        estimates=Estimates(cost=_cost.probe),
        labels=LabelKeys(used=label_uses),
        version="2",
        reads=("samples", "sample_meta"),
        optional=("activations", "spaces", "streams"),
        replaces_model="streams",
        writes=("baselines",),
        uses_model=True,
    )
    yield StagePart(
        name="compare.residual",
        help="Which numbers of the raw stream differ between two groups: the control, in spaces of "
        "its own.",
        params=_residual.Residual,
        run=_residual.compare_residual,
        estimates=Estimates(cost=_cost.residual, comparison=_compares.streams),
        labels=LabelKeys(used=label_uses),
        version="3",
        reads=("samples", "sample_meta"),
        optional=("streams",),
        replaces_model="streams",
        writes=("features", "comparisons", "spaces"),
        uses_model=True,
    )


def _paths_and_ranks() -> Iterator[Part]:
    yield StagePart(
        name="compare.ranking",
        help="Which features rise with an ordinal label: ranked as published, and soundly.",
        params=Ranking,
        run=_ranking.compare_ranking,
        estimates=Estimates(cost=_cost.ranking, comparison=_compares.ranking),
        labels=LabelKeys(used=label_uses),
        version="2",
        reads=("samples", "sample_meta", "activations", "spaces"),
        writes=("features", "comparisons"),
    )
    yield ReportSection(
        name="ranking",
        title="Features that rise with the label",
        help="How many pass as published and soundly, and the first of each.",
        reads=("features", "comparisons", "spaces"),
        run=_ranking_section.figures,
        findings=_ranking_section.findings,
        order=23,
    )
    yield SinkPart(
        name="ranking",
        help="Rankings as ranked_features.csv and feature_examples.json, the published shapes.",
        params=_ranking_sink.RankingFiles,
        run=_ranking_sink.write_ranking,
        reads=("features", "comparisons", "spaces", "samples", "sample_meta", "activations"),
    )
    yield StagePart(
        name="trace.pathway",
        help="Features followed through layers for each unit and decision, and their correlations.",
        params=Pathway,
        run=_pathway.trace_pathway,
        estimates=Estimates(cost=_cost.pathway),
        labels=LabelKeys(used=label_uses),
        version="3",
        reads=("samples", "sample_meta", "activations", "spaces"),
        writes=("traces", "trajectories", "links", "signatures"),
    )
    yield ReportSection(
        name="pathway",
        title="Through the layers",
        help="Followed features by layer, correlations across layers, and decisions as points.",
        reads=("trajectories", "spaces", "links", "signatures", "sample_meta"),
        run=_pathway_section.figures,
        findings=_pathway_findings.findings,
        order=24,
    )
