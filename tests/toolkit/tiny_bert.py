"""A loader for BERT, as an author of a plugin writes it: `--plugin tests/toolkit/tiny_bert.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit import hookimpl
from toolkit.errors import BadInput
from toolkit.files.local import PathText, content_digest, listed, locate, read_json
from toolkit.hookpoints import hookpoint
from toolkit.identity import Identity
from toolkit.models import Encoded
from toolkit.models.encoders import Encoder
from toolkit.parts import ModelPart, Params, Part
from toolkit.work import Reporter

if TYPE_CHECKING:
    from torch import Tensor


class BertParams(Params):
    """Which BERT."""

    path: PathText = Field(description="Folder with config.json, model.safetensors, the tokeniser.")


class Bert(Encoder):
    """Blocks of BERT, run by the model itself; a hook sees each block's output."""

    def __init__(self, identity: Identity, module: Any, tokeniser: Any) -> None:
        self.identity, self._module, self._tokeniser = identity, module, tokeniser
        self.layers, self.width = module.config.num_hidden_layers, module.config.hidden_size
        self.context, self.bos_id = module.config.max_position_embeddings, tokeniser.cls_token_id

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        if chat:
            raise BadInput("BERT has no chat template. Leave `chat` out.")
        result = self._tokeniser(text, return_offsets_mapping=True)
        *offsets, _ = map(tuple, result["offset_mapping"])
        return Encoded(text, tuple(result["input_ids"]), (*offsets, (len(text), len(text))))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokeniser.decode(list(ids), skip_special_tokens=True))

    def run(self, batch: Any, capture: Any, edits: Any = ()) -> dict[str, Tensor]:
        import torch

        if edits:
            raise BadInput("edits: this loader of BERT makes none.")
        longest = max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
        with torch.inference_mode():
            states = self._module(ids, mask, output_hidden_states=True).hidden_states
        places = {f"resid_post.{layer}": layer + 1 for layer in range(self.layers)}
        places |= {f"resid_pre.{layer}": layer for layer in range(self.layers)}
        return {name: states[places[str(hookpoint(name))]] for name in capture}


def identify(params: BertParams) -> Identity:
    folder = locate(params.path)
    config = read_json(folder / "config.json")
    facts = {"layers": config["num_hidden_layers"], "width": config["hidden_size"]}
    digest = content_digest(listed(folder, ["*.json", "*.safetensors"]))
    return Identity(folder.name, "local", digest, facts)


def load(params: BertParams, report: Reporter) -> Bert:
    from transformers import AutoTokenizer, BertModel

    report.phase("load")
    folder = locate(params.path)
    module = BertModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True)
    return Bert(identify(params), module.eval(), AutoTokenizer.from_pretrained(folder))


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    yield ModelPart(name="bert", help="A BERT.", params=BertParams, identify=identify, load=load)
