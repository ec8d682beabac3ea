"""Types of NumPy arrays, for annotations, and numbers for tables. Imported where NumPy is: light
modules import it for type checking only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def finite_or_none(value: Any) -> float | None:
    """A number for a table; None where it is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) else None
