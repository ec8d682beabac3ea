"""Types of NumPy arrays, for annotations. Imported where NumPy is: light modules import it for type
checking only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
