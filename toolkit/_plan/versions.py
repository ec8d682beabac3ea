"""Versions of what can change a result: the toolkit, all plugins and the packages that compute."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

from toolkit.version import VERSION

if TYPE_CHECKING:
    from toolkit._plugins.loading import Parts

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
