"""Mamba, a state-space language model without attention, for toolkit: `model: {uses: mamba, with:
{path: ../mamba-130m}}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit import hookimpl
from toolkit.edits import Edit
from toolkit.errors import BadInput, DataError
from toolkit.files import local
from toolkit.hookpoints import hookpoint
from toolkit.identity import Identity
from toolkit.models import Encoded, Model
from toolkit.parts import ModelPart, Params, Part
from toolkit.work import Reporter

if TYPE_CHECKING:
    from torch import Tensor

CONTEXT = 1 << 16
"""A recurrence has no longest text; this keeps one pass within memory."""


class Mamba(Params):
    """Which model, and how it computes."""

    path: local.PathText = Field(
        description="Folder with config.json, *.safetensors and the tokeniser's files."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="What it computes in; auto: as stored."
    )


def identify(params: Mamba) -> Identity:
    """Name, digest and sizes, from config and weights' headers: no torch, nothing loaded."""
    folder = local.locate(params.path)
    config = local.read_json(folder / "config.json")
    weights = local.listed(folder, ["*.safetensors"])
    if (
        config.get("model_type") != "mamba"
        or not {"num_hidden_layers", "hidden_size"} <= set(config)
        or not weights
    ):
        raise BadInput(
            f"{folder} is no Mamba: wanted *.safetensors and a whole config.json of model_type "
            "mamba. Name another folder."
        )
    content = local.content_digest({**local.listed(folder, ["*.json"]), **weights})
    digest = hashlib.sha256(f"{content} {params.dtype}".encode()).hexdigest()
    parameters = sum(
        prod(tensor["shape"])
        for path in weights.values()
        for tensor in local.safetensors_header(path).values()
    )
    facts = {
        "parameters": parameters,
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
    }
    return Identity(folder.name, "local", digest, facts)


def load(params: Mamba, report: Reporter) -> MambaModel:
    """The model on the CPU, ready for stages."""
    from transformers import AutoTokenizer, MambaForCausalLM

    report.phase("load")
    folder = local.locate(params.path)
    module: Any = MambaForCausalLM.from_pretrained(
        folder, dtype=params.dtype, local_files_only=True
    )
    tokeniser = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return MambaModel(identify(params), module.eval(), tokeniser)


class MambaModel(Model):
    """A Mamba, run block by block. It was trained on texts without BOS, so `bos_id` stays None."""

    def __init__(self, identity: Identity, module: Any, tokeniser: Any) -> None:
        self.identity, self._module, self._tokeniser = identity, module, tokeniser
        self.layers, self.width, self.context = (
            module.config.num_hidden_layers,
            module.config.hidden_size,
            CONTEXT,
        )
        self.end_ids = () if tokeniser.eos_token_id is None else (tokeniser.eos_token_id,)

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        """Ids and the characters of each."""
        if chat:
            raise BadInput(
                f"{self.identity.name} has no chat template: it is not a chat model. Leave "
                "`chat` out."
            )
        found = self._tokeniser(text, add_special_tokens=False, return_offsets_mapping=True)
        return Encoded(text, tuple(found["input_ids"]), tuple(map(tuple, found["offset_mapping"])))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._tokeniser.decode(list(ids), skip_special_tokens=True))

    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        """Streams between the same two blocks are equal, whatever their name. The number of
        blocks before a hookpoint identifies its stream.
        """
        import torch

        places = {name: self._blocks_before(name) for name in capture}
        editing = self.editing(batch, edits)
        found: dict[str, Tensor] = {}
        with torch.inference_mode():
            stream = self._module.backbone.embeddings(self._padded(batch))
            for done in range(max(places.values(), default=-1) + 1):
                if done:
                    stream = self._module.backbone.layers[done - 1](stream)
                    stream = editing.apply(f"resid_post.{done - 1}", stream)
                stream = editing.apply(f"resid_pre.{done}", stream)
                found.update({name: stream for name in capture if places[name] == done})
        return found

    def unembed(self, states: Tensor) -> Tensor:
        """Final norm and head, in float32."""
        import torch

        with torch.inference_mode():
            normed = self._module.backbone.norm_f(states)
            logits: Tensor = self._module.lm_head(normed.to(self._module.dtype)).float()
            return logits

    def _padded(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Pad with zeros on the right, where no token attends."""
        import torch

        longest = max(map(len, batch))
        if longest > self.context:
            raise DataError(
                f"A sequence has {longest} tokens; {self.identity.name} reads at most "
                f"{self.context}. Shorten it."
            )
        return torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in batch])

    def _blocks_before(self, name: str) -> int:
        point = hookpoint(name)
        if point.site not in ("resid_pre", "resid_post") or point.layer >= self.layers:
            known = f"resid_pre.LAYER and resid_post.LAYER, layers 0 to {self.layers - 1}"
            raise BadInput(f"hookpoint '{name}': {self.identity.name} has {known}.")
        return point.layer + (point.site == "resid_post")


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """List the parts of this plugin."""
    yield ModelPart(
        name="mamba",
        help="A Mamba in Hugging Face files.",
        params=Mamba,
        identify=identify,
        load=load,
    )
