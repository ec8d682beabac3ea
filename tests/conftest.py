"""What every test gets: a store and a home of its own, no network, and the same random examples
each time.
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # before torch: tests run side by side, and spinning threads starve each other
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("ci")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what a user has: neither the store, nor caches, nor settings in the
    environment.
    """
    monkeypatch.setenv("TOOLKIT_STORE", str(tmp_path / "store"))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("TOOLKIT_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository: specs, docs and sources, also when the installed wheel is what is tested."""
    return ROOT
