"""Statistics over features: tests of groups, and the figures that show them."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.records import Part, ReportSection, StagePart

from . import _compare, _layer_profile, _params, _top_features, _volcano


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield from _comparisons()
    yield ReportSection(
        name="layer-profile",
        title="Layers",
        help="How many features differ at each layer, in which direction, and how strongly.",
        reads=("features", "spaces"),
        run=_layer_profile.figures,
        order=20,
    )
    yield ReportSection(
        name="volcano",
        title="Effect and evidence",
        help="Each feature's effect size against the strength of the evidence for it.",
        reads=("features", "spaces"),
        run=_volcano.figures,
        order=21,
    )
    yield ReportSection(
        name="top-features",
        title="Top features",
        help="The features that differ most clearly, and the samples in which they fire hardest.",
        reads=("features", "spaces", "activations", "samples", "sample_meta"),
        run=_top_features.figures,
        order=22,
    )


def _comparisons() -> Iterator[Part]:
    tests = (
        (
            "welch",
            _params.Means,
            _compare.compare_welch,
            "Which features differ between two groups: cluster-robust Welch tests of means.",
        ),
        ("student", _params.Means, _compare.compare_student, "The same with one spread for both groups: Student's test."),
        ("mann_whitney", _params.Ranks, _compare.compare_mann_whitney, "Two groups by ranks of cluster means: Mann-Whitney."),
        ("auroc", _params.TwoGroups, _compare.compare_auroc, "How well each feature tells the samples of two groups apart."),
        (
            "permutation",
            _params.Shuffles,
            _compare.compare_permutation,
            "Two groups against shuffles of their labels over clusters.",
        ),
        (
            "correlation",
            _params.Trend,
            _compare.compare_correlation,
            "Which features follow a number: Pearson's or Spearman's r.",
        ),
        ("anova", _params.Several, _compare.compare_anova, "Which features differ among several groups, by cluster means."),
        ("kruskal", _params.Several, _compare.compare_kruskal, "Which features differ among several groups, by ranks."),
    )
    for name, params, run, said in tests:
        yield StagePart(
            name=f"compare.{name}",
            help=said,
            params=params,
            run=run,
            reads=("samples", "sample_meta", "activations", "spaces"),
            writes=("features",),
        )
