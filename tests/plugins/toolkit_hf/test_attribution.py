"""What attributions stand on: attention of chosen queries, gradients, and the model's matrices."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.plugins.toolkit_hf.families import FAMILIES, HEADS, LAYERS, WIDTH, build
from toolkit.edits import Add, Edit, OnStream, tokens
from toolkit.errors import BadInput, DataError
from toolkit.models import LOGITS, Model
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load

NAMES = ("llama", "gemma2", "gpt2", "qwen3", "pythia", "mistral", "granite", "olmo2")
BATCH = [
    torch.randint(3, 250, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (17, 5, 12)
]
QUERIES = [[16, 3, 9], [4], []]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    models: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in models:
            folder = build(FAMILIES[name], tmp_path_factory.mktemp("attribution") / name)
            models[name] = load(HuggingFace(path=str(folder), device="cpu"), SilentReporter())
        return models[name]

    return get


def near(result: torch.Tensor, expected: torch.Tensor, share: float = 1e-5) -> None:
    assert result.shape == expected.shape
    worst = float((result - expected).abs().max() / expected.abs().max().clamp(min=1e-3))
    assert worst <= share, f"off by {worst:.2g} of the largest value"


# --- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_attention_are_those_of_eager_weights(
    loaded: Callable[[str], Any], name: str
) -> None:
    """With caps, windows, and heads that share keys; with captures of the same pass."""
    model, layers = loaded(name), list(range(LAYERS))
    names = ["resid_post.1", "attn_out.3"]
    result = model.attention(BATCH, QUERIES, layers, capture=names)
    expected = Model.attention(model, BATCH, QUERIES, layers, capture=names)
    assert set(result.weights) == set(layers)
    for layer in layers:
        for row, (ids, queries) in enumerate(zip(BATCH, QUERIES, strict=True)):
            weights = result.weights[layer][row]
            assert weights.shape == (len(queries), HEADS, len(ids))
            assert weights.dtype == torch.float32
            torch.testing.assert_close(weights, expected.weights[layer][row], atol=1e-5, rtol=0)
            if queries:
                torch.testing.assert_close(
                    weights.sum(-1), torch.ones(len(queries), HEADS), atol=1e-5, rtol=0
                )
    for site in names:
        for row, ids in enumerate(BATCH):
            near(
                result.captured[site][row, : len(ids)],
                expected.captured[site][row, : len(ids)],
                1e-4,
            )


def test_attention_follows_an_edit(loaded: Callable[[str], Any]) -> None:
    model = loaded("llama")
    edit = Edit("resid_post.0", OnStream(Add(3.0)), tokens([0], [7]))
    changed = model.attention(BATCH, QUERIES, [1], edits=[edit]).weights[1]
    plain = model.attention(BATCH, QUERIES, [1]).weights[1]
    assert float((changed[0] - plain[0]).abs().max()) > 1e-3
    torch.testing.assert_close(changed[1], plain[1])


def test_no_more_than_rows_times_tokens_is_held(loaded: Callable[[str], Any]) -> None:
    """No tensor of queries x keys of the whole text."""
    model, length = loaded("llama"), 60
    ids = torch.randint(3, 250, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                part.numel()
                for part in (out if isinstance(out, tuple | list) else [out])
                if isinstance(part, torch.Tensor)
            )
            return out

    with Watch():
        model.attention([ids], [[length - 1]], [0, 1])
    assert max(sizes) < HEADS * length * length


def test_queries_that_are_not_there(loaded: Callable[[str], Any]) -> None:
    with pytest.raises(DataError, match="row 1 has 5 tokens, so no position 5"):
        loaded("llama").attention(BATCH, [[0], [5], [0]], [1])
    with pytest.raises(BadInput, match="3 rows, but 1 lists of queries"):
        loaded("llama").attention(BATCH, [[0]], [1])
    with pytest.raises(BadInput, match="has no layer 4"):
        loaded("llama").attention(BATCH, QUERIES, [4])


def test_a_model_that_hides_its_weights_says_so(loaded: Callable[[str], Any]) -> None:
    model = copy.copy(loaded("llama"))
    model._switch = False
    with pytest.raises(BadInput, match="does not compute the weights explicitly"):
        Model.attention(model, BATCH, QUERIES, [1])


# --- gradients ------------------------------------------------------------------------------------


def difference(streams: Any) -> torch.Tensor:
    logits: torch.Tensor = streams[LOGITS]
    return logits[:, 7] - logits[:, 11]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "site", ["resid_pre.2", "resid_post.1", "mlp_out.1", "attn_z.2", "resid_mid.1"]
)
def test_a_gradient_is_the_slope_of_an_edit(
    loaded: Callable[[str], Any], name: str, site: str
) -> None:
    """Against a small edit to either side, by an independent pass."""
    model = loaded(name)
    if (name, site) in {("pythia", "resid_mid.1"), ("granite", "mlp_out.1")}:
        with pytest.raises(BadInput):
            model.gradients(BATCH, [site], difference)
        return
    result = model.gradients(BATCH, [site], difference)
    stream = model.run(BATCH, [site])[site]
    near(result.streams[site], stream, 1e-4)
    draw = torch.Generator().manual_seed(3)
    for row, position in ((0, 8), (0, 16), (1, 2)):
        direction = torch.randn(stream.shape[-1], generator=draw)
        step = 3e-3 * float(stream[row, position].norm() / direction.norm())
        sides = []
        for sign in (1, -1):
            edit = Edit(site, OnStream(Add(sign * step * direction)), tokens([row], [position]))
            last = model.last_hookpoint()
            states = model.run(BATCH, [last], [edit])[last]
            ends = torch.stack([states[index, len(ids) - 1] for index, ids in enumerate(BATCH)])
            sides.append(float(difference({LOGITS: model.unembed(ends).double()})[row]))
        slope = (sides[0] - sides[1]) / (2 * step)
        expected = float(result.gradients[site][row, position] @ direction)
        scale = float(result.gradients[site][row].norm() * direction.norm())
        assert abs(slope - expected) <= 0.02 * scale + 1e-4


def test_an_objective_may_read_a_stream(loaded: Callable[[str], Any]) -> None:
    """A feature at a position: what stands behind it has no slope."""
    model, column = loaded("llama"), torch.randn(WIDTH)

    def feature(streams: Any) -> torch.Tensor:
        return streams["resid_post.2"][:, 3] @ column

    result = model.gradients(
        BATCH, ["resid_post.1", "resid_post.3"], feature, reads=["resid_post.2"]
    )
    assert float(result.gradients["resid_post.1"][0, :4].abs().max()) > 0
    assert not result.gradients["resid_post.1"][:, 4:].any()
    assert not result.gradients["resid_post.3"].any()
    near(result.objectives, model.run(BATCH, ["resid_post.2"])["resid_post.2"][:, 3] @ column, 1e-4)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "olmo2"])
def test_with_everything_frozen_the_tokens_add_up(loaded: Callable[[str], Any], name: str) -> None:
    """With patterns, norms and gates held, a model without biases is linear: the embeddings times
    their gradients are the logit difference, and they are not with less held.
    """
    model, everything = loaded(name), ("attention", "norms", "mlp")

    def sums(freeze: tuple[Any, ...]) -> torch.Tensor:
        result = model.gradients(BATCH, ["resid_pre.0"], difference, freeze=freeze)
        return (result.gradients["resid_pre.0"] * result.streams["resid_pre.0"]).sum((1, 2))

    logits = model.unembed(model._last_states(BATCH))
    near(sums(everything), logits[:, 7] - logits[:, 11], 1e-4)
    assert float((sums(("attention",)) - (logits[:, 7] - logits[:, 11])).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "pythia", "olmo2"])
def test_frozen_attention_and_norms_make_the_last_block_add_up(
    loaded: Callable[[str], Any], name: str
) -> None:
    """Everything that enters the last stream, times its gradient, is the logit difference: the
    final norm is the only thing behind it.
    """
    model, last = loaded(name), LAYERS - 1
    names = [f"resid_pre.{last}", f"attn_out.{last}", f"mlp_out.{last}"]
    result = model.gradients(BATCH, [f"resid_post.{last}"], difference, freeze=("norms",))
    slope = result.gradients[f"resid_post.{last}"]
    streams = model.run(BATCH, names)
    ends = [len(ids) - 1 for ids in BATCH]
    parts = torch.stack(
        [
            torch.stack([slope[row, end] @ streams[site][row, end] for row, end in enumerate(ends)])
            for site in names
        ]
    )
    offset = model.unembedding_offsets([7, 11])
    near(parts.sum(0) + (offset[0] - offset[1]), result.objectives, 1e-4)


def test_frozen_patterns_are_the_same_pass(loaded: Callable[[str], Any]) -> None:
    """What is frozen changes slopes and no value."""
    for name in NAMES:
        model = loaded(name)
        plain = model.gradients(BATCH, ["resid_post.0"], difference)
        for freeze in (("attention",), ("norms",), ("mlp",), ("attention", "norms", "mlp")):
            result = model.gradients(BATCH, ["resid_post.0"], difference, freeze=freeze)
            near(result.objectives, plain.objectives, 1e-4)
            moved = result.gradients["resid_post.0"] - plain.gradients["resid_post.0"]
            assert float(moved.abs().max()) > 1e-6


def test_no_gradient_is_left_behind(loaded: Callable[[str], Any]) -> None:
    model = loaded("llama")
    prefix = model.prefix(BATCH[0], ["resid_post.1"])
    edit = Edit("resid_post.1", OnStream(Add(prefix.captured["resid_post.1"])))
    result = model.gradients(BATCH, ["resid_post.2"], difference, edits=[edit], freeze=("norms",))
    tensors = [*result.gradients.values(), *result.streams.values(), result.objectives]
    assert not any(value.requires_grad for value in tensors)
    assert not any(value.requires_grad for value in model._module.parameters())
    assert all(value.grad is None for value in model._module.parameters())
    assert not model.run(BATCH, ["resid_post.2"])["resid_post.2"].requires_grad
    hooks = [
        *(module._forward_hooks for module in model._module.modules()),
        *(module._forward_pre_hooks for module in model._module.modules()),
    ]
    assert not any(hooks)
    assert edit.tally.total() == sum(map(len, BATCH))


def test_what_gradients_refuse(loaded: Callable[[str], Any]) -> None:
    model = loaded("llama")
    with pytest.raises(BadInput, match="only observes this site: nothing is computed from it"):
        model.gradients(BATCH, ["mlp_in_normed.1"], difference)
    with pytest.raises(
        BadInput, match=r"freeze: 'heads' is unknown\. Known: attention, norms, mlp"
    ):
        model.gradients(BATCH, ["resid_post.1"], difference, freeze=("heads",))
    with pytest.raises(DataError, match=r"the objective gave the shape \(\)"):
        model.gradients(BATCH, ["resid_post.1"], lambda streams: difference(streams).sum())


# --- matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_unembedding_give_the_logits(loaded: Callable[[str], Any], name: str) -> None:
    model, chosen = loaded(name), [7, 11, 200, 3]
    states = model._last_states(BATCH)
    folded = model.fold_final_norm(states)
    logits = folded @ model.unembedding_rows(chosen).T + model.unembedding_offsets(chosen)
    cap = getattr(model._module.config, "final_logit_softcapping", None)
    near(
        logits if cap is None else cap * (logits / cap).tanh(),
        model.unembed(states)[:, chosen],
        1e-4,
    )


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_stream_are_folded_as_the_whole(loaded: Callable[[str], Any], name: str) -> None:
    model = loaded(name)
    states = model._last_states(BATCH)
    parts = torch.randn((4, *states.shape), generator=torch.Generator().manual_seed(2))
    parts[3] = states - parts[:3].sum(0)
    near(model.fold_final_norm(parts, states).sum(0), model.fold_final_norm(states), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_the_embedding_enter_the_first_block(
    loaded: Callable[[str], Any], name: str
) -> None:
    model, ids = loaded(name), BATCH[0]
    stream = model.run([ids], ["resid_pre.0"])["resid_pre.0"][0]
    if name == "gpt2":
        stream = stream - model._module.transformer.wpe.weight[: len(ids)].detach()
    near(model.embedding_rows(ids), stream)


@pytest.mark.parametrize("name", NAMES)
def test_heads_add_up_to_what_attention_writes(loaded: Callable[[str], Any], name: str) -> None:
    model = loaded(name)
    results = model.run([BATCH[0]], ["attn_z.2", "attn_out.2"])
    heads = model.head_outputs(2, results["attn_z.2"])
    assert heads.shape == (1, 17, HEADS, WIDTH)
    block = model.decoder.blocks[2]
    end = block.get_submodule(model.decoder.family.attention_end)
    written = heads.sum(2) + (0 if end.bias is None else end.bias.detach())
    after = model.decoder.family.attention_after
    near(
        block.get_submodule(after)(written).detach() if after else written,
        results["attn_out.2"],
        1e-4,
    )


@pytest.mark.parametrize("name", NAMES)
def test_readout_is_exact(
    loaded: Callable[[str], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit_hf.engine import model as engine_model

    monkeypatch.setattr(engine_model, "VOCABULARY_TILE", 50)
    model, chosen = loaded(name), [3, 99, 257, 50]
    states = model._last_states(BATCH)
    result = model.readout(states, chosen, states[1])
    logits = model.unembed(states).double()
    torch.testing.assert_close(result.logits, logits[:, chosen], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.normaliser, logits.logsumexp(-1), atol=1e-5, rtol=1e-6)
    logp = logits.log_softmax(-1)
    kl = (logp[1].exp() * (logp[1] - logp)).sum(-1)
    torch.testing.assert_close(result.kl, kl, atol=1e-5, rtol=1e-4)
    plain = Model.readout(model, states, chosen, states[1])
    torch.testing.assert_close(plain.kl, result.kl, atol=1e-5, rtol=1e-4)


# --- models that offer none of it -----------------------------------------------------------------


def test_what_a_loader_does_not_offer_is_said() -> None:
    from tests.toolkit.test_loaded import Tiny

    model = Tiny()
    asked: list[tuple[Callable[[], Any], str]] = [
        (lambda: model.gradients([[1]], ["resid_post.0"], difference), "has no gradients"),
        (lambda: model.embedding_rows([1]), "does not expose rows of its embedding"),
        (lambda: model.unembedding_rows([1]), "does not expose rows of its unembedding"),
        (lambda: model.fold_final_norm(torch.ones(1, 8)), "does not expose its final norm"),
        (lambda: model.head_outputs(0, torch.ones(1, 8)), "does not expose single heads"),
    ]
    for ask, message in asked:
        with pytest.raises(BadInput, match=rf"tiny {message}: its loader does not override"):
            ask()
