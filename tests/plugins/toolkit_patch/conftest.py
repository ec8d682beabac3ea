"""The planted world that most tests of this plugin screen."""

from __future__ import annotations

import pytest

from tests.plugins.toolkit_patch.worlds import PARTS, make_world
from toolkit.testing.fakes import SilentReporter


@pytest.fixture(scope="session")
def model(planted):
    part = PARTS.get("model", "huggingface")
    return part.load(part.params(path=str(planted.model)), SilentReporter())


@pytest.fixture(scope="session")
def world(planted, model):
    return make_world(planted, model, planted.llama_scope)


@pytest.fixture(scope="session")
def screened(world):
    return world.screen()
