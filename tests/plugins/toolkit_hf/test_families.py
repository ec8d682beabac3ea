"""Every architecture against transformers alone: captures, edits, kept prompts, padding, replies;
longer than any window.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.hooks import changed_input, changed_output
from tests.plugins.toolkit_hf.families import (
    CONTEXT,
    FAMILIES,
    HEADS,
    LAYERS,
    PLAIN,
    WIDTH,
    Family,
    build,
)
from toolkit.edits import set_stream
from toolkit.errors import BadInput, DataError
from toolkit.hookpoints import SITES
from toolkit.models import Model
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded_models import check_model
from toolkit_hf._identity import HuggingFace, identify
from toolkit_hf._load import load
from toolkit_hf._structure import FAMILIES as KNOWN
from toolkit_hf._structure import family_of

LENGTHS = (3, 26, 1, 11, 26)
IN_BLOCK = (
    "resid_mid",
    "attn_z",
    "attn_out",
    "attn_probs",
    "mlp_in_normed",
    "mlp_in",
    "mlp_raw",
    "mlp_out",
)


@dataclass(repr=False)
class Pair:
    """One checkpoint by the plugin (`model`), and by transformers alone (`plain`), which computes
    attention the plain way.
    """

    family: Family
    folder: Path
    model: Any
    plain: Any
    seen: dict[tuple[int, ...], dict[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def blocks(self) -> Any:
        return self.plain.get_submodule(self.family.blocks)

    def ids(self, length: int) -> list[int]:
        return torch.randint(
            256, (length,), generator=torch.Generator().manual_seed(length)
        ).tolist()

    def batch(self) -> list[list[int]]:
        return [self.ids(length) for length in LENGTHS]

    def sites(self, ids: list[int]) -> dict[str, torch.Tensor]:
        """What plain hooks see of one sequence, at every hookpoint that is the input or output of a
        module, and the logits.
        """
        if tuple(ids) not in self.seen:
            result: dict[str, torch.Tensor] = {}
            handles = [
                _watch(
                    block if not path else block.get_submodule(path),
                    before,
                    result,
                    f"{site}.{layer}",
                )
                for layer, block in enumerate(self.blocks)
                for site, (path, before) in (self.family.plain or PLAIN).items() | _STREAM.items()
            ]
            with torch.inference_mode():
                out = self.plain(torch.tensor([ids]), output_attentions=True)
            for handle in handles:
                handle.remove()
            result["logits"] = out.logits[0]
            result |= {
                f"attn_probs.{layer}": weights[0] for layer, weights in enumerate(out.attentions)
            }
            self.seen[tuple(ids)] = result
        return self.seen[tuple(ids)]

    def last(
        self, ids: list[int], put: Callable[[torch.Tensor], torch.Tensor], site: str, layer: int
    ) -> torch.Tensor:
        """The last block's output of one sequence whose stream was changed by a plain hook."""
        block, result = self.blocks[layer], {}
        changed = changed_input if site == "resid_pre" else changed_output
        with changed(block, put), torch.inference_mode():
            watch = _watch(self.blocks[-1], False, result, "last")
            self.plain(torch.tensor([ids]))
            watch.remove()
        return result["last"]


_STREAM = {"resid_pre": ("", True), "resid_post": ("", False)}


def _watch(module: Any, before: bool, result: dict[str, torch.Tensor], name: str) -> Any:
    def keep(_module: Any, args: Any, *out: Any) -> None:
        value = args[0] if before else out[0]
        result[name] = (value[0] if isinstance(value, tuple) else value)[0]

    return module.register_forward_pre_hook(keep) if before else module.register_forward_hook(keep)


