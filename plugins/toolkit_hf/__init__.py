"""Language models in Hugging Face files: a folder, an installed package's files, or a repository of
the hub.
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import ModelPart, Part

from ._identity import HuggingFace, count_tokens, downloads, identify
from ._load import load


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield ModelPart(
        name="huggingface",
        help="Decoders in Hugging Face files: Llama, Gemma, Qwen, GPT-2 and others (see `family`).",
        params=HuggingFace,
        identify=identify,
        load=load,
        downloads=downloads,
        device=lambda params: params.device,
        count_tokens=count_tokens,
    )
