"""Versions of everything that can change a result: the toolkit, all plugins and the numeric
packages.
"""

from __future__ import annotations

import platform
import re
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.version import VERSION

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts

PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "scipy",
    "polars",
    "pyarrow",
    "lancedb",
    "pydantic",
    "pluggy",
)


def versions(parts: Parts) -> dict[str, str]:
    """The versions of toolkit and plugins that a worker states in its hello and a host compares."""
    return {
        "toolkit": VERSION,
        **{f"plugin {name}": text for name, text in parts.versions().items()},
    }


def packages() -> dict[str, str]:
    """Versions from metadata, without imports. Packages that are not installed are left out."""
    results = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            results[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return results


def torch_cuda() -> str:
    """The CUDA version that the installed torch is built for; empty for a build without CUDA.
    Reads torch's own file and does not import it.
    """
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    version = re.search(r"^cuda\b[^=]*= *['\"]([0-9.]+)['\"]", text, re.MULTILINE)
    return version[1] if version else ""
