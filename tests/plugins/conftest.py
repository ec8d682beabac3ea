"""Models and SAEs whose truth is known, for the plugins that run them."""

from __future__ import annotations

import pytest

from toolkit.testing.planted import Planted, build_planted


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A planted model and its SAEs; nobody changes these files."""
    return build_planted(tmp_path_factory.mktemp("planted"))
