"""toolkit: declarative sparse-autoencoder experiments. This package is the host and the whole
public API.

docs/explanation/architecture.md explains the modules, and docs/how-to/write-a-plugin.md how to add
to them. Modules whose names begin with an underscore are private. Nothing here imports torch or
lancedb before it is needed.
"""

from __future__ import annotations

from toolkit._experiment import Experiment, StageEntry, Uses, build, load
from toolkit._results import open_store as open
from toolkit._results import pull
from toolkit.hookspecs import hookimpl
from toolkit.version import VERSION

__all__ = [
    "Experiment",
    "StageEntry",
    "Uses",
    "__version__",
    "build",
    "hookimpl",
    "load",
    "open",
    "pull",
]
__version__ = VERSION
