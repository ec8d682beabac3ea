"""Edits at any site and position: the fast path gives what whole passes give, whole passes give
what plain hooks of transformers give, and every edit counts what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hooks import changed_output
from tests.plugins.toolkit_hf.families import FAMILIES, LAYERS, WIDTH, build
from toolkit.edits import (
    ABLATE,
    Add,
    Clamp,
    Edit,
    OnDirections,
    OnFeatures,
    OnSae,
    OnStream,
    Scale,
    Set,
    Steer,
    from_position,
    ranges,
    tokens,
)
from toolkit.models import Model
from toolkit.saes import Sae
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load

NAMES = ("llama", "gemma2", "gpt2", "qwen3", "pythia", "mistral", "granite", "olmo2")
LENGTH, ROWS = 19, 6
SITES = (
    "resid_pre",
    "attn_z",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp_raw",
    "mlp_out",
    "resid_post",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A random model of a family, loaded once."""
    models: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in models:
            folder = build(FAMILIES[name], tmp_path_factory.mktemp("edited") / name)
            models[name] = load(HuggingFace(path=str(folder), device="cpu"), SilentReporter())
        return models[name]

    return get


def prompt(length: int = LENGTH) -> list[int]:
    return torch.randint(3, 250, (length,), generator=torch.Generator().manual_seed(7)).tolist()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def near(result: torch.Tensor, expected: torch.Tensor, share: float = 1e-4) -> None:
    assert result.shape == expected.shape
    worst = float((result - expected).abs().max() / expected.abs().max().clamp(min=1))
    assert worst <= share, f"off by {worst:.2g} of the largest value"


def several(seed: int) -> list[Edit]:
    """One edit of each kind, at several layers and positions, other values for every row."""
    rows = list(range(ROWS))
    middle = tokens(rows, [3, 9, 12, 18, 5, 9])
    columns, decoder = drawn(ROWS, 2, WIDTH, seed=seed), drawn(ROWS, 2, WIDTH, seed=seed + 1)
    features = OnFeatures(
        columns, drawn(ROWS, 2, seed=seed + 2), torch.full((ROWS, 2), 0.2), decoder, Scale(0.5)
    )
    return [
        Edit("resid_post.0", features, middle),
        Edit("resid_post.1", OnStream(Set(drawn(3, WIDTH, seed=seed))), tokens([0, 2, 4], [9] * 3)),
        Edit("mlp_out.1", OnStream(Scale(0.7)), ranges([1, 3], [8, 15], [12, 19])),
        Edit("attn_z.2", OnStream(ABLATE, columns=(0, 8)), tokens(rows, [18] * ROWS)),
        Edit("attn_out.2", OnStream(Add(drawn(WIDTH, seed=seed + 3))), from_position(10)),
        Edit("resid_post.2", Steer(drawn(WIDTH), 0.5, "norm"), from_position(6, [0, 5])),
        Edit("resid_post.2", OnDirections(drawn(2, WIDTH), Clamp(-1.0, 1.0)), from_position(16)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_edits_at_any_position_are_what_whole_passes_give(
    loaded: Callable[[str], Any], name: str
) -> None:
    model, ids = loaded(name), prompt()
    fast, plain = several(3), several(3)
    result = model.edited_states(model.prefix(ids), fast, ROWS)
    expected = Model.edited_states(model, Model.prefix(model, ids), plain, ROWS)
    near(result, expected)
    bare = model.prefix(ids).captured[model.last_hookpoint()]
    assert all(float((row - bare).abs().max()) > 1e-3 for row in result)
    for ours, theirs in zip(fast, plain, strict=True):
        assert ours.tally.counts == theirs.tally.counts
        assert ours.tally.total() > 0


def by_hand(stream: torch.Tensor, sae: Any, other: torch.Tensor) -> dict[str, Any]:
    """Every operation on one token's stream: the edit, and what it should give."""
    direction = drawn(WIDTH, seed=4)
    unit = direction / direction.norm()
    active, rows = sae.encode(stream[None])[0], sae.decoder_rows([1, 2])
    rebuilt = sae.reconstruct(stream[None])[0]
    both = (torch.tensor([1.5, 0.0]) - active[[1, 2]]) @ rows
    clamped = (active[1].clamp(0.1, 0.2) - active[1]) * rows[0]

    def features(*indices: int, change: Any) -> Any:
        return OnFeatures.of(sae, list(indices), change)

    return {
        "set": (features(1, 2, change=Set(torch.tensor([1.5, 0.0]))), stream + both),
        "add": (features(1, change=Add(0.4)), stream + 0.4 * rows[0]),
        "scale": (features(1, change=Scale(3.0)), stream + 2 * active[1] * rows[0]),
        "ablate": (features(1, change=ABLATE), stream - active[1] * rows[0]),
        "clamp": (features(1, change=Clamp(0.1, 0.2)), stream + clamped),
        "steer": (Steer(direction, 2.0), stream + 2 * unit),
        "steer by norm": (Steer(direction, 0.5, "norm"), stream + 0.5 * stream.norm() * unit),
        "steer by sd": (Steer(direction, 0.5, "sd", sd=3.0), stream + 1.5 * unit),
        "reconstruct": (OnSae(sae, keep_error=False), rebuilt),
        "reconstruct with a value": (
            OnSae(sae, (1, 2), Set(torch.tensor([1.5, 0.0])), keep_error=False),
            rebuilt + both,
        ),
        "patch from another prompt": (OnStream(Set(other)), other),
        "ablate a direction": (
            OnDirections(direction[None], ABLATE),
            stream - stream @ unit * unit,
        ),
    }


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "qwen3"])
def test_every_operation_is_what_it_says(loaded: Callable[[str], Any], name: str) -> None:
    """The edited token's stream is the one written by hand, and the last state that of a pass in
    which this stream stands there.
    """
    model, ids, point, position = loaded(name), prompt(), "resid_post.1", 11
    prefix, sae = model.prefix(ids), ReluSae()
    stream = model.run([ids], [point])[point][0, position].float()
    other = model.run([ids[::-1]], [point])[point][0, position].float()
    for label, (operation, expected) in by_hand(stream, sae, other).items():
        edit = Edit(point, operation, tokens([0], [position]))
        shown = model.run([ids], [point], [edit])[point][0, position].float()
        near(shown, expected.to(shown), 1e-5)
        again = Edit(point, operation, tokens([0], [position]))
        state = model.edited_states(prefix, [again], 1)
        placed = Edit(point, OnStream(Set(expected)), tokens([0], [position]))
        near(state, Model.edited_states(model, Model.prefix(model, ids), [placed], 1))
        assert again.tally.counts == {(0, "prompt"): 1}, label


