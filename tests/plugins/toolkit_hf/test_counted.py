"""What a model counts of itself: the texts that it reads, and operations as torch counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.plugins.toolkit_hf.families import FAMILIES, WIDTH, build
from toolkit.models import LOGITS, Model
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load

IDS = list(range(5, 45))


def read(model: Model) -> None:
    model.next_logits([IDS, IDS[:20]])


def push(model: Model) -> None:
    prefix = model.prefix(IDS)
    rows = torch.ones((60, WIDTH))
    model.readout(model.suffix(prefix, torch.arange(60) % 3, rows), [7])


def reply(model: Model) -> None:
    model.generate([IDS, IDS[:30]], max_tokens=12)


def slope(model: Model) -> None:
    model.gradients([IDS], ["resid_post.0"], lambda given: given[LOGITS][:, 7])


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = build(FAMILIES[request.param], tmp_path_factory.mktemp(request.param))
    where = HuggingFace(path=str(folder), device="cpu", attention="eager")
    return load(where, SilentReporter())


@pytest.mark.parametrize(
    ("compute", "texts", "within"),
    [(read, 2, 0.05), (push, 1, 0.25), (reply, 2, 0.25)],
    ids=["read", "push", "reply"],
)
def test_a_model_counts_what_torch_counts(
    model: Any, compute: Callable[[Model], None], texts: int, within: float
) -> None:
    """torch does not count its fused attention on a CPU, which prefixes and sessions use."""
    before = model.counted.texts, model.counted.operations
    with FlopCounterMode(display=False) as counted:
        compute(model)
    assert model.counted.texts - before[0] == texts
    operations = model.counted.operations - before[1]
    assert operations == pytest.approx(counted.get_total_flops(), rel=within)


def test_a_gradient_counts_as_two_passes(model: Any) -> None:
    def operations(compute: Callable[[], Any]) -> float:
        before: float = model.counted.operations
        compute()
        after: float = model.counted.operations
        return after - before

    forward = operations(lambda: model.next_logits([IDS]))
    assert operations(lambda: slope(model)) == pytest.approx(2 * forward)