@pytest.fixture(scope="session", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Each architecture, built once."""
    family = FAMILIES[request.param]
    folder = build(family, tmp_path_factory.mktemp("families") / family.name)
    plain = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, attn_implementation="eager"
    ).eval()
    params = HuggingFace(path=str(folder), device="cpu", **family.loader_params)
    return Pair(family, folder, load(params, SilentReporter()), plain)


@pytest.fixture(scope="session")
def load_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Loads one architecture's checkpoint with params."""

    def made(name: str, **params: Any) -> Any:
        folder = build(FAMILIES[name], tmp_path_factory.mktemp("one") / name)
        return load(HuggingFace(path=str(folder), **{"device": "cpu", **params}), SilentReporter())

    return made


def near(result: torch.Tensor, expected: torch.Tensor, share: float = 1e-4) -> None:
    """Agree within a share of the largest number."""
    assert result.shape == expected.shape
    assert float((result - expected).abs().max()) <= share * max(1.0, float(expected.abs().max()))


# --- whole passes ---------------------------------------------------------------------------------


def test_every_hookpoint_is_what_plain_hooks_see(pair: Pair) -> None:
    without = ("resid_mid",) if pair.family.name == "pythia" else pair.family.unsupported
    names = [f"{site}.{layer}" for site in SITES for layer in range(LAYERS) if site not in without]
    together = pair.model.run(pair.batch(), names)
    assert set(together) == set(names)
    for row, ids in enumerate(pair.batch()):
        plain = pair.sites(ids)
        for name in names:
            if name.startswith(("attn_probs", "mlp_in_normed")):
                continue
            scale = pair.family.branch if name.startswith(("attn_out", "mlp_out")) else 1
            near(together[name][row, : len(ids)], scale * plain[name])
        for layer in range(LAYERS):
            weights = together[f"attn_probs.{layer}"][row]
            assert weights.shape == (HEADS, max(LENGTHS), max(LENGTHS))
            near(weights[:, : len(ids), : len(ids)], plain[f"attn_probs.{layer}"])
            if "mlp_in_normed" not in without:
                near(
                    together[f"mlp_in_normed.{layer}"][row, : len(ids)],
                    _without_gain(pair, plain, layer),
                )


def _without_gain(pair: Pair, plain: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
    """From what comes out of the plain norm, its gain and bias taken away again."""
    norm = pair.blocks[layer].get_submodule(pair.family.norm)
    gain = pair.family.gain + norm.weight
    return (
        plain[f"mlp_in.{layer}"] - getattr(norm, "bias", torch.zeros(()))
    ).detach() / gain.detach()


def test_the_sites_of_a_block_add_up(pair: Pair) -> None:
    """Attention and MLP enter the stream as `attn_out` and `mlp_out`: on Gemma and OLMo 2 behind
    their norms, on Granite times the residual multiplier.
    """
    sites = ("resid_pre", "attn_out", "mlp_out", "resid_post", "mlp_raw")
    results = pair.model.run([pair.ids(26)], [f"{site}.1" for site in sites])
    pre, attention, mlp, post, raw = (results[f"{site}.1"] for site in sites)
    near(pre + attention + mlp, post)
    changed = ("gemma2", "gemma3", "olmo2", "granite")
    assert torch.equal(raw, mlp) is (pair.family.name not in changed)


def test_attention_keeps_to_its_window(pair: Pair) -> None:
    results = pair.model.run([pair.ids(26)], [f"attn_probs.{layer}" for layer in range(LAYERS)])
    for layer, window in enumerate(pair.family.windows):
        weights = results[f"attn_probs.{layer}"][0]
        distance = torch.arange(26)[:, None] - torch.arange(26)
        seen = (distance >= 0) & (distance < (window or 26))
        assert bool((weights[:, ~seen] == 0).all())
        assert bool((weights[:, seen] > 0).all())
        assert pair.model.decoder.windows[layer] == window


def test_logits_are_those_of_transformers(pair: Pair) -> None:
    batch, last = pair.batch(), pair.model.last_hookpoint()
    following, states = pair.model.next_logits(batch), pair.model.run(batch, [last])[last]
    for row, ids in enumerate(batch):
        expected = pair.sites(ids)["logits"]
        near(pair.model.unembed(states[row, : len(ids)]), expected)
        near(following[row], expected[-1])


def test_a_row_alone_is_a_row_in_a_batch(pair: Pair) -> None:
    names = ["resid_post.0", "attn_out.2", "resid_post.3"]
    together = pair.model.run(pair.batch(), names)
    for row, ids in enumerate(pair.batch()):
        for name, alone in pair.model.run([ids], names).items():
            near(together[name][row, : len(ids)], alone[0], 2e-5)


def test_padding_on_the_left_is_padding_on_the_right(pair: Pair) -> None:
    """Transformers pads on the left when it generates; the numbers are the same."""
    batch, longest = pair.batch(), max(LENGTHS)
    padded = torch.tensor([[*[0] * (longest - len(ids)), *ids] for ids in batch])
    mask = torch.tensor([[*[0] * (longest - len(ids)), *[1] * len(ids)] for ids in batch])
    with torch.inference_mode():
        logits = pair.plain(
            padded, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)
        ).logits
    near(pair.model.next_logits(batch), logits[:, -1])


@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
@pytest.mark.parametrize("layer", [0, 2])
def test_an_edit_is_what_a_plain_hook_would_do(pair: Pair, site: str, layer: int) -> None:
    batch, row, position = pair.batch(), 3, 4
    value, last = torch.linspace(-2, 2, WIDTH), pair.model.last_hookpoint()
    result = pair.model.run(
        batch, [last], [set_stream(f"{site}.{layer}", [row], [position], value)]
    )[last]

    def put(stream: torch.Tensor) -> torch.Tensor:
        stream = stream.clone()
        stream[0, position] = value
        return stream

    near(result[row, : LENGTHS[row]], pair.last(batch[row], put, site, layer))
    untouched = pair.sites(batch[row])[last]
    assert (
        float((result[row, position + 1 : LENGTHS[row]] - untouched[position + 1 :]).abs().max())
        > 1e-3
    )


# --- the fast ways --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [26, 5, 1])
def test_suffix_is_what_whole_passes_give(pair: Pair, length: int) -> None:
    ids, generator = pair.ids(length), torch.Generator().manual_seed(5)
    layers, rows = (
        torch.arange(2 * LAYERS) % LAYERS,
        2 * torch.randn((2 * LAYERS, WIDTH), generator=generator),
    )
    result = pair.model.suffix(pair.model.prefix(ids), layers, rows)
    near(result, Model.suffix(pair.model, Model.prefix(pair.model, ids), layers, rows))
    for layer, value, state in list(zip(layers.tolist(), rows, result, strict=True))[:LAYERS]:

        def put(stream: torch.Tensor, value: torch.Tensor = value) -> torch.Tensor:
            return torch.cat((stream[:, :-1], value[None, None]), dim=1)

        near(state, pair.last(ids, put, "resid_post", layer)[-1])


def test_replies_are_those_of_transformers(pair: Pair) -> None:
    """The likeliest tokens, from prompts on both sides of the window to lengths beyond it."""
    model, batch = copy.copy(pair.model), [pair.ids(length) for length in (3, 11, 20)]
    model.end_ids = ()
    result = model.generate(batch, max_tokens=10)
    for ids, reply in zip(batch, result, strict=True):
        with torch.inference_mode():
            made = pair.plain.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=10,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        assert list(reply.ids) == made[0, len(ids) :].tolist()
    assert len({reply.ids for reply in result}) == len(batch)


def test_the_contract_of_models(pair: Pair) -> None:
    check_model(pair.model, ("a caf\u00e9 \U0001f3b2", "two three"))


# --- text -----------------------------------------------------------------------------------------


def test_bos_stands_where_the_tokeniser_puts_it(pair: Pair) -> None:
    begun = pair.family.bos == "<begin>"
    assert pair.model.bos_id == (256 if begun else None)
    assert (
        list(pair.model.encode("one").ids)
        == AutoTokenizer.from_pretrained(pair.folder)("one")["input_ids"]
    )
    assert len(pair.model.encode("one").ids) == 3 + begun
    assert pair.model.end_ids == (257,)
    assert pair.model.decode(pair.model.encode("one two").ids) == "one two"


def test_a_chat_has_one_bos_at_most(pair: Pair) -> None:
    """The template writes it, so the tokeniser must not: one, or for Qwen none."""
    result = pair.model.encode("one", chat=True)
    begin = 256 if pair.family.bos == "<begin>" else 257
    assert result.ids.count(256) == (pair.family.bos == "<begin>")
    assert (result.ids[0] == begin) is (pair.family.bos is not None)
    assert result.text[result.shift :].startswith("one<end>")
    assert result.ids.count(257) == 1 + (pair.family.bos == "<end>")


def test_nothing_to_read(pair: Pair) -> None:
    assert bool(pair.model.encode("").ids) is (pair.model.bos_id is not None)
    with pytest.raises(DataError, match=r"A sequence has no tokens: .* needs at least one to read"):
        pair.model.run([[5], []], ["resid_post.0"])


# --- what is known before loading -----------------------------------------------------------------


def test_facts_are_read_from_the_files(pair: Pair) -> None:
    facts = identify(HuggingFace(path=str(pair.folder), **pair.family.loader_params)).facts
    assert facts["architecture"] == pair.family.config.model_type
    assert (facts["layers"], facts["width"], facts["context"], facts["vocabulary"]) == (
        LAYERS,
        WIDTH,
        CONTEXT,
        258,
    )
    assert facts["parameters"] == sum(weight.numel() for weight in pair.plain.parameters())
    assert (pair.model.layers, pair.model.width, pair.model.context) == (LAYERS, WIDTH, CONTEXT)


def test_masks_and_rotations_in_old_checkpoints_are_no_parameters(
    load_model: Callable[..., Any], tmp_path: Path
) -> None:
    """GPT-2 and Pythia on the hub hold them; they are neither counted nor missed."""
    folder = build(FAMILIES["gpt2"], tmp_path / "gpt2")
    before, weights = (
        identify(HuggingFace(path=str(folder))),
        load_file(folder / "model.safetensors"),
    )
    masks = {
        f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, CONTEXT, CONTEXT)
        for layer in range(LAYERS)
    }
    save_file({**weights, **masks}, folder / "model.safetensors", metadata={"format": "pt"})
    after = identify(HuggingFace(path=str(folder)))
    assert after.facts == before.facts
    assert after.digest != before.digest
    near(
        load(HuggingFace(path=str(folder), device="cpu"), SilentReporter()).next_logits([[4, 5]]),
        load_model("gpt2").next_logits([[4, 5]]),
    )


