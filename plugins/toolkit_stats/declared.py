"""The comparisons that stages declare for a plan. Light: it runs whenever a spec is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.costs import PlannedComparison
from toolkit.errors import DataError
from toolkit.tables import written
from toolkit_stats.ranking.params import Ranking
from toolkit_stats.samples.groups import OWN_UNITS
from toolkit_stats.samples.layers import hookpoints
from toolkit_stats.samples.params import REST, Compare, SeveralGroups, TwoGroups


def features(params: Compare, model: Mapping[str, Any]) -> PlannedComparison:
    """Two groups, several, or a number, over every feature of the SAEs."""
    over = {"each_space": params.family == "space", "discovered": params.family == "discovered"}
    if isinstance(params, TwoGroups):
        return _two(params, **over)
    if isinstance(params, SeveralGroups):
        return _compared(params, groups=params.between, effect="eta2", **over)
    return _compared(params, groups=None, effect="r", **over)


def ranking(params: Ranking, model: Mapping[str, Any]) -> PlannedComparison:
    """The sound ranking: a label followed over the confirm half."""
    labels = tuple(written(label) for label in params.labels)
    return PlannedComparison(
        by=params.by, groups=labels, effect="r", half="confirm", alpha=params.alpha
    )


def streams(params: Any, model: Mapping[str, Any]) -> PlannedComparison:
    """Two groups, over every number of the stream at the requested layers; none are counted for a
    model that is not downloaded.
    """
    try:
        places = len(hookpoints(params.layers, int(model["layers"]), "the model"))
        family = places * int(model["width"]) if params.family == "all" else int(model["width"])
    except (KeyError, DataError):
        family = 0
    return _two(params, family=family)


def _two(params: Any, **family: Any) -> PlannedComparison:
    group_a, group_b = (None if name == REST else name for name in params.between)
    return _compared(params, groups=(group_a, group_b), **family)


def _compared(params: Any, **settings: Any) -> PlannedComparison:
    unit = "unit" if params.unit in OWN_UNITS else params.unit
    return PlannedComparison(
        by=params.by,
        unit=unit,
        cluster=params.cluster,
        half=params.half,
        alpha=params.alpha,
        **settings,
    )
