"""The lab: a small trained language model with known causes, and SAEs of its residual stream, as
ordinary files.

Everything a spec needs to run without a network or a GPU. The files are addressed like any other
package's (`path: package:toolkit_lab/files/model`); this module only says where they are. `python
-m toolkit_lab.training` rebuilds them, and README.md states what they are known to do.
"""

from importlib.resources import files
from pathlib import Path

__all__ = ["lab_files", "model_path", "saes_path"]


def lab_files() -> Path:
    """Return the folder that holds the packaged model and SAEs."""
    return Path(str(files(__name__))) / "files"


def model_path() -> Path:
    """Return the folder with config.json, model.safetensors and the tokenizer."""
    return lab_files() / "model"


def saes_path(layout: str = "llama_scope") -> Path:
    """Return the root of the SAEs stored in the given published layout: `llama_scope` or
    `gemma_scope`.
    """
    folders = {"llama_scope": "saes/Lab-LXR-4x", "gemma_scope": "gemma_scope"}
    if layout not in folders:
        raise ValueError(
            f"saes_path: unknown layout {layout!r}; allowed: {', '.join(sorted(folders))}"
        )
    return lab_files() / folders[layout]