# --- weights that are not whole -------------------------------------------------------------------


def test_weights_that_lack_a_tensor_are_not_made_up(tmp_path: Path) -> None:
    folder = build(FAMILIES["mistral"], tmp_path / "mistral")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput) as caught:
        load(HuggingFace(path=str(folder)), SilentReporter())
    assert str(caught.value) == (
        f"{folder}: the weights lack 1 tensors that the config asks for, first "
        "model.layers.2.mlp.up_proj.weight. They would be random numbers. Copy or download it "
        "again."
    )


def test_weights_of_another_size(tmp_path: Path) -> None:
    folder = build(FAMILIES["qwen2"], tmp_path / "qwen2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    with pytest.raises(BadInput, match=rf"^{folder}: transformers does not load it: .*size"):
        load(HuggingFace(path=str(folder)), SilentReporter())


# --- attention ------------------------------------------------------------------------------------


def test_attention_is_sdpa_where_the_model_can(pair: Pair) -> None:
    assert pair.model._module.config._attn_implementation == (
        "eager" if pair.family.eager else "sdpa"
    )


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gpt2", "pythia"])
def test_eager_attention_gives_the_same(load_model: Callable[..., Any], name: str) -> None:
    model, plain = load_model(name, attention="eager"), load_model(name, attention="sdpa")
    batch, rows = [list(range(3, 23)), [4, 5]], (torch.tensor([1, 2]), torch.ones(2, WIDTH))
    near(model.next_logits(batch), plain.next_logits(batch), 2e-5)
    near(
        model.suffix(model.prefix(batch[0]), *rows),
        plain.suffix(plain.prefix(batch[0]), *rows),
        2e-5,
    )
    assert model.run(batch, ["attn_probs.1"])["attn_probs.1"].shape == (2, HEADS, 20, 20)


def test_eager_attention_is_said_out_loud(
    load_model: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model("llama")
    with caplog.at_level(logging.WARNING):
        model.run([[4, 5, 6]], ["attn_probs.2", "attn_probs.0", "resid_post.3"])
        model.run([[4, 5, 7]], ["attn_probs.2", "attn_probs.0"])
    message = (
        "attn_probs: attention of layers 0, 2 of llama is computed by `eager`, since `sdpa` shows "
        "no weights."
    )
    assert [record.getMessage() for record in caplog.records] == [message]
    assert model._module.config._attn_implementation == "sdpa"


def test_attention_that_never_shows_weights(load_model: Callable[..., Any]) -> None:
    with pytest.raises(
        BadInput,
        match=r"attn_probs: `attention: sdpa` does not compute the weights explicitly\. "
        r"Set "
        r"`attention: auto` or",
    ):
        load_model("mistral", attention="sdpa").run([[4, 5, 6]], ["attn_probs.0"])


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        (
            "gemma2",
            {},
            "this gemma2 caps its attention scores, which `sdpa` cannot. Use `auto` or `eager`.",
        ),
        (
            "gpt2",
            {"scale_attn_by_inverse_layer_idx": True},
            "this gpt2 scales its attention scores by layer, which `sdpa` cannot.",
        ),
        (
            "gpt2",
            {"scale_attn_weights": False},
            "this gpt2 does not scale its attention scores, which `sdpa` cannot.",
        ),
    ],
)
def test_attention_that_sdpa_cannot_compute(
    tmp_path: Path, name: str, config: dict[str, Any], message: str
) -> None:
    """Some releases of transformers leave it out and say nothing: it is computed plainly, or
    refused.
    """
    folder = build(FAMILIES[name], tmp_path / name)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    with pytest.raises(BadInput) as caught:
        load(HuggingFace(path=str(folder), attention="sdpa"), SilentReporter())
    assert str(caught.value).startswith(f"attention: {message}")
    plain = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        expected = plain(torch.tensor([[4, 5, 6, 7]])).logits[0, -1]
    model = load(HuggingFace(path=str(folder), device="cpu"), SilentReporter())
    near(model.next_logits([[4, 5, 6, 7]])[0], expected)
    assert model.run([[4, 5]], ["attn_probs.0"])["attn_probs.0"].shape == (1, HEADS, 2, 2)


