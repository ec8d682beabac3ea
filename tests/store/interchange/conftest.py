"""A run that the tests of this folder export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.interchange.made import EXAMPLE, make
from toolkit_store.interchange import RunTables


@pytest.fixture
def run(tmp_path: Path) -> RunTables:
    return make(tmp_path / "memory" / "store", EXAMPLE)
