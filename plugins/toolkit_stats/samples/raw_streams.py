"""The raw stream of many texts at many hookpoints, on disk when it is large. Needs NumPy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.models import Model
from toolkit.models.streams import Text, passes

Floats32 = npt.NDArray[np.float32]

MOST_BYTES = 2**28
"""More than this is kept in a temporary file, which the operating system pages in as it is read."""


@contextmanager
def last_rows(
    model: Model,
    texts: Sequence[Text],
    hookpoints: Sequence[str],
    tokens: int,
    done: Callable[[int], None],
) -> Iterator[Floats32]:
    """(hookpoints, texts, width), float32, of each text's last token; removed at the end. One
    forward pass per text.
    """
    shape = (len(hookpoints), len(texts), model.width)
    with tempfile.TemporaryDirectory(prefix="toolkit-rows-") as folder:
        stream = _stream_array(Path(folder), shape)
        number, seen = {text.ids: index for index, text in enumerate(texts)}, 0
        for batch in passes(model, texts, hookpoints, tokens):
            numbers = [number[text.ids] for text in batch.texts]
            for index, hookpoint in enumerate(hookpoints):
                stream[index, numbers] = batch.rows[hookpoint].float().cpu().numpy()
            seen += len(numbers)
            done(seen)
        yield stream
        del stream


def _stream_array(folder: Path, shape: tuple[int, ...]) -> Any:
    if int(np.prod(shape)) * 4 <= MOST_BYTES:
        return np.empty(shape, dtype=np.float32)
    return np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=np.float32, shape=shape)
