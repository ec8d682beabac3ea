"""Shared forward passes: compute the model's streams at every requested hookpoint for the distinct
texts of some samples.

Texts of similar length share a pass of a limited number of padded tokens. A pass that does not fit
in memory is halved, and so are all later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.models import Model

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Text:
    """Equal token sequences are one text, computed once for all samples that have it. `positions`
    are read in the text; `positions_by_sample` says which of them each sample selected, if samples
    differ.
    """

    ids: tuple[int, ...]
    samples: tuple[str, ...]
    positions: tuple[int, ...]
    positions_by_sample: tuple[tuple[int, ...], ...] = ()

    def positions_of(self, number: int) -> tuple[int, ...]:
        """The positions that sample `number` of this text selected."""
        return self.positions_by_sample[number] if self.positions_by_sample else self.positions


@dataclass(frozen=True)
class Pass:
    """The result of one forward pass: per hookpoint the rows of all positions, text after text."""

    texts: Sequence[Text]
    rows: dict[str, Tensor]


@dataclass
class Budget:
    """How many padded tokens a pass may hold. Halved when a pass does not fit; `halved` counts how
    often. `relief` is called when a single text does not fit: it releases what it can, and returns
    whether it released anything.
    """

    tokens: int
    halved: int = 0
    relief: Callable[[], bool] | None = None

    def halve(self, padded: int) -> None:
        """Halve the budget of all later passes."""
        self.tokens, self.halved = max(1, padded // 2), self.halved + 1


def distinct_texts(
    samples: Sequence[dict[str, Any]], positions: Callable[[Sequence[int]], range]
) -> list[Text]:
    """The distinct token sequences, shortest first, so that similar lengths share a pass."""
    return chosen_texts(samples, lambda sample: positions(sample["token_ids"]))


def chosen_texts(
    samples: Sequence[dict[str, Any]], choose: Callable[[Mapping[str, Any]], Sequence[int]]
) -> list[Text]:
    """The distinct token sequences with the positions that `choose` gives for each sample; a text
    without any is left out.
    """
    owners: dict[tuple[int, ...], list[tuple[str, tuple[int, ...]]]] = {}
    for sample in samples:
        if not sample["token_ids"]:
            raise DataError(
                f"sample '{sample['sample']}' has no tokens: its source has not tokenised it "
                "with the model."
            )
        owners.setdefault(tuple(sample["token_ids"]), []).append(
            (sample["sample"], tuple(choose(sample)))
        )
    texts = [_text(ids, selections) for ids, selections in owners.items()]
    return sorted(
        (text for text in texts if text.positions), key=lambda text: (len(text.ids), text.ids)
    )


def _text(ids: tuple[int, ...], selections: Sequence[tuple[str, tuple[int, ...]]]) -> Text:
    by_sample = tuple(positions for _, positions in selections)
    union = tuple(sorted({position for positions in by_sample for position in positions}))
    differ = any(positions != union for positions in by_sample)
    return Text(ids, tuple(name for name, _ in selections), union, by_sample if differ else ())


def without_bos(model: Model) -> Callable[[Sequence[int]], range]:
    """Every position except BOS, whose activations are far from an SAE's training data."""
    return lambda ids: range(1 if len(ids) > 1 and ids[0] == model.bos_id else 0, len(ids))


def every(ids: Sequence[int]) -> range:
    """Every position."""
    return range(len(ids))


def last_only(ids: Sequence[int]) -> range:
    """The last position."""
    return range(len(ids) - 1, len(ids))


def passes(
    model: Model, texts: Sequence[Text], hookpoints: Sequence[str], tokens: int | Budget
) -> Iterator[Pass]:
    """Forward passes of at most `tokens` padded tokens each; rows are checked to be finite."""
    budget = tokens if isinstance(tokens, Budget) else Budget(tokens)
    start = 0
    while start < len(texts):
        result = _fitting(model, texts, start, hookpoints, budget)
        start += len(result.texts)
        yield result


def _fitting(
    model: Model, texts: Sequence[Text], start: int, hookpoints: Sequence[str], budget: Budget
) -> Pass:
    """The next pass, with as many texts as fit in memory."""
    while True:
        chunk = _chunk(texts, start, budget.tokens)
        try:
            return _pass(model, chunk, hookpoints)
        except Exception as error:
            if not out_of_memory(error):
                raise
            error_name = type(error).__name__
        # Outside the `except` block nothing refers to the failed pass, so its memory can be freed.
        if len(chunk) > 1:
            budget.halve(len(chunk) * len(chunk[-1].ids))
        elif not (budget.relief and budget.relief()):
            raise DataError(
                f"sample '{chunk[0].samples[0]}': its {len(chunk[0].ids)} tokens alone do not "
                f"fit in memory with the model ({error_name}). Use a larger device, spread the "
                "model over several (device_map), or load it in bfloat16."
            )
        free_memory()


def _pass(model: Model, chunk: Sequence[Text], hookpoints: Sequence[str]) -> Pass:
    import torch

    results = dict(model.run([text.ids for text in chunk], hookpoints))
    row = torch.tensor([index for index, text in enumerate(chunk) for _ in text.positions])
    position = torch.tensor([position for text in chunk for position in text.positions])
    rows = {}
    for name in hookpoints:
        stream = results.pop(name)  # the whole stream is freed as soon as its rows are taken
        rows[name] = stream[row.to(stream.device), position.to(stream.device)]
    if rows and not all(
        torch.stack([values.isfinite().all() for values in rows.values()]).tolist()
    ):
        _say_where(rows, chunk, row, position)
    return Pass(chunk, rows)


def _chunk(texts: Sequence[Text], start: int, tokens: int) -> Sequence[Text]:
    end = start + 1
    while end < len(texts) and len(texts[end].ids) * (end + 1 - start) <= tokens:
        end += 1
    return texts[start:end]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    import torch

    host = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or host


def free_memory() -> None:
    """Release the device memory that torch caches."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _say_where(
    rows: Mapping[str, Tensor], chunk: Sequence[Text], row: Tensor, position: Tensor
) -> None:
    """Raise an error that names the first stream and position with a value that is not finite."""
    name, values = next(
        (name, values) for name, values in rows.items() if not bool(values.isfinite().all())
    )
    indices = int((~values.isfinite()).any(dim=-1).nonzero()[0])
    raise DataError(
        f"sample '{chunk[int(row[indices])].samples[0]}': the stream at {name}, position "
        f"{int(position[indices])}, is not finite (NaN or infinity). The weights are damaged, or "
        f"{values.dtype} overflows: try `dtype: float32` or `bfloat16` under model.with."
    )
