"""What a model is, found without loading it: its folder, its revision, a hash of its files. Imports neither torch nor transformers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from toolkit.errors import BadInput, choices
from toolkit.files import PathText, content_digest, listed, locate, read_json, safetensors_header
from toolkit.hub import snapshot
from toolkit.records import UNHASHED, Identity, Params

SUPPORTED = ("llama",)
WEIGHTS = ("*.safetensors",)
MARKER = WEIGHTS[0]
"""What a cached snapshot must have: a config or tokeniser alone may have been fetched for another reason."""
READ = ("config.json", "generation_config.json", "tokenizer*.json", "*.jinja", "special_tokens_map.json")


class HuggingFace(Params):
    """Which model, and how it computes. Either `id` (hub) or `path` (a folder, `package:NAME/FOLDER`)."""

    id: str | None = Field(None, description="Repository on the hub, for example meta-llama/Llama-3.1-8B.")
    revision: str = Field("main", description="Commit, tag or branch of the repository; `toolkit lock` pins a branch.")
    path: PathText | None = Field(None, description="Folder with config.json, *.safetensors and the tokeniser's files.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="What it computes in; auto: as stored.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="cpu, cuda, cuda:0 or mps; auto: the GPU if there is one.",
        json_schema_extra=UNHASHED,
    )

    @model_validator(mode="after")
    def _one_place(self) -> HuggingFace:
        if (self.id is None) == (self.path is None):
            raise ValueError("give either id (a repository on the hub) or path (a folder), not both")
        return self


def identify(params: HuggingFace) -> Identity:
    """Name, revision and digest; sizes from the config and the weights' headers."""
    if params.path is not None:
        folder = locate(params.path)
        return _of_folder(folder, _name(params.path), "local", params.dtype)
    found = snapshot(str(params.id), params.revision, MARKER)
    facts = _of_folder(found.folder, found.name, found.revision, params.dtype).facts if found.folder else {}
    return Identity(found.name, found.revision, _digest(f"{found.name}@{found.revision}", params.dtype), facts)


def _of_folder(folder: Path, name: str, revision: str, dtype: str) -> Identity:
    if not (folder / "config.json").exists():
        raise BadInput(f"{folder} is no model: it has no config.json. Name the folder that holds config.json and *.safetensors.")
    config = read_json(folder / "config.json")
    weights = listed(folder, WEIGHTS)
    if not weights:
        raise BadInput(f"{folder} has no *.safetensors. Convert the weights to safetensors, or copy them there.")
    parameters = sum(_count(path) for path in weights.values())
    digest = content_digest({**listed(folder, READ), **weights})
    return Identity(name, revision, _digest(digest, dtype), _facts(folder, config, parameters))


def _facts(folder: Path, config: dict[str, Any], parameters: int) -> dict[str, Any]:
    kind = str(config.get("model_type"))
    if kind not in SUPPORTED:
        raise BadInput(
            f"{folder / 'config.json'}: architecture '{kind}' is not among those that `huggingface` loads: {choices(SUPPORTED)}. "
            f"Another architecture takes one file: docs/tutorial/a-model-loader.md."
        )
    names = {
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "context": "max_position_embeddings",
        "vocabulary": "vocab_size",
    }
    try:
        return {"architecture": kind, "parameters": parameters, **{ours: int(config[theirs]) for ours, theirs in names.items()}}
    except KeyError as error:
        raise BadInput(f"{folder / 'config.json'} has no {error.args[0]!r}: it is no complete {kind} config.") from None


def _count(path: Path) -> int:
    import math

    return sum(math.prod(tensor["shape"]) for tensor in safetensors_header(path).values())


def _digest(content: str, dtype: str) -> str:
    """What it computes in changes results, so it is part of what the model is."""
    return hashlib.sha256(f"{content} {dtype}".encode()).hexdigest()


def _name(path: str) -> str:
    """A short name for people: the folder's, with its parent's when it is just called `model`."""
    parts = [part for part in path.removeprefix("package:").split("/") if part not in ("files", "")]
    return "/".join(parts[-2:]) if parts[-1] == "model" else parts[-1]
