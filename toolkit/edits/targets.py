"""The tokens that an edit changes: rows and ranges of positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


OPEN_END = 1 << 60
"""The end of a range of positions that has none."""


@dataclass(frozen=True)
class Targets:
    """Tokens by row and position: target t is the half-open range starts[t]:stops[t] of row
    rows[t], or of every row where `rows` is None. `index` says which of the operation's values a
    target takes. Positions count from 0, BOS included; int64 tensors on the CPU.
    """

    rows: Tensor | None
    starts: Tensor
    stops: Tensor
    index: Tensor


def tokens(rows: Sequence[int] | Tensor, positions: Sequence[int] | Tensor) -> Targets:
    """Single tokens: positions[t] of row rows[t]."""
    starts = _long(positions)
    return _targets(_long(rows), starts, starts + 1)


def ranges(
    rows: Sequence[int] | Tensor,
    starts: Sequence[int] | Tensor,
    stops: Sequence[int] | Tensor,
) -> Targets:
    """Ranges of positions: starts[t] up to before stops[t] of row rows[t]."""
    return _targets(_long(rows), _long(starts), _long(stops))


def from_position(first: int = 0, rows: Sequence[int] | Tensor | None = None) -> Targets:
    """Every position from `first` on, generated ones included, of every row or of some."""
    import torch

    count = 1 if rows is None else len(rows)
    starts = torch.full((count,), first)
    return _targets(None if rows is None else _long(rows), starts, torch.full((count,), OPEN_END))


def _targets(rows: Tensor | None, starts: Tensor, stops: Tensor) -> Targets:
    import torch

    if (rows is not None and len(rows) != len(starts)) or len(starts) != len(stops):
        raise BadInput("targets: give as many rows as starts and stops, one of each per target.")
    if len(starts) and (int(starts.min()) < 0 or bool((stops <= starts).any())):
        raise BadInput("targets: positions count from 0, and each range has at least one token.")
    return Targets(rows, starts, stops, torch.arange(len(starts)))


def _long(numbers: Sequence[int] | Tensor) -> Tensor:
    import torch

    return torch.as_tensor(numbers, dtype=torch.long, device="cpu").reshape(-1)
