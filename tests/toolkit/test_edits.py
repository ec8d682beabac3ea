"""Operations on streams, which tokens they are made on, and how often."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from toolkit.edits import (
    ABLATE,
    OPEN_END,
    Add,
    Clamp,
    Edit,
    Editing,
    OnDirections,
    OnFeatures,
    OnSae,
    OnStream,
    PassRows,
    Scale,
    Set,
    Steer,
    check_made,
    check_targets,
    choose,
    from_position,
    ranges,
    set_stream,
    tokens,
)
from toolkit.errors import BadInput, DataError
from toolkit.saes import Sae

WIDTH, FEATURES = 6, 9


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


STREAM = drawn(4, WIDTH, seed=1)
INDEX = torch.tensor([0, 1, 2, 3])


def after(operation: Any, index: torch.Tensor = INDEX) -> torch.Tensor:
    before = STREAM.clone()
    result = operation.apply(STREAM, STREAM, index)
    assert torch.equal(STREAM, before)
    return result


class Relu(Sae):
    """Decided feature by feature."""

    name, hookpoint, release, digest, recipe = "relu", "resid_post.1", "r", "d", "relu"
    width, inputs, pointwise = FEATURES, WIDTH, True
    top = FEATURES

    def __init__(self) -> None:
        self.encoder, self.decoder = drawn(WIDTH, FEATURES, seed=2), drawn(FEATURES, WIDTH, seed=3)
        self.bias = drawn(FEATURES, seed=4)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        before = (rows.float() @ self.encoder + self.bias).relu()
        kept = before.topk(self.top, dim=-1)
        return torch.zeros_like(before).scatter(-1, kept.indices, kept.values)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations @ self.decoder + 0.5

    def decoder_rows(self, features: Any) -> torch.Tensor:
        return self.decoder[list(features)]

    def encoder_columns(self, features: Any) -> torch.Tensor:
        return self.encoder.T[list(features)]

    def encoder_bias(self, features: Any) -> torch.Tensor:
        return self.bias[list(features)]

    def thresholds(self, features: Any) -> torch.Tensor:
        return torch.zeros(len(list(features)))


class Top(Relu):
    """Features compete."""

    name, pointwise, top = "top", False, 2


# --- changes --------------------------------------------------------------------------------------


def test_changes_of_a_stream() -> None:
    vector, each = drawn(WIDTH, seed=5), drawn(4, WIDTH, seed=6)
    close = torch.testing.assert_close
    close(after(OnStream(Set(vector))), vector.expand(4, -1))
    close(after(OnStream(Set(each))), each)
    close(after(OnStream(Add(each))), STREAM + each)
    close(after(OnStream(Scale(3.0))), STREAM * 3)
    close(after(OnStream(Scale(torch.tensor([[0.0], [1.0], [2.0], [3.0]])))),
          STREAM * torch.arange(4.0)[:, None])  # fmt: skip
    close(after(OnStream(ABLATE)), torch.zeros_like(STREAM))
    close(after(OnStream(Clamp(-0.5, 0.5))), STREAM.clamp(-0.5, 0.5))


def test_each_token_gets_the_values_of_its_target() -> None:
    each = drawn(2, WIDTH, seed=6)
    result = after(OnStream(Set(each)), torch.tensor([1, 0, 0, 1]))
    assert torch.equal(result, each[[1, 0, 0, 1]])


def test_columns_of_a_stream_are_one_head() -> None:
    result = after(OnStream(ABLATE, columns=(2, 4)))
    assert not result[:, 2:4].any()
    assert torch.equal(result[:, :2], STREAM[:, :2])
    assert torch.equal(result[:, 4:], STREAM[:, 4:])


def test_coordinates_along_directions() -> None:
    direction = drawn(1, WIDTH, seed=7) * 9
    unit = direction[0] / direction.norm()
    result = after(OnDirections(direction, Set(2.5)))
    torch.testing.assert_close(result @ unit, torch.full((4,), 2.5))
    torch.testing.assert_close(result - (result @ unit)[:, None] * unit,
                               STREAM - (STREAM @ unit)[:, None] * unit)  # fmt: skip
    each = drawn(4, 1, WIDTH, seed=8)
    ablated = after(OnDirections(each, ABLATE))
    torch.testing.assert_close((ablated * each[:, 0]).sum(-1), torch.zeros(4), atol=1e-5, rtol=0)


def test_steering_by_norm_and_by_sd() -> None:
    direction = drawn(WIDTH, seed=7)
    unit = direction / direction.norm()
    close = torch.testing.assert_close
    close(after(Steer(direction, 2.0)), STREAM + 2 * unit)
    close(after(Steer(direction, 0.1, "norm")),
          STREAM + 0.1 * STREAM.norm(dim=-1, keepdim=True) * unit)  # fmt: skip
    close(after(Steer(direction, -3.0, "sd", 0.5)), STREAM - 1.5 * unit)
    strengths = torch.tensor([1.0, 2.0, 3.0, 4.0])
    close(after(Steer(direction, strengths)), STREAM + strengths[:, None] * unit)
    with pytest.raises(BadInput, match="give `sd` with unit 'sd'"):
        Steer(direction, 1.0, "sd")
    with pytest.raises(BadInput, match="with no other unit"):
        Steer(direction, 1.0, "norm", 0.5)


@pytest.mark.parametrize("sae", [Relu(), Top()], ids=lambda sae: sae.name)
@pytest.mark.parametrize("change", [Set(1.5), Scale(0.0), Add(-0.2), Clamp(0.3, 0.6)])
def test_features_keep_what_the_sae_does_not_explain(sae: Relu, change: Any) -> None:
    chosen = [7, 2]
    old = sae.encode(STREAM)[:, chosen]
    expected = STREAM + (change.new(old, INDEX) - old) @ sae.decoder_rows(chosen)
    torch.testing.assert_close(after(OnFeatures.of(sae, chosen, change)), expected)


def test_a_feature_set_to_its_own_value_changes_nothing() -> None:
    sae = Relu()
    activations = sae.encode(STREAM)[:, [3]]
    torch.testing.assert_close(after(OnFeatures.of(sae, [3], Set(activations))), STREAM)


def test_every_target_may_edit_another_feature() -> None:
    sae, chosen = Relu(), [[1], [4], [8], [0]]
    parts = [
        torch.stack([method(features) for features in chosen])
        for method in (sae.encoder_columns, sae.encoder_bias, sae.thresholds, sae.decoder_rows)
    ]
    result = after(OnFeatures(*parts, Set(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))))
    for row, (feature,) in enumerate(chosen):
        old = sae.encode(STREAM[row : row + 1])[0, feature]
        expected = STREAM[row] + (row + 1 - old) * sae.decoder[feature]
        torch.testing.assert_close(result[row], expected)


def test_a_reconstruction_takes_the_place_of_the_stream() -> None:
    sae = Top()
    active = sae.encode(STREAM)
    torch.testing.assert_close(after(OnSae(sae, keep_error=False)), sae.decode(active))
    changed = active.clone()
    changed[:, 5] = 2.0
    result = after(OnSae(sae, (5,), Set(2.0), keep_error=False))
    torch.testing.assert_close(result, sae.decode(changed))
    error = STREAM - sae.decode(active)
    kept = after(OnSae(sae, (5,), Set(2.0)))
    torch.testing.assert_close(kept, sae.decode(changed) + error)


# --- targets --------------------------------------------------------------------------------------


def places(edit: Edit, rows: PassRows, share: Any = None) -> list[tuple[int, int, int]]:
    result = choose(edit, rows, share)
    return sorted(
        zip(result.rows.tolist(), result.columns.tolist(), result.index.tolist(), strict=True)
    )


def at(targets: Any) -> Edit:
    return Edit("resid_post.0", OnStream(ABLATE), targets)


def test_targets_of_whole_sequences() -> None:
    rows = PassRows.of_batch([[1] * 4, [1] * 2])
    assert places(at(tokens([1, 0], [1, 3])), rows) == [(0, 3, 1), (1, 1, 0)]
    assert places(at(ranges([0], [1], [3])), rows) == [(0, 1, 0), (0, 2, 0)]
    assert places(at(from_position(1)), rows) == [(0, 1, 0), (0, 2, 0), (0, 3, 0), (1, 1, 0)]
    assert places(at(from_position(2, [0, 1])), rows) == [(0, 2, 0), (0, 3, 0)]
    assert places(Edit("resid_post.0", OnStream(ABLATE)), rows, [1]) == [(1, 0, 0), (1, 1, 0)]


def test_targets_of_a_pass_that_begins_later() -> None:
    """Rows of other numbers, at other positions: what is outside of the pass is left out."""
    rows = PassRows([5, 9], [7, 10], [40, 3], ["a", "b"], [7, 6])
    assert places(at(tokens([40, 3, 40, 7], [6, 9, 2, 6])), rows) == [(0, 1, 0), (1, 0, 1)]
    assert places(at(from_position(6)), rows) == [(0, 1, 0), (1, 0, 0)]


def test_targets_that_are_invalid() -> None:
    with pytest.raises(BadInput, match="positions count from 0"):
        tokens([0], [-1])
    with pytest.raises(BadInput, match="each range has at least one token"):
        ranges([0], [3], [3])
    with pytest.raises(BadInput, match="one of each per target"):
        tokens([0, 1], [3])
    twice = at(ranges([0, 0], [1, 2], [3, 4]))
    with pytest.raises(BadInput, match="two of its targets name the same token"):
        choose(twice, PassRows.of_batch([[1] * 5]))
    with pytest.raises(DataError, match=r"position 5 of row 0 .* row 0 has 5 tokens, of 1 rows"):
        check_targets([at(tokens([0], [5]))], [5])
    with pytest.raises(DataError, match=r"row 2 does not exist, of 1 rows"):
        check_targets([at(tokens([2], [0]))], [5])


def test_where_an_edit_begins() -> None:
    edit = at(tokens([3, 1, 3], [8, 2, 5]))
    assert (edit.first_position(), edit.first_position(3), edit.first_position(0)) == (
        2,
        5,
        OPEN_END,
    )
    assert at(from_position(4)).first_position(9) == 4


def test_a_part_of_a_batch_keeps_its_values_and_counts_for_the_whole() -> None:
    values = drawn(3, WIDTH)
    whole = set_stream("resid_post.0", [0, 2, 3], [1, 0, 2], values)
    part = whole.of_rows(2, 4)
    stream = torch.zeros(2, 4, WIDTH)
    result = editing([part], 2).apply("resid_post.0", stream)
    assert torch.equal(result[0, 0], values[1])
    assert torch.equal(result[1, 2], values[2])
    assert dict(whole.tally.counts) == {(2, "prompt"): 1, (3, "prompt"): 1}


# --- a pass ---------------------------------------------------------------------------------------


def editing(edits: list[Edit], rows: int = 2, **options: Any) -> Editing:
    params = {"editable": ("resid_pre", "resid_post"), "layers": 3, "model": "m"} | options
    return Editing(edits, [[1] * 4] * rows, **params)


def test_edits_at_one_place_are_made_in_order() -> None:
    first = set_stream("resid_post.1", [0], [2], torch.ones(WIDTH))
    second = Edit("resid_post.1", OnStream(Scale(3.0)), tokens([0], [2]))
    stream = drawn(2, 4, WIDTH)
    result = editing([first, second]).apply("resid_post.1", stream)
    assert torch.equal(result[0, 2], torch.full((WIDTH,), 3.0))
    assert torch.equal(result[1], stream[1])
    assert torch.equal(editing([first, second]).apply("resid_post.0", stream), stream)


def test_a_stream_that_was_handed_in_is_not_changed() -> None:
    stream = drawn(2, 4, WIDTH)
    before = stream.clone()
    shared = stream[0:1].expand(2, -1, -1)
    for tensor in (stream, shared):
        result = editing([Edit("resid_post.1", OnStream(ABLATE), tokens([1], [2]))]).apply(
            "resid_post.1", tensor
        )
        assert not result[1, 2].any()
    assert torch.equal(stream, before)


def test_a_tally_counts_rows_and_phases() -> None:
    edit = at(from_position(1))
    rows = PassRows([0, 3], [3, 5], [0, 1], ["a", "b"], [2, 9])
    params = {"editable": ("resid_post",), "layers": 1, "model": "m"}
    Editing([edit], rows, **params).apply("resid_post.0", drawn(2, 3, WIDTH))  # type: ignore[arg-type]
    assert dict(edit.tally.counts) == {
        ("a", "prompt"): 1,
        ("a", "generation"): 1,
        ("b", "prompt"): 2,
    }
    assert edit.tally.total() == 4
    assert edit.tally.total("a") == 2
    assert edit.tally.total(phase="prompt") == 3


def test_edits_that_were_made_more_or_less_often_than_planned_are_refused() -> None:
    rows = PassRows.of_batch([[1, 2, 3], [4, 5]])
    params = {"editable": ("resid_post",), "layers": 1, "model": "m"}

    def edits() -> list[Edit]:
        return [at(from_position(1)), at(tokens([0], [2]))]

    made = edits()
    Editing(made, rows, **params).apply("resid_post.0", drawn(2, 3, WIDTH))  # type: ignore[arg-type]
    check_made(made, [3, 2])
    with pytest.raises(DataError, match=r"2 tokens of row 0 were planned in its prompt, and 0"):
        check_made(edits(), [3, 2])
    Editing(made[1:], rows, **params).apply("resid_post.0", drawn(2, 3, WIDTH))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"1 tokens of row 0 were planned .* and 2 were edited"):
        check_made(made, [3, 2])


def test_places_that_cannot_be_edited() -> None:
    with pytest.raises(BadInput, match=r"edit at 'mlp_out.1': m cannot edit mlp_out\. It edits"):
        editing([Edit("mlp_out.1", OnStream(ABLATE))])
    with pytest.raises(BadInput, match=r"m has no layer 3; its layers are 0 to 2\."):
        editing([Edit("resid_post.3", OnStream(ABLATE))])
    with pytest.raises(BadInput, match=r"'nowhere\.1' is no"):
        editing([Edit("nowhere.1", OnStream(ABLATE))])


def test_bfloat16_is_edited_in_float32() -> None:
    seen: list[torch.dtype] = []

    class Looks(Add):
        def new(self, old: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            seen.append(old.dtype)
            return super().new(old, index)

    stream = drawn(1, 4, WIDTH).bfloat16()
    result = editing([Edit("resid_post.0", OnStream(Looks(0.25)))], 1).apply("resid_post.0", stream)
    assert seen == [torch.float32]
    assert torch.equal(result, (stream.float() + 0.25).bfloat16())
