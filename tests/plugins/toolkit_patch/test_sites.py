"""Features that are written inside a block: of transcoders, which edit where they write, and of
SAEs of what attention or an MLP adds. Every edit equals a full pass of the plain model with a
hand-written hook.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.plugins.toolkit_hf.families import FAMILIES, PLAIN, build
from tests.plugins.toolkit_patch.test_exact import OUTCOMES, TinySae
from tests.plugins.toolkit_patch.worlds import OUTCOMES as WORDS
from tests.plugins.toolkit_patch.worlds import World, run
from toolkit.errors import BadInput
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_patch.screen.arms import SpaceEdits, check_sites
from toolkit_patch.screen.passes import EditedStreams, hookpoints_of, push_edits, read_prompt

SITES = [
    ("mlp_in.1", "mlp_out.1"),
    ("mlp_in.0", "mlp_out.2"),
    ("mlp_out.3", "mlp_out.3"),
    ("attn_out.2", "attn_out.2"),
    ("attn_out.0", "attn_out.0"),
    ("resid_pre.0", "resid_pre.0"),
    ("resid_pre.2", "resid_pre.2"),
    ("resid_post.1", "resid_post.1"),
]


class TinyTranscoder(TinySae):
    """A random JumpReLU SAE that may write to another hookpoint than it reads."""

    def __init__(self, reads: str, writes: str, width: int | None = None) -> None:
        super().__init__(int(reads[-1]), width)
        self.name = self.digest = f"{reads}-{writes}"
        self.hookpoint, self._writes = reads, writes

    @property
    def output_hookpoint(self) -> str:
        return self._writes


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same checkpoint by the toolkit's loader and by transformers alone, and its family."""
    family = FAMILIES[request.param]
    folder = build(family, tmp_path_factory.mktemp(request.param))
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = np.random.default_rng(1).integers(5, 250, 21).tolist()
    return load(HuggingFace(path=str(folder), device="cpu"), SilentReporter()), plain, family, ids


def hooked(
    plain: Any, family: Any, ids: list[int], site: str, value: torch.Tensor, position: int
) -> np.ndarray[Any, Any]:
    """Probabilities of the outcomes after a full pass in which a hook sets a token's value."""
    name, layer = site.split(".")
    block = plain.get_submodule(family.blocks)[int(layer)]

    def changed(given: Any) -> Any:
        first = (given[0] if isinstance(given, tuple) else given).clone()
        first[0, position] = value
        return (first, *given[1:]) if isinstance(given, tuple) else first

    if name == "resid_pre":
        handle = block.register_forward_pre_hook(lambda _module, given: changed(given))
    elif name == "resid_post":
        handle = block.register_forward_hook(lambda _module, _given, out: changed(out))
    else:
        module = block.get_submodule((family.plain or PLAIN)[name][0])
        handle = module.register_forward_hook(lambda _module, _given, out: changed(out))
    with torch.inference_mode():
        logits = plain(torch.tensor([ids])).logits[0, -1].double()
    handle.remove()
    chances = torch.softmax(logits, 0)
    listed = [float(chances[list(tokens)].sum()) for tokens in OUTCOMES.tokens]
    return np.array([*listed, 1 - sum(listed)])


def edits_of(sae: TinySae, count: int = 4) -> SpaceEdits:
    features = torch.arange(count)
    values = torch.stack([torch.linspace(0, 3, count), torch.linspace(2, 0, count)], dim=1)
    rows = sae.decoder_rows(features)
    return SpaceEdits(sae, np.arange(count), features, values, rows, rows.flip(0), None)


@pytest.mark.slow
@pytest.mark.parametrize("position", [20, 9])
def test_every_arm_at_every_site_equals_a_full_pass_with_a_hook(both: Any, position: int) -> None:
    model, plain, family, ids = both
    saes = [TinyTranscoder(reads, writes) for reads, writes in SITES]
    reading = read_prompt(model, OUTCOMES, ids, hookpoints_of(saes), position)
    planned = [
        EditedStreams(sae.output_hookpoint, streams)
        for sae in saes
        for _, streams in edits_of(sae).edits(reading, ("reconstruct", "random_feature"))
    ]
    pushed = push_edits(model, OUTCOMES, reading, planned)
    moved = []
    for group, (chances, divergence) in zip(planned, pushed, strict=True):
        expected = [
            hooked(plain, family, ids, group.hookpoint, row, position) for row in group.streams
        ]
        np.testing.assert_allclose(chances, np.stack(expected), atol=1e-4)
        assert (divergence >= 0).all()
        moved.append(abs(chances - reading.chances).max())
    assert len(planned) == 8 * len(SITES)
    edited = np.array(moved[1::8])
    assert (edited > 1e-4).sum() >= (len(SITES) if position == 20 else len(SITES) - 1)


