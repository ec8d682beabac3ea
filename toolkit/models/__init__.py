"""What a model part's `load` returns: the methods that stages call, with working defaults for all
that can be built from a few.

A new architecture writes `encode`, `decode`, `run` and `unembed`. Edits at any position, `suffix`,
sessions, `generate`, `score` and `readout` then work by whole forward passes, and may be overridden
by something faster with the same result. What whole passes cannot provide (gradients, rows of the
embedding) is refused with the name of the method that a loader would have to implement. Tensors are
torch's. This module imports torch only inside methods that need it, so importing the contract is
cheap.
"""

from toolkit.models.model import PASS_ROWS, Model
from toolkit.models.records import (
    LOGITS,
    AttentionRows,
    Counted,
    Encoded,
    Frozen,
    Gradients,
    Objective,
    Prefix,
    Span,
    Tokens,
    check_queries,
)

__all__ = [
    "LOGITS",
    "PASS_ROWS",
    "AttentionRows",
    "Counted",
    "Encoded",
    "Frozen",
    "Gradients",
    "Model",
    "Objective",
    "Prefix",
    "Span",
    "Tokens",
    "check_queries",
]
