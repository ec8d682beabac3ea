"""Reads decoder rows directly from SAE files: no torch, a range of features at a time, nothing
fetched.

Only directions matter here, so nothing is folded into the model's units.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput
from toolkit.files.local import content_digest, safetensors_header
from toolkit.saes import Decoder
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope

if TYPE_CHECKING:
    import numpy as np

_GEMMA = re.compile(r"layer_\d+/width_[0-9a-z]+/average_l0_\d+")
_LLAMA = re.compile(r"[A-Za-z0-9._-]+-L\d+(R|M|A|TC)-\d+x")
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def llama_scope(params: _llama_scope.LlamaScope, name: str) -> Decoder:
    """Columns of `decoder.weight`, which is stored as (inputs, features)."""
    folder = (
        _llama_scope.LAYOUT.cached_root(params, "**/*L*/hyperparams.json")
        / params.folder
        / _checked(name, _LLAMA, "Llama Scope")
    )
    path = _existing(folder / "checkpoints" / "final.safetensors")
    facts = safetensors_header(path).get("decoder.weight")
    if facts is None or len(facts["shape"]) != 2:
        raise BadInput(
            f"{path} has no matrix 'decoder.weight': it is not in Llama Scope's original layout."
        )
    digest = content_digest({file: _existing(folder / file) for file in _llama_scope.FILES})
    return Decoder(digest, facts["shape"][1], _columns(path, facts))


def gemma_scope(params: _gemma_scope.GemmaScope, name: str) -> Decoder:
    """Rows of `W_dec`, which is stored as (features, inputs)."""
    path = _existing(
        _gemma_scope.LAYOUT.cached_root(params, "layer_*")
        / _checked(name, _GEMMA, "Gemma Scope")
        / "params.npz"
    )
    shape, kind = _member(path)
    return Decoder(
        content_digest({"params.npz": path}), shape[0], partial(_rows, path, shape, kind)
    )


def _checked(name: str, form: re.Pattern[str], layout: str) -> str:
    if form.fullmatch(name) is None:
        raise BadInput(f"'{name}' is not the name of an SAE in the {layout} layout.")
    return name


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    return path


def _columns(path: Path, facts: dict[str, Any]) -> Callable[[int, int], np.ndarray]:
    """A function that gives columns as rows, in float32. NumPy knows no bfloat16: it is the upper
    half of a float32.
    """
    import numpy as np

    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little") + facts["data_offsets"][0]
    brain = facts["dtype"] == "BF16"
    if not brain and facts["dtype"] not in _KINDS:
        raise BadInput(
            f"{path}: decoder.weight is {facts['dtype']}; readable are BF16, {', '.join(_KINDS)}."
        )
    kind = np.dtype("<u2") if brain else np.dtype(_KINDS[facts["dtype"]])
    matrix = np.memmap(path, kind, "r", start, tuple(facts["shape"]))

    def rows(start: int, last: int) -> np.ndarray:
        part = np.ascontiguousarray(matrix[:, start:last].T)
        return (part.astype(np.uint32) << 16).view(np.float32) if brain else part.astype(np.float32)

    return rows


def _member(path: Path) -> tuple[tuple[int, int], np.dtype]:
    """Shape and type of `W_dec` from its header."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("W_dec.npy") as member:
            shape, kind = _header(member)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise BadInput(
            f"{path} has no readable array 'W_dec' ({error}). Copy or download it again."
        ) from None
    if len(shape) != 2:
        raise BadInput(f"{path}: W_dec is {shape}; expected (features, inputs).")
    return (int(shape[0]), int(shape[1])), kind


def _header(member: Any) -> tuple[tuple[int, ...], np.dtype]:
    import numpy as np

    np.lib.format.read_magic(member)
    shape, by_column, kind = np.lib.format.read_array_header_1_0(member)
    if by_column:
        raise ValueError("it is stored by columns")
    return shape, kind


def _rows(path: Path, shape: tuple[int, int], kind: np.dtype, start: int, last: int) -> np.ndarray:
    """Read the archive member from the first requested row; of an uncompressed member, NumPy's
    default, earlier rows are skipped.
    """
    import numpy as np

    last = min(last, shape[0])
    with zipfile.ZipFile(path) as archive, archive.open("W_dec.npy") as member:
        _header(member)
        row = shape[1] * kind.itemsize
        member.seek(member.tell() + start * row)
        data = member.read((last - start) * row)
    numbers = np.frombuffer(data, kind, math.prod((last - start, shape[1])))
    return numbers.reshape(last - start, shape[1]).astype(np.float32)