# --- structure ------------------------------------------------------------------------------------


def test_a_model_that_is_built_in_another_way() -> None:
    with pytest.raises(BadInput) as caught:
        family_of(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert str(caught.value) == (
        "Sequential has module names of no family that `huggingface` knows (learned positions, "
        "parallel, post-norm, pre-norm, sandwich). Name them under model.with.family: "
        "docs/tutorial/a-model-loader.md."
    )


OTHER_FAMILIES = {
    "gemma2": "sandwich",
    "gemma3": "sandwich",
    "gpt2": "learned positions",
    "neox-sequential": "parallel",
    "olmo2": "post-norm",
    "pythia": "parallel",
}


def test_a_family_is_known_by_the_modules_of_a_model(pair: Pair) -> None:
    """A class of another name is the same model; one that lacks a norm is not."""
    if pair.family.names:
        with pytest.raises(BadInput, match=r"^PersimmonForCausalLM has module names of no family"):
            family_of(pair.plain)
        return
    result = family_of(pair.plain)
    assert result.name == OTHER_FAMILIES.get(pair.family.name, "pre-norm")
    assert family_of(type("Other", (type(pair.plain),), {})(pair.plain.config)) == result


# --- families that a spec names -------------------------------------------------------------------


def test_a_family_is_a_mapping_of_at_most_30_lines() -> None:
    names = FAMILIES["persimmon"].names
    assert names is not None
    assert len(names.model_dump(exclude_defaults=True)) <= 10
    assert all(len(family.model_dump(exclude_defaults=True)) <= 14 for family in KNOWN)


def test_an_architecture_that_is_not_known_asks_for_a_family(tmp_path: Path) -> None:
    folder = build(FAMILIES["persimmon"], tmp_path / "persimmon")
    with pytest.raises(BadInput) as caught:
        identify(HuggingFace(path=str(folder)))
    message = str(caught.value)
    assert message.startswith(f"{folder}/config.json: architecture 'persimmon' is not among those")
    assert "name its modules under model.with.family" in message


@pytest.mark.parametrize(
    ("field", "path", "message"),
    [
        ("norm", "model.norm", "has no module 'model.norm'. Print the model"),
        ("attention", "attn", "has no module 'attn' in model.layers.0. Print the model"),
    ],
)
def test_a_module_that_is_not_there(tmp_path: Path, field: str, path: str, message: str) -> None:
    family = FAMILIES["persimmon"]
    folder = build(family, tmp_path / "persimmon")
    assert family.names is not None
    wrong = family.names.model_copy(update={field: path})
    with pytest.raises(BadInput) as caught:
        load(HuggingFace(path=str(folder), device="cpu", family=wrong), SilentReporter())
    assert str(caught.value).startswith(
        f"model.with.family.{field}: PersimmonForCausalLM {message}"
    )


def test_another_mapping_is_another_model(tmp_path: Path) -> None:
    """Its hookpoints may be any of other places."""
    family = FAMILIES["persimmon"]
    folder = build(family, tmp_path / "persimmon")
    assert family.names is not None
    other = family.names.model_copy(update={"mlp_norm": "input_layernorm"})
    digests = {
        identify(HuggingFace(path=str(folder), family=names)).digest
        for names in (family.names, other)
    }
    assert len(digests) == 2


def test_positions_that_depend_on_the_batch(tmp_path: Path) -> None:
    folder = build(FAMILIES["phi3"], tmp_path / "phi3")
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0], "long_factor": [2.0]}
    (folder / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    with pytest.raises(BadInput) as caught:
        identify(HuggingFace(path=str(folder)))
    assert str(caught.value) == (
        f"{folder}/config.json: rotary positions of type 'longrope' depend on the longest text of "
        "a batch, so the activations of a text would depend on the batch that it is in. Use a "
        "variant "
        "of the model without them."
    )


def test_attention_that_looks_both_ways_is_no_decoder(tmp_path: Path) -> None:
    folder = build(FAMILIES["gemma3"], tmp_path / "gemma3")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "use_bidirectional_attention": True}))
    with pytest.raises(BadInput) as caught:
        load(HuggingFace(path=str(folder), device="cpu"), SilentReporter())
    assert str(caught.value).startswith(
        f"{folder}: attention of this gemma3_text looks at later tokens too: it is an encoder."
    )


