"""Values that apply where a spec gives none, for modules that import nothing heavy."""

from __future__ import annotations

DEFAULT_EXECUTOR = "local"
"""The executor of stages that name none."""
