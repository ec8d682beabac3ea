"""Encodes passes with many SAEs: all at once or, where they do not fit in memory together, group by
group.

Normally one pass over the texts is enough. When memory runs out, the pass is halved first; then one
group of the SAEs is loaded at a time, and the remaining texts are processed in the cheapest way by
the cost model: `stream` loads every group again for each batch, `spill` keeps the rows of all
batches on disk until each group has encoded them, `rerun` runs the model once for each group.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.hookpoints import hookpoint
from toolkit.models import Model
from toolkit.models.streams import Budget, Pass, Text, free_memory, out_of_memory, passes
from toolkit.saes import Sae, Sparse
from toolkit_saes.extract.costs import RATES, Prices, Way, cheapest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EncodedBatch:
    """Active features of one SAE in one pass. `last` marks the last SAE that reads these texts."""

    sae: Sae
    sparse: Sparse
    texts: Sequence[Text]
    last: bool


@dataclass
class EncodingSummary:
    """How much was encoded and how, for the run's log and the report."""

    texts: int = 0
    batches: int = 0
    padded: int = 0
    passes: int = 1
    together: int = 0
    ways: list[Way] = field(default_factory=list)
    chunk: int | None = None


class BatchEncoder:
    """Encodes the texts of one step with its SAEs. At most `together` SAEs are loaded at once.
    `seen` is called with every pass.
    """

    def __init__(
        self,
        model: Model,
        saes: Sequence[Sae],
        budget: Budget,
        *,
        together: int | None = None,
        scratch: Path | None = None,
        seen: Callable[[Pass], None] | None = None,
    ) -> None:
        self._model, self._saes, self._budget, self._scratch, self._seen = (
            model,
            list(saes),
            budget,
            scratch,
            seen,
        )
        self._loaded: list[Sae] = []
        self._cleared = False
        self._together = min(together or len(self._saes), len(self._saes))
        self._chunk: int | None = None
        self.summary = EncodingSummary()
        budget.relief = self._let_go

    def run(self, texts: Sequence[Text]) -> Iterator[EncodedBatch]:
        """Encode every text with every SAE. The batch during which memory runs out is streamed; the
        others are processed in the cheapest way.
        """
        self.summary.texts = len(texts)
        done = 0
        if self._together == len(self._saes):
            for batch in self._passes(texts, self._saes):
                yield from self._streamed(batch)
                done += len(batch.texts)
                if self._together < len(self._saes):
                    break
        yield from self._by_groups(texts[done:])
        self.summary.together, self.summary.chunk = self._together, self._chunk

    # --- the three ways ---

    def _by_groups(self, texts: Sequence[Text]) -> Iterator[EncodedBatch]:
        if not texts:
            return
        way = cheapest(self._prices(texts))
        self.summary.ways.append(way)
        if way == "stream":
            for batch in self._passes(texts, self._saes):
                yield from self._streamed(batch)
        elif way == "spill":
            yield from self._spilled(texts)
        else:
            yield from self._rerun(texts)

    def _streamed(self, batch: Pass) -> Iterator[EncodedBatch]:
        """Encode one pass with every SAE. The rows stay in memory while SAEs may be released."""
        index = 0
        while index < len(self._saes):
            size = self._together
            group = self._saes[index : index + size]
            if size < len(self._saes):
                self._release(keep=group)
            for sae in group:
                yield self._encoded(sae, batch)
                index += 1
                if self._together < size:
                    break

    def _spilled(self, texts: Sequence[Text]) -> Iterator[EncodedBatch]:
        import torch

        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            kept: list[tuple[Sequence[Text], Path, Any]] = []
            for batch in self._passes(texts, self._saes):
                for name, rows in batch.rows.items():
                    torch.save(rows.cpu(), Path(folder, f"{len(kept)}-{name}"))
                    device = rows.device
                kept.append((batch.texts, Path(folder, str(len(kept))), device))
            for group in self._groups():
                for mine, path, device in kept:
                    spilled = {
                        name: torch.load(f"{path}-{name}", weights_only=True).to(device)
                        for name in {sae.hookpoint for sae in group}
                    }
                    yield from self._group(group, Pass(mine, spilled))

    def _rerun(self, texts: Sequence[Text]) -> Iterator[EncodedBatch]:
        for number, group in enumerate(self._groups()):
            self.summary.passes += bool(number)
            for batch in self._passes(texts, group):
                yield from self._group(group, batch)

    def _groups(self) -> Iterator[list[Sae]]:
        """Groups of SAEs, one in memory at a time; when a group has to shrink, later ones have the
        smaller size too.
        """
        index = 0
        while index < len(self._saes):
            group = self._saes[index : index + self._together]
            self._release(keep=group)
            yield group
            index += len(group)

    def _group(self, group: Sequence[Sae], batch: Pass) -> Iterator[EncodedBatch]:
        for sae in group:
            yield self._encoded(sae, batch)

    def _encoded(self, sae: Sae, batch: Pass) -> EncodedBatch:
        active = self._sparse(sae, batch.rows[sae.hookpoint])
        return EncodedBatch(sae, active, batch.texts, sae is self._saes[-1])

    # --- memory ---

    def _passes(self, texts: Sequence[Text], saes: Sequence[Sae]) -> Iterator[Pass]:
        for batch in passes(
            self._model, texts, list(dict.fromkeys(sae.hookpoint for sae in saes)), self._budget
        ):
            self.summary.batches += 1
            self.summary.padded += len(batch.texts) * len(batch.texts[-1].ids)
            if self._seen:
                self._seen(batch)
            yield batch

    def _sparse(self, sae: Sae, rows: Tensor) -> Sparse:
        """Active features with the available memory: fewer rows at a time, then fewer SAEs."""
        while True:
            try:
                rows_sparse = sae.sparse(rows, self._chunk)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                failure = type(error).__name__
            else:
                if not any(loaded is sae for loaded in self._loaded):
                    self._loaded.append(sae)
                return rows_sparse
            # Outside the except block nothing refers to the failed attempt: its memory is free.
            if not self._make_room(sae, len(rows)):
                raise DataError(
                    f"SAE {sae.name} ({sae.width:,} features of {sae.inputs:,} numbers) does not "
                    f"fit in memory with the model, even alone and a row at a time "
                    f"({failure}). Use "
                    "a larger device, or choose narrower SAEs."
                )

    def _make_room(self, sae: Sae, rows: int) -> bool:
        """Free memory in the next way that was not tried; False when none is left."""
        others = [loaded for loaded in self._loaded if loaded is not sae]
        if self._chunk is None:
            self._chunk = max(1, min(rows, 512) // 2)
            self._budget.halve(self._budget.tokens)
        elif others or not self._cleared:
            if others:
                self._together = max(1, min(self._together - 1, len(others)))
            self._release(keep=())
        elif self._chunk > 1:
            self._chunk //= 2
        else:
            return False
        sae.release_memory()
        free_memory()
        return True

    def _let_go(self) -> bool:
        """Release half of the loaded SAEs when the model has no memory for one text."""
        if self._cleared and not self._loaded:
            return False
        self._together = max(1, min(self._together, len(self._loaded or self._saes) // 2))
        self._release(keep=())
        return True

    def _release(self, keep: Sequence[Sae]) -> None:
        """Release all other SAEs; the first time also those that an earlier step may have left
        loaded.
        """
        staying = {id(sae) for sae in keep}
        going = [
            sae for sae in (self._loaded if self._cleared else self._saes) if id(sae) not in staying
        ]
        for sae in going:
            sae.release_memory()
        self._loaded, self._cleared = (
            [loaded for loaded in self._loaded if id(loaded) in staying],
            True,
        )
        if going:
            free_memory()

    def _prices(self, texts: Sequence[Text]) -> Prices:
        rows = sum(len(text.positions) for text in texts)
        inputs = {sae.hookpoint: sae.inputs for sae in self._saes}
        facts = self._model.identity.facts
        blocks = facts.get("block_parameters") or 12 * self._model.layers * self._model.width**2
        used = min(
            self._model.layers, 1 + max(hookpoint(sae.hookpoint).layer for sae in self._saes)
        )
        return Prices(
            batches=max(1, -(-sum(len(text.ids) for text in texts) // self._budget.tokens)),
            groups=-(-len(self._saes) // self._together),
            flops=2.0 * blocks * used / self._model.layers * sum(len(text.ids) for text in texts),
            sae_bytes=sum(4 * sae.width * sae.inputs for sae in self._saes),
            spilled=4 * rows * sum(inputs.values()),
            rate=_rate(self._model),
        )


def _rate(model: Model) -> float:
    """The rate of the model's kind of device; an unknown kind counts as a CPU."""
    device = getattr(model, "device", None)
    return RATES.get(getattr(device, "type", "cpu"), RATES["cpu"])
