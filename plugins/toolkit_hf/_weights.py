"""The files that a model's weights are read from: only safetensors, and exactly the identified
files. Other files that transformers might load are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput, choices
from toolkit.files.local import check_link, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
"""If this file is there, transformers would load an adapter, and its base model from elsewhere."""
NOT_OPENED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.safetensors", "*.gguf")


def missing_shards(folder: Path) -> list[str]:
    """Weight files that the index names but the folder lacks."""
    if not (folder / INDEX).exists():
        return []
    return sorted(name for name in _shards(folder) if not (folder / name).exists())


def weight_files(folder: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    """The weight files of a model by name, in order."""
    _refuse_others(folder, config)
    missing = missing_shards(folder)
    if missing:
        raise BadInput(
            f"{folder} lacks {len(missing)} of the files that {INDEX} names, first {missing[0]}. "
            "Copy or download it again."
        )
    names = _shards(folder) if (folder / INDEX).exists() else [SINGLE]
    if not (folder / names[0]).exists():
        raise BadInput(_no_weights(folder))
    files = {name: folder / name for name in names}
    for file in files.values():
        check_link(file, folder)
    return files


def _shards(folder: Path) -> list[str]:
    """The file names in the index; each must be a file in the folder itself."""
    named = read_json(folder / INDEX).get("weight_map")
    names = set(named.values()) if isinstance(named, dict) and _texts(named.values()) else set()
    if not names:
        raise BadInput(f"{folder / INDEX} has no weight_map of file names. Copy it again.")
    wrong = sorted(name for name in names if Path(name).name != name or not _is_weights(name))
    if wrong:
        raise BadInput(
            f"{folder / INDEX} names {wrong[0]!a}, which is not a safetensors file of the "
            "folder itself."
        )
    return sorted(names)


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors")


def _refuse_others(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse files that transformers would load instead of the identified ones."""
    if (folder / SINGLE).exists() and (folder / INDEX).exists():
        raise BadInput(
            f"{folder} holds both {SINGLE} and {INDEX}: which weights are meant is not known. "
            "Remove one."
        )
    if (folder / ADAPTER).exists():
        raise BadInput(
            f"{folder} holds {ADAPTER}: transformers would load the adapter and its base model "
            "from elsewhere. Merge the adapter into the weights and save them."
        )
    named = config.get("transformers_weights")
    if named is not None:
        raise BadInput(
            f"{folder / 'config.json'}: transformers_weights is {ascii(named)[:80]}; weights are "
            f"read from {SINGLE} or the files of {INDEX} only. Remove the key."
        )


def _no_weights(folder: Path) -> str:
    """The error for a folder without safetensors; names the weight files that are not opened."""
    unread = sorted({file.name for pattern in NOT_OPENED for file in folder.glob(pattern)})
    other_files = (
        f" {choices(unread)} {'is' if len(unread) == 1 else 'are'} not opened." if unread else ""
    )
    return (
        f"{folder} has no {SINGLE} and no {INDEX}.{other_files} Convert the weights to "
        "safetensors, or copy them there."
    )