def test_an_mlp_without_a_norm_before_it(load_model: Callable[..., Any]) -> None:
    with pytest.raises(BadInput) as caught:
        load_model("olmo2").run([[4, 5, 6]], ["mlp_in_normed.2"])
    assert str(caught.value) == (
        "hookpoint 'mlp_in_normed.2': the MLP of olmo2 reads the stream without a norm before it. "
        "Use mlp_in.2 or resid_mid.2."
    )


def test_there_is_no_stream_between_parallel_parts(load_model: Callable[..., Any]) -> None:
    with pytest.raises(BadInput) as caught:
        load_model("pythia").run([[4, 5, 6]], ["resid_mid.2"])
    assert str(caught.value) == (
        "hookpoint 'resid_mid.2': attention and MLP of pythia both read the block's input, so "
        "there is no stream between them. Use resid_pre.2 or resid_post.2."
    )


def test_embeddings_are_scaled_once(load_model: Callable[..., Any]) -> None:
    """By the embedding itself, or by the model around it, as older releases of transformers have
    it.
    """
    model = load_model("gemma2")
    expected = model.run([[4, 5, 6]], ["resid_pre.0"])["resid_pre.0"]
    bare = torch.nn.Embedding.from_pretrained(model.decoder.embedding.weight.detach())
    near(expected[0], bare(torch.tensor([4, 5, 6])) * WIDTH**0.5)
    model.decoder.embedding = bare
    near(model.run([[4, 5, 6]], ["resid_pre.0"])["resid_pre.0"], expected)
