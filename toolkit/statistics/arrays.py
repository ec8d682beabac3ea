"""Types of NumPy arrays, for annotations, and numbers for tables. NumPy is imported by those who
check types only, since light modules import this one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"
Bools: TypeAlias = "NDArray[np.bool_]"


def finite_or_none(value: Any) -> float | None:
    """A number for a table; None where it is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) else None
