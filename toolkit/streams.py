"""One forward pass for everybody: the model's streams at every hookpoint asked for, over the distinct texts of some samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.models import Model

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Text:
    """Equal token sequences are one text: it is computed once, for all samples that have it."""

    ids: tuple[int, ...]
    samples: tuple[str, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Pass:
    """What one forward pass gave: for each hookpoint the rows of all positions of all texts, one text after the other."""

    texts: Sequence[Text]
    rows: dict[str, Tensor]


def distinct_texts(samples: Sequence[dict[str, Any]], positions: Callable[[Sequence[int]], range]) -> list[Text]:
    """The distinct token sequences, shortest first, so that texts of similar length share a pass."""
    owners: dict[tuple[int, ...], list[str]] = {}
    for sample in samples:
        if not sample["token_ids"]:
            raise DataError(f"sample '{sample['sample']}' has no tokens: its source did not tokenise it with the model.")
        owners.setdefault(tuple(sample["token_ids"]), []).append(sample["sample"])
    texts = [Text(ids, tuple(names), tuple(positions(ids))) for ids, names in owners.items()]
    return sorted(texts, key=lambda text: (len(text.ids), text.ids))


def without_bos(model: Model) -> Callable[[Sequence[int]], range]:
    """Every position but that of BOS, which is far from anything an SAE was trained on."""
    return lambda ids: range(1 if len(ids) > 1 and ids[0] == model.bos_id else 0, len(ids))


def every(ids: Sequence[int]) -> range:
    """Every position."""
    return range(len(ids))


def last_only(ids: Sequence[int]) -> range:
    """The last position."""
    return range(len(ids) - 1, len(ids))


def passes(model: Model, texts: Sequence[Text], hookpoints: Sequence[str], tokens: int) -> Iterator[Pass]:
    """Forward passes of at most `tokens` padded tokens each; rows are checked to be finite."""
    import torch

    for chunk in _chunks(texts, tokens):
        found = model.run([text.ids for text in chunk], hookpoints)
        row = torch.tensor([at for at, text in enumerate(chunk) for _ in text.positions])
        position = torch.tensor([position for text in chunk for position in text.positions])
        rows = {name: stream[row.to(stream.device), position.to(stream.device)] for name, stream in found.items()}
        for name, values in rows.items():
            _check_finite(name, values, chunk, row, position)
        yield Pass(chunk, rows)


def _chunks(texts: Sequence[Text], tokens: int) -> Iterator[Sequence[Text]]:
    start = 0
    while start < len(texts):
        end = start + 1
        while end < len(texts) and len(texts[end].ids) * (end + 1 - start) <= tokens:
            end += 1
        yield texts[start:end]
        start = end


def _check_finite(name: str, values: Tensor, chunk: Sequence[Text], row: Tensor, position: Tensor) -> None:
    bad = (~values.isfinite()).any(dim=-1).nonzero()
    if len(bad):
        at = int(bad[0])
        raise DataError(
            f"sample '{chunk[int(row[at])].samples[0]}': the stream at {name}, position {int(position[at])}, is not finite (NaN or "
            f"infinity). The weights are damaged, or {values.dtype} overflows: try `dtype: float32` or `bfloat16` under model.with."
        )
