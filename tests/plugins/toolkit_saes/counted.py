"""A model that remembers what it was asked to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.models import Model


class CountedModel(Model):
    """Passes everything on to another model, and keeps the batches that it ran."""

    def __init__(self, model: Any) -> None:
        self.identity, self.layers, self.width, self.context = (
            model.identity,
            model.layers,
            model.width,
            model.context,
        )
        self.bos_id, self._model = model.bos_id, model
        self.ran: list[list[tuple[int, ...]]] = []

    def encode(self, text: str, *, chat: bool = False) -> Any:
        return self._model.encode(text, chat=chat)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._model.decode(ids))

    def unembed(self, states: Any) -> Any:
        return self._model.unembed(states)

    def run(self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Any = ()) -> Any:
        self.ran.append([tuple(ids) for ids in batch])
        return self._model.run(batch, capture, edits)
