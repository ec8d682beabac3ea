"""Counter-based randomness: a draw depends on (seed, purpose, counters) alone, never on order,
batch or worker.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def generator(seed: int, purpose: str, *counters: int | str) -> np.random.Generator:
    """A Philox generator keyed by a hash of the arguments."""
    import numpy as np

    text = "\x1f".join([str(seed), purpose, *(f"{type(c).__name__}:{c}" for c in counters)])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def half(seed: int, unit: str) -> str:
    """The half of a unit: candidates are selected in `select` and tested in `confirm`. The same in
    every stage.
    """
    return "select" if generator(seed, "split", unit).random() < 0.5 else "confirm"
