"""Models spread over devices: who stands where, and that each block is told everything on its own
device.

`meta` stands for the second device: what is there has a device but no numbers. That the numbers are
the same needs a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.plugins.toolkit_hf.families import FAMILIES, LAYERS, WIDTH, build
from toolkit.edits import set_stream
from toolkit.errors import BadInput
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded_models import check_model
from toolkit_hf._devices import place_blocks, spread_blocks
from toolkit_hf._identity import HuggingFace, identify
from toolkit_hf._load import load

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Checkpoints, each built when first asked for."""
    root, built = tmp_path_factory.mktemp("places"), dict[str, Path]()

    def made(name: str) -> Path:
        if name not in built:
            built[name] = build(FAMILIES[name], root / name)
        return built[name]

    return made


def loaded(folder: Path, **params: Any) -> Any:
    return load(HuggingFace(path=str(folder), **params), SilentReporter())


# --- who stands where -----------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=40),
    rest=st.integers(0, 500),
    devices=st.integers(1, 5),
)
def test_blocks_stay_in_order(sizes: list[int], rest: int, devices: int) -> None:
    result = spread_blocks(sizes, rest, devices)
    assert result == sorted(result)
    assert set(result) <= set(range(devices))


@given(per=st.integers(1, 9), devices=st.integers(1, 6), size=st.integers(1, 1000))
def test_blocks_of_one_size_are_shared_evenly(per: int, devices: int, size: int) -> None:
    assert spread_blocks([size] * (per * devices), 0, devices) == [
        index for index in range(devices) for _ in range(per)
    ]


def test_the_first_device_has_the_embeddings_and_so_fewer_blocks() -> None:
    assert spread_blocks([10] * 8, 40, 2) == [0] * 2 + [1] * 6
    assert spread_blocks([10] * 4, 1000, 2) == [1] * 4


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "pythia"])
def test_blocks_are_spread_and_all_else_is_on_the_first(
    folder: Callable[[str], Path], name: str
) -> None:
    model = loaded(folder(name), device="cpu")
    module, blocks = model._module, model.decoder.blocks
    result = place_blocks(module, blocks, ("cpu", "meta"))
    assert set(result) == {CPU, META}
    for block, device in zip(blocks, result, strict=True):
        assert {weight.device for weight in block.parameters()} == {device}
    inside = {id(weight) for block in blocks for weight in (*block.parameters(), *block.buffers())}
    others = [
        weight for weight in (*module.parameters(), *module.buffers()) if id(weight) not in inside
    ]
    assert {weight.device for weight in others} == {CPU}
    assert len(others) >= 3


# --- what each block is told ----------------------------------------------------------------------


class Elsewhere(torch.nn.Module):
    """Takes the place of a block on the other device: whatever comes must be there; zeros come
    back.
    """

    def __init__(self, block: Any, layer: int) -> None:
        super().__init__()
        self.attention, self.layer, self.calls = getattr(block, "self_attn", block), layer, 0

    def forward(self, stream: torch.Tensor, **message: Any) -> torch.Tensor:
        keys = message.get("past_key_values")
        tensors = [stream, message["position_ids"], *message["position_embeddings"]]
        tensors += [] if message["attention_mask"] is None else [message["attention_mask"]]
        if keys is not None:
            new = torch.zeros(len(stream), 2, stream.shape[1], 4, device=META)
            tensors += keys.update(new, new, self.layer)
        assert {tensor.device for tensor in tensors} == {META}
        self.calls += 1
        return torch.zeros(stream.shape)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_every_block_is_told_everything_on_its_own_device(
    folder: Callable[[str], Path], name: str
) -> None:
    model = loaded(folder(name), device="cpu")
    model.decoder.block_devices = (CPU, CPU, META, META)
    for layer in (2, 3):
        model.decoder.blocks[layer] = Elsewhere(model.decoder.blocks[layer], layer)
    batch = [list(range(3, 17)), [4, 5]]
    names = ["resid_pre.0", "resid_post.1", "resid_pre.2", "resid_post.3", "attn_out.0"]
    results = model.run(batch, names, [set_stream("resid_post.2", [0], [1], torch.ones(WIDTH))])
    assert {value.device for value in results.values()} == {CPU}
    assert torch.equal(results["resid_post.1"], results["resid_pre.2"])
    prefix = model.prefix(batch[0], ["resid_post.2"])
    assert {value.device for value in prefix.captured.values()} == {CPU}
    layers = torch.tensor([0, 3, 1, 2, 1])
    assert model.suffix(prefix, layers, torch.ones(5, WIDTH)).device == CPU
    assert len(model.generate([*batch, batch[1]], lambda row, step: 0.5, max_tokens=4)) == 3
    assert min(model.decoder.blocks[layer].calls for layer in (2, 3)) >= 5


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("devices", [("cuda:0", "cpu"), ("cpu", "cuda:0")])
def test_two_devices_compute_what_one_does(
    folder: Callable[[str], Path], name: str, devices: tuple[str, ...]
) -> None:
    whole, split = loaded(folder(name), device="cpu"), loaded(folder(name), device_map=devices)
    assert len(set(split.decoder.block_devices)) == 2
    check_model(split, ("one two", "three four five"))
    batch = [list(range(3, 23)), [4, 5]]
    assert torch.allclose(split.next_logits(batch).cpu(), whole.next_logits(batch), atol=1e-3)


# --- params ---------------------------------------------------------------------------------------


def test_a_map_of_one_kind_of_device_changes_nothing(folder: Callable[[str], Path]) -> None:
    first_run, second_run = (
        loaded(folder("llama"), device="cpu"),
        loaded(folder("llama"), device_map=("cpu", "cpu")),
    )
    assert torch.equal(first_run.next_logits([[4, 5, 6]]), second_run.next_logits([[4, 5, 6]]))
    assert len(second_run.decoder.block_devices) == LAYERS


def test_where_it_is_computed_is_not_what_it_is(folder: Callable[[str], Path]) -> None:
    kinds = [{}, {"device": "cuda:3"}, {"device_map": ("cuda:0", "cuda:1")}, {"attention": "eager"}]
    assert (
        len({identify(HuggingFace(path=str(folder("llama")), **params)).digest for params in kinds})
        == 1
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"device": "cpu", "device_map": ("cpu",)},
            r"give either device \(one for the whole model\) or device_map",
        ),
        ({"device_map": ("cuda",)}, "device_map"),
        ({"device_map": ("gpu:0", "cpu")}, "device_map"),
        ({"attention": "flash"}, "attention"),
    ],
)
def test_params_that_are_invalid(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HuggingFace(path="model", **params)


@pytest.mark.parametrize("params", [{"device": "cuda:97"}, {"device_map": ("cpu", "cuda:97")}])
def test_a_device_that_is_not_there(folder: Callable[[str], Path], params: dict[str, Any]) -> None:
    with pytest.raises(
        BadInput,
        match=r"device 'cuda:97' does not exist: torch sees \d+ CUDA devices, "
        r"counted "
        r"from "
        r"0\. Name one",
    ):
        loaded(folder("llama"), **params)