@pytest.fixture(scope="module")
def tables(world: World) -> dict[str, pa.Table]:
    """What a comparison knows of three spaces that are written inside blocks."""
    saes = inner_saes(world)
    kept = {name: world.tables[name] for name in ("samples", "sample_meta")}
    made = kept | run("extract.activations", {"at": "last"}, kept, world.model, saes)
    given = {"by": "cause", "between": ["yes", "no"], "half": "select"}
    return made | run("compare.welch", given, made, world.model, saes)


def inner_saes(world: World) -> list[TinyTranscoder]:
    width = world.model.width
    sites = [("mlp_in.1", "mlp_out.1"), ("attn_out.1", "attn_out.1"), ("resid_pre.1",) * 2]
    return [TinyTranscoder(reads, writes, width) for reads, writes in sites]


CHOSEN = {"candidates": {"top": 6, "per": "layer", "max_q": None, "min_abs_d": 0}, "points": 6}
CHOSEN |= {"outcomes": WORDS, "keep": "all", "directions": 30, "direction_points": 2}


@pytest.mark.slow
def test_a_screen_takes_transcoders_and_what_attention_adds(
    world: World, tables: dict[str, pa.Table]
) -> None:
    saes = inner_saes(world)
    results = run("patch.delta", CHOSEN, tables, world.model, saes)
    screens = results["screens"].to_pylist()
    assert {row["space"] for row in screens} == {
        row["space"] for row in tables["spaces"].to_pylist()
    }
    assert max(row["sham"] for row in screens) < 1e-5
    assert max(abs(row["effect"]) for row in screens) > 1e-4
    for arm in ("reconstruct_a", "mean_difference", "random_feature", "shuffled"):
        assert None not in {row[arm] for row in screens}, arm
    whole = run("patch.delta", CHOSEN, tables, WholePasses(world.model), saes)
    for row, other in zip(screens, whole["screens"].to_pylist(), strict=True):
        assert row["effect"] == pytest.approx(other["effect"], abs=1e-5)


@pytest.mark.slow
def test_what_follows_a_screen_takes_them_too(world: World, tables: dict[str, pa.Table]) -> None:
    saes = inner_saes(world)
    known = tables | run("patch.delta", CHOSEN, tables, world.model, saes)
    known |= run("patch.verdicts", {}, known)
    address = {row["space"]: row["address"] for row in tables["spaces"].to_pylist()}
    exact = {
        f"{address[row['space']]}:{row['feature']}": row["effect"]
        for row in known["screens"].to_pylist()
    }
    names = sorted(exact, key=lambda name: -abs(exact[name]))[:4]
    given = {"outcomes": WORDS, "points": 6, "features": names}
    joint = run("patch.joint", {**given, "sets": 19}, known, world.model, saes)
    assert {"joint", "sum", "ablated"} <= {row["arm"] for row in joint["joint_effects"].to_pylist()}
    doses = run("patch.doses", given, known, world.model, saes)
    whole = run("patch.doses", given, known, WholePasses(world.model), saes)
    for row, other in zip(
        doses["feature_doses"].to_pylist(), whole["feature_doses"].to_pylist(), strict=True
    ):
        assert row["effect"] == pytest.approx(other["effect"], abs=1e-5)
    gradients = run("patch.attribution", {"outcomes": WORDS, "points": 6}, known, world.model, saes)
    estimates = gradients["gradient_effects"].to_pylist()
    pairs = [(row["estimate"], row["exact"]) for row in estimates if row["method"] == "atp"]
    assert np.corrcoef(pairs, rowvar=False)[0, 1] > 0.5


def test_a_site_that_the_model_cannot_edit_is_refused(world: World) -> None:
    sae = TinyTranscoder("attn_probs.0", "attn_probs.0")
    with pytest.raises(BadInput, match=r"write to attn_probs\.0, which .* cannot edit: .*mlp_out"):
        check_sites(world.model, [sae])


class WholePasses:
    """The same model, with edits made by whole passes."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        from toolkit.models import Model

        if name in ("prefix", "suffix", "edited_states"):
            return lambda *given: getattr(Model, name)(self._model, *given)
        return getattr(self._model, name)
