"""The metadata keys and groups that a comparison's params name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.parts import LabelUse

OWN_UNITS = ("unit", "game", "sentence", "sample")
"""Values of `unit` that are no metadata keys."""
REST = "rest"


def label_uses(params: Any) -> Iterator[LabelUse]:
    """The key and groups that are compared, and every other key that the params name."""
    groups = tuple(name for name in getattr(params, "between", None) or () if name != REST)
    yield LabelUse(field="by", key=params.by, values_field="between", values=groups)
    unit = getattr(params, "unit", OWN_UNITS[0])
    if unit not in OWN_UNITS:
        yield LabelUse(field="unit", key=unit)
    for key in getattr(params, "covariates", ()):
        yield LabelUse(field="covariates", key=key)
    for field in ("within", "order"):
        key = getattr(params, field, None)
        if key is not None:
            yield LabelUse(field=field, key=key)