class ReluSae(Sae):
    """A small random SAE with an error."""

    def __init__(self) -> None:
        self.name, self.release, self.hookpoint = "relu", "relu", "resid_post.1"
        self.width, self.inputs, self.digest, self.recipe = 12, WIDTH, "relu", "relu"
        self.pointwise = True
        self._columns, self._rows = drawn(12, WIDTH, seed=5) / WIDTH**0.5, drawn(12, WIDTH, seed=6)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.relu(rows.float() @ self._columns.T + 0.3)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations @ self._rows

    def decoder_rows(self, features: Any) -> torch.Tensor:
        return self._rows[torch.as_tensor(features)]

    def encoder_columns(self, features: Any) -> torch.Tensor:
        return self._columns[torch.as_tensor(features)]

    def encoder_bias(self, features: Any) -> torch.Tensor:
        return torch.full((len(features),), 0.3)

    def thresholds(self, features: Any) -> torch.Tensor:
        return torch.zeros(len(features))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("site", SITES)
def test_one_site_alone_is_what_whole_passes_give(
    loaded: Callable[[str], Any], name: str, site: str
) -> None:
    model, ids = loaded(name), prompt()
    if site == "resid_mid" and name == "pythia":
        pytest.skip("has no stream between attention and MLP")
    stream = model.run([ids], [f"{site}.1"])[f"{site}.1"][0]
    values = drawn(ROWS, stream.shape[-1]) * stream.std()
    positions = [0, 4, 9, 17, 18, 18]

    def edit() -> list[Edit]:
        return [Edit(f"{site}.1", OnStream(Set(values)), tokens(range(ROWS), positions))]

    result = model.edited_states(model.prefix(ids), edit(), ROWS)
    near(result, Model.edited_states(model, Model.prefix(model, ids), edit(), ROWS))
    shown = model.run([ids] * ROWS, [f"{site}.1"], edit())[f"{site}.1"]
    near(shown[range(ROWS), positions], values)


def test_a_row_without_edits_is_the_prompt(loaded: Callable[[str], Any]) -> None:
    model, ids = loaded("llama"), prompt()
    prefix = model.prefix(ids)
    edit = Edit("resid_post.1", OnStream(Add(drawn(WIDTH))), tokens([1], [5]))
    result = model.edited_states(prefix, [edit], 3)
    stream = prefix.captured[model.last_hookpoint()]
    near(result[0], stream)
    near(result[2], stream)
    assert float((result[1] - stream).abs().max()) > 1e-3
    near(model.edited_states(prefix, [], 2), stream.expand(2, -1))


def test_an_edit_that_reads_another_site(loaded: Callable[[str], Any]) -> None:
    """A transcoder's feature is read at the MLP's input and written at its output."""
    model, ids = loaded("gemma2"), prompt()
    column, row = drawn(1, WIDTH), drawn(1, WIDTH, seed=1)
    operation = OnFeatures(column, torch.zeros(1), torch.zeros(1), row, ABLATE)
    edit = Edit("mlp_out.2", operation, tokens([0], [11]), reads="mlp_in.2")
    read = model.run([ids], ["mlp_in.2", "mlp_out.2"])
    feature = (read["mlp_in.2"][0, 11] @ column[0]).clamp(min=0)
    assert float(feature) > 0
    results = model.run([ids], ["mlp_out.2", "resid_post.3"], [edit])
    near(results["mlp_out.2"][0, 11], read["mlp_out.2"][0, 11] - feature * row[0])
    fast = model.edited_states(model.prefix(ids), [edit], 1)
    near(fast[0], results["resid_post.3"][0, -1])
    late = Edit("mlp_out.1", operation, tokens([0], [11]), reads="mlp_in.2")
    with pytest.raises(Exception, match=r"reads mlp_in.2, which this pass has not computed"):
        model.run([ids], ["resid_post.3"], [late])


