"""Identifies a model without loading it: its folder, its revision, a hash of its files. Imports
neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from toolkit.errors import BadInput, choices
from toolkit.files.hub import Download, Snapshot, offline, snapshot
from toolkit.files.local import (
    PathText,
    content_digest,
    listed,
    locate,
    read_json,
    safetensors_header,
)
from toolkit.identity import Identity
from toolkit.models.families import Family
from toolkit.parts import UNHASHED, Params

from ._published import published_facts
from ._weights import INDEX, missing_shards, weight_files

SUPPORTED = (
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
)
"""Architectures that tests compare with transformers, hookpoint by hookpoint. Others need `family`.
"""
ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Rotary positions whose angles depend on the longest text of a batch."""
WEIGHTS = ("model*.safetensors",)
"""The files that transformers reads; some repositories hold the same weights again under other
names.
"""
MARKER = WEIGHTS[0]
"""A file that a usable cached snapshot must have: a config or tokeniser alone may have been fetched
for another reason.
"""
TOKENISER = ("tokenizer*.json", "*.jinja", "special_tokens_map.json", "added_tokens.json")
OLD_TOKENISER = ("chat_template.json", "tokenizer.model", "vocab.json", "merges.txt")
READ = ("config.json", "generation_config.json", *TOKENISER, *OLD_TOKENISER)
FETCHED = (*READ, INDEX, *WEIGHTS)
SIZES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd"),
    "context": ("max_position_embeddings", "n_positions"),
    "vocabulary": ("vocab_size",),
}
"""The names that configs use; GPT-2 has its own."""
NO_PARAMETER = (".attn.bias", ".attention.bias", ".masked_bias", ".inv_freq")
"""Suffixes of tensors in older checkpoints that are not parameters: masks and rotations."""


class HuggingFace(Params):
    """Which model, and how it computes. Either `id` (hub) or `path` (a folder,
    `package:NAME/FOLDER`).
    """

    id: str | None = Field(
        None, description="Repository on the hub, for example meta-llama/Llama-3.1-8B."
    )
    revision: str = Field(
        "main", description="Commit, tag or branch of the repository; `toolkit lock` pins a branch."
    )
    path: PathText | None = Field(
        None, description="Folder with config.json, *.safetensors and the tokeniser's files."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="What it computes in; auto: as stored."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="cpu, cuda, cuda:0 or mps; auto: the GPU if there is one.",
        json_schema_extra=UNHASHED,
    )
    device_map: tuple[Annotated[str, Field(pattern=r"^(cpu|mps|cuda:\d+)$")], ...] = Field(
        (),
        description="Devices to spread a large model's blocks over, in order, for example [cuda:0, "
        "cuda:1]; instead of `device`.",
        json_schema_extra=UNHASHED,
    )
    family: Family | None = Field(
        None,
        description="Names of the model's modules, for a decoder that `huggingface` does not know.",
    )
    attention: Literal["auto", "sdpa", "eager"] = Field(
        "auto",
        description="How attention is computed; auto: sdpa where the model can, and eager for "
        "the blocks that show attn_probs.",
        json_schema_extra=UNHASHED,
    )

    @model_validator(mode="after")
    def _one_place(self) -> HuggingFace:
        if self.id is None and self.path is None:
            raise ValueError("name the model: give id (a repository on the hub) or path (a folder)")
        if self.id is not None and self.path is not None:
            raise ValueError(
                "give either id (a repository on the hub) or path (a folder), not both"
            )
        if self.device_map and self.device != "auto":
            raise ValueError(
                "give either device (one for the whole model) or device_map (several for its "
                "blocks), not both"
            )
        return self


def identify(params: HuggingFace) -> Identity:
    """The name, revision and digest, with sizes from the config and the weights' headers."""
    if params.path is not None:
        folder = locate(params.path)
        return _of_folder(folder, _name(params.path), "local", params)
    snapshot_path = repository(params)
    facts = (
        _of_folder(snapshot_path.folder, snapshot_path.name, snapshot_path.revision, params).facts
        if snapshot_path.folder
        else published_facts(snapshot_path.name, snapshot_path.revision, params.dtype)
    )
    return Identity(
        snapshot_path.name,
        snapshot_path.revision,
        _digest(f"{snapshot_path.name}@{snapshot_path.revision}", params),
        facts,
    )


def repository(params: HuggingFace) -> Snapshot:
    """The model's repository at one commit. A cache with only some of the weight files is
    incomplete.
    """
    published = bool(published_facts(str(params.id), params.revision, params.dtype))
    local = snapshot(str(params.id), params.revision, MARKER, published=published)
    missing = missing_shards(local.folder) if local.folder else []
    if missing and offline():
        raise BadInput(
            f"'{local.name}' is in the Hugging Face cache in part: {local.folder} lacks "
            f"{len(missing)} of its files, first {missing[0]}, and HF_HUB_OFFLINE forbids fetching "
            "them. Unset it and run `toolkit fetch SPEC`."
        )
    return Snapshot(local.name, local.revision, None) if missing else local


def count_tokens(params: HuggingFace, texts: Sequence[str]) -> list[int] | None:
    """How many tokens texts have, the BOS included that the tokeniser's files put before them."""
    folder = locate(params.path) if params.path is not None else repository(params).folder
    if folder is None or not (folder / "tokenizer.json").exists():
        return None
    from tokenizers import Tokenizer

    tokeniser = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [len(encoding.ids) for encoding in tokeniser.encode_batch(list(texts))]


