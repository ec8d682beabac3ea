"""What the stages tell a plan that they will compare. Light: it runs whenever a spec is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import DataError
from toolkit.pricing import Comparison

from ._groups import OWN_UNITS
from ._layers import hookpoints
from ._params import REST


def features(params: Any, model: Mapping[str, Any]) -> Comparison:
    """Two groups, over every feature of the SAEs."""
    return _two(params, each_space=params.family == "space", discovered=params.family == "discovered")


def streams(params: Any, model: Mapping[str, Any]) -> Comparison:
    """Two groups, over every number of the stream at the layers asked for; a model that is not there yet has none to count."""
    try:
        places = len(hookpoints(params.layers, int(model["layers"]), "the model"))
        family = places * int(model["width"]) if params.family == "all" else int(model["width"])
    except (KeyError, DataError):
        family = None
    return _two(params, family=family)


def _two(params: Any, **family: Any) -> Comparison:
    first, second = (None if name == REST else name for name in params.between)
    unit = "unit" if params.unit in OWN_UNITS else params.unit
    return Comparison(
        by=params.by, groups=(first, second), unit=unit, cluster=params.cluster, half=params.half, alpha=params.alpha, **family
    )
