"""What the stages tell a plan that they will compare. Light: it runs whenever a spec is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import DataError
from toolkit.records import Comparison

from ._layers import hookpoints
from ._params import REST


def features(params: Any, model: Mapping[str, Any]) -> Comparison:
    """Two groups, over every feature of the SAEs."""
    first, second = (None if name == REST else name for name in params.between)
    each = params.family == "space"
    return Comparison(by=params.by, groups=(first, second), half=params.half, alpha=params.alpha, each_space=each)


def streams(params: Any, model: Mapping[str, Any]) -> Comparison:
    """Two groups, over every number of the stream at the layers asked for; a model that is not there yet has none to count."""
    first, second = (None if name == REST else name for name in params.between)
    try:
        places = len(hookpoints(params.layers, int(model["layers"]), "the model"))
        family = places * int(model["width"]) if params.family == "all" else int(model["width"])
    except (KeyError, DataError):
        family = None
    return Comparison(by=params.by, groups=(first, second), half=params.half, alpha=params.alpha, family=family)