def test_a_later_layer_sees_what_an_earlier_one_left(loaded: Callable[[str], Any]) -> None:
    model, ids = loaded("llama"), prompt()
    seen: list[torch.Tensor] = []

    class Looks(Add):
        def new(self, old: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            seen.append(old.clone())
            return super().new(old, index)

    low = Edit("resid_post.0", OnStream(Set(torch.ones(WIDTH))), tokens([0], [18]))
    high = Edit("resid_post.2", OnStream(Looks(0.0)), tokens([0], [18]))
    expected = model.run([ids], ["resid_post.2"], [low])["resid_post.2"][0, 18]
    model.edited_states(model.prefix(ids), [low, high], 1)
    near(seen[0][0], expected)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "qwen3"])
@pytest.mark.parametrize("position", [18, 7])
def test_a_rank_one_edit_is_a_hand_written_hook(
    loaded: Callable[[str], Any], name: str, position: int
) -> None:
    """h' = h + (v - f) d, written once more as a plain hook on the block."""
    model, ids, layer = loaded(name), prompt(), 1
    column, row, bias, value = drawn(WIDTH), drawn(WIDTH, seed=1), 0.1, 2.5
    operation = OnFeatures(
        column[None], torch.tensor([bias]), torch.zeros(1), row[None], Set(value)
    )
    edit = Edit(f"resid_post.{layer}", operation, tokens([0], [position]))

    def edited(before: torch.Tensor) -> torch.Tensor:
        after = before.clone()
        feature = (after[0, position] @ column + bias).clamp(min=0)
        after[0, position] += (value - feature) * row
        return after

    block = model.decoder.blocks[layer]
    with changed_output(block, edited), torch.inference_mode():
        expected = model._module(torch.tensor([ids])).logits[0, -1]
    result = model.unembed(model.edited_states(model.prefix(ids), [edit], 1))[0]
    near(result, expected)


def hooks(model: Any) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model._module.modules()
    )


def test_an_operation_that_fails_leaves_nothing_behind(loaded: Callable[[str], Any]) -> None:
    model, ids = loaded("llama"), prompt()

    class Fails(Add):
        def new(self, old: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of luck")

    before = model._module.config._attn_implementation
    for site in SITES:
        edit = Edit(f"{site}.1", OnStream(Fails(0.0)), tokens([0], [3]))
        with pytest.raises(RuntimeError, match="out of luck"):
            model.edited_states(model.prefix(ids), [edit], 1)
        with pytest.raises(RuntimeError, match="out of luck"):
            model.run([ids], ["resid_post.3"], [edit])
    assert hooks(model) == 0
    assert model._module.config._attn_implementation == before


def test_streams_that_were_handed_out_do_not_change(loaded: Callable[[str], Any]) -> None:
    model, ids = loaded("llama"), prompt()
    prefix = model.prefix(ids, ["resid_post.1"])
    streams = {name: value.clone() for name, value in prefix.captured.items()}
    kept = {layer: key.clone() for layer, (key, _) in prefix.kept.by_layer.items()}
    first = model.edited_states(prefix, several(1), ROWS)
    assert torch.equal(first, model.edited_states(prefix, several(1), ROWS))
    assert all(torch.equal(streams[name], value) for name, value in prefix.captured.items())
    assert all(torch.equal(kept[layer], key) for layer, (key, _) in prefix.kept.by_layer.items())


def test_bfloat16_streams_are_edited_in_float32(tmp_path: Path) -> None:
    folder = build(FAMILIES["llama"], tmp_path / "llama")
    model = load(HuggingFace(path=str(folder), device="cpu", dtype="bfloat16"), SilentReporter())
    seen: list[torch.dtype] = []

    class Looks(Scale):
        def new(self, old: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            seen.append(old.dtype)
            return super().new(old, index)

    def changed(change: Any, sites: Sequence[str] = ("resid_post", "mlp_out")) -> torch.Tensor:
        edits = [Edit(f"{site}.1", OnStream(change), tokens([0], [18])) for site in sites]
        return model.edited_states(model.prefix(prompt()), edits, 1)

    same = changed(Looks(1.0))
    assert set(seen) == {torch.float32}
    assert same.dtype == torch.bfloat16
    assert torch.equal(same, changed(Add(0.0)))
    assert torch.equal(changed(Add(1e-9)), same)
    assert LAYERS > 1