def downloads(params: HuggingFace) -> Iterator[Download]:
    """What to fetch before an offline run."""
    if params.path is None:
        yield Download(repository(params), FETCHED)


def _of_folder(folder: Path, name: str, revision: str, params: HuggingFace) -> Identity:
    if not (folder / "config.json").exists():
        raise BadInput(
            f"{folder} is not a model: it has no config.json. Name the folder that holds "
            "config.json "
            "and *.safetensors."
        )
    config = read_json(folder / "config.json")
    weights = weight_files(folder, config)
    digest = content_digest({**listed(folder, READ), **weights})
    facts = {
        **_facts(folder, config, sum(map(_count, weights.values())), params.family),
        **_size(config, weights.values(), params.dtype),
    }
    return Identity(name, revision, _digest(digest, params), facts)


def _size(config: dict[str, Any], weights: Iterable[Path], dtype: str) -> dict[str, Any]:
    """The memory that the model needs, the part of it in blocks, and the widths inside a block."""
    config = config.get("text_config") or config
    files = list(weights)
    stored = _stored(files)
    kind = stored if dtype == "auto" else dtype
    item = 4 if kind in ("float32", "F32") else 2
    inside = next(
        (config[name] for name in ("intermediate_size", "n_inner") if config.get(name)), None
    )
    return {
        "item": item,
        "bytes": item * sum(_count(path) for path in files),
        "block_parameters": sum(_count(path, in_blocks=True) for path in files),
        "keys": _keys(config),
        "heads": _heads(config),
        "intermediate": int(
            inside or 4 * int(config.get("hidden_size") or config.get("n_embd") or 0)
        ),
    }


def _keys(config: dict[str, Any]) -> int:
    """The width of one token's keys in a block: smaller than the stream's where heads share
    keys.
    """
    width = int(config.get("hidden_size") or config.get("n_embd") or 0)
    heads = _heads(config)
    return int(config.get("num_key_value_heads") or heads) * int(
        config.get("head_dim") or width // heads
    )


def _heads(config: dict[str, Any]) -> int:
    """The number of query heads."""
    return int(config.get("num_attention_heads") or config.get("n_head") or 1)


def _stored(files: Iterable[Path]) -> str:
    """The dtype that most of the weights are stored in."""
    parameters: Counter[str] = Counter()
    for path in files:
        for tensor in safetensors_header(path).values():
            parameters[str(tensor["dtype"])] += math.prod(tensor["shape"])
    return parameters.most_common(1)[0][0] if parameters else "F32"


def _facts(
    folder: Path, config: dict[str, Any], parameters: int, family: Family | None
) -> dict[str, Any]:
    kind = str(config.get("model_type"))
    if config.get("auto_map") and kind not in SUPPORTED:
        raise BadInput(
            f"{folder / 'config.json'}: auto_map asks to run the code of the model's repository, "
            "which is never run. Use a transformers release that has the architecture, or write a "
            "loader: docs/tutorial/a-model-loader.md."
        )
    if kind not in SUPPORTED and family is None:
        raise BadInput(
            f"{folder / 'config.json'}: architecture '{kind}' is not among those that "
            f"`huggingface` loads: {choices(SUPPORTED)}. For another decoder name its modules "
            "under model.with.family; anything else takes one file: "
            "docs/tutorial/a-model-loader.md."
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    turned = str(rope.get("rope_type", rope.get("type"))) if isinstance(rope, dict) else ""
    if turned in ROPE_BY_LENGTH:
        raise BadInput(
            f"{folder / 'config.json'}: rotary positions of type '{turned}' depend on the longest "
            "text of a batch, so the activations of a text would depend on the batch that it "
            "is in. Use "
            "a variant of the model without them."
        )
    sizes: dict[str, int] = {}
    for ours, names in SIZES.items():
        value = next((config[name] for name in names if name in config), None)
        if value is None:
            raise BadInput(
                f"{folder / 'config.json'} has no {names[0]!r}: it is not a complete {kind} config."
            )
        sizes[ours] = int(value)
    return {
        "architecture": kind,
        "parameters": parameters,
        "chat_template": _has_chat_template(folder),
        **sizes,
    }


def _has_chat_template(folder: Path) -> bool:
    """Whether any tokeniser file has a chat template."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    config = folder / "tokenizer_config.json"
    try:
        return bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError):
        return False


def _count(path: Path, *, in_blocks: bool = False) -> int:
    """The number of parameters; those of blocks have the block's number in their names."""
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in safetensors_header(path).items()
        if not name.endswith(NO_PARAMETER)
        and (not in_blocks or any(part.isdigit() for part in name.split(".")))
    )


def _digest(content: str, params: HuggingFace) -> str:
    """Hashes the dtype and the meaning of the hookpoints with the files, since both change
    results.
    """
    named = f" {params.family.model_dump_json()}" if params.family else ""
    return hashlib.sha256(f"{content} {params.dtype}{named}".encode()).hexdigest()


def _name(path: str) -> str:
    """A short display name: the folder's, with its parent's where the folder is called `model`."""
    parts = [part for part in path.removeprefix("package:").split("/") if part not in ("files", "")]
    return "/".join(parts[-2:]) if parts[-1] == "model" else parts[-1]
