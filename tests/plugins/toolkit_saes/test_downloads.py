"""What each adapter asks of the hub: the files that a spec means, and no others; and what is said
where the hub has nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from toolkit.errors import BadInput
from toolkit.files.hub import HubFile, Snapshot
from toolkit.parts import SaePart
from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit_saes import toolkit_parts
from toolkit_saes.layouts import base as _base
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.releases import canonical
from toolkit_saes.layouts.saelens import SaeLens

COMMIT = "c" * 40
PARTS: dict[str, Any] = {part.name: part for part in toolkit_parts() if isinstance(part, SaePart)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a network that may be used."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return tmp_path


# --- Gemma Scope ----------------------------------------------------------------------------------


def patterns(name: str, params: Any) -> list[str]:
    """What a part downloads of a release whose commit is given, so that nobody has to be asked for
    it.
    """
    (result,) = PARTS[name].downloads(params)
    assert result.snapshot == Snapshot(params.release, COMMIT, None)
    return list(result.patterns)


@pytest.mark.parametrize(
    ("release", "params", "expected"),
    [
        ("google/gemma-scope-2b-pt-transcoders", {"layers": "10-12"}, [(10, 88), (11, 5), (12, 6)]),
        ("google/gemma-scope-9b-pt-res", {"layers": (9, 31)}, [(9, 100), (31, 114)]),
        (
            "google/gemma-scope-2b-pt-res",
            {"layers": 5, "l0": "all"},
            [(5, 18), (5, 34), (5, 68), (5, 143), (5, 309)],
        ),
        ("google/gemma-scope-2b-pt-res", {"layers": 5, "l0": (34, 309)}, [(5, 34), (5, 309)]),
    ],
)
def test_gemma_scope_fetches_the_very_files(
    cache: Path, release: str, params: Any, expected: list[tuple[int, int]]
) -> None:
    """Nothing is asked: the registry knows them."""
    result = patterns("gemma_scope", GemmaScope(release=release, revision=COMMIT, **params))
    assert result == [
        f"layer_{layer}/width_16k/average_l0_{l0}/params.npz" for layer, l0 in expected
    ]


@pytest.mark.parametrize(
    ("l0", "expected"), [("canonical", [111]), ("all", [6, 21, 44, 111]), ((21,), [21])]
)
def test_embeddings_are_fetched_by_the_registry(cache: Path, l0: Any, expected: list[int]) -> None:
    params = GemmaScope(
        release="google/gemma-scope-2b-pt-res", revision=COMMIT, site="embedding", l0=l0
    )
    assert patterns("gemma_scope", params) == [
        f"embedding/width_4k/average_l0_{value}/params.npz" for value in expected
    ]


def test_of_a_release_that_nobody_wrote_down_the_hub_says_which_is_canonical(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def files(expected: Snapshot, wide: Sequence[str]) -> list[HubFile]:
        asked.append(wide)
        return [
            HubFile(f"layer_{layer}/width_16k/average_l0_{l0}/params.npz", 1)
            for layer in (3, 4)
            for l0 in (20 + layer, 90, 300)
        ]

    monkeypatch.setattr(_gemma_scope, "repository_files", files)
    result = patterns("gemma_scope", GemmaScope(release="org/mine", revision=COMMIT, layers="3-4"))
    assert result == [f"layer_{layer}/width_16k/average_l0_90/params.npz" for layer in (3, 4)]
    assert asked == [[f"layer_{layer}/width_16k/average_l0_*/params.npz" for layer in (3, 4)]]


def test_the_canonical_transcoders_are_those_in_use() -> None:
    """Layer 11 lists L0 5 only, so another SAE nearer to 100 is not the canonical one."""
    release = "google/gemma-scope-2b-pt-transcoders"
    assert canonical(release, "16k", 11, [5, 17, 86, 120]) == 5
    assert canonical(release, "16k", 11, [17, 86, 120]) == 86
    assert canonical(None, "16k", 11, [5, 17, 86, 120]) == 86


# --- SAELens --------------------------------------------------------------------------------------


@pytest.fixture
def lenses(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A hub with SAELens's files of layers 3 and 4, which gives the configs it is asked for; what
    was asked.
    """
    asked: list[list[str]] = []
    snapshot = cache / "models--org--lens" / "snapshots" / COMMIT

    def fetch(expected: Snapshot, patterns: Sequence[str]) -> Path:
        asked.append(list(patterns))
        for layer in (3, 4):
            metadata = {
                "hook_name": f"blocks.{layer}.hook_resid_post",
                "sae_lens_version": "6.54.12",
            }
            write.saelens(snapshot / "sub" / f"sae_{layer}", metadata=metadata)
            if len(asked) == 1:
                (snapshot / "sub" / f"sae_{layer}" / "sae_weights.safetensors").unlink()
        return snapshot

    for module in (_base, _saelens):  # configs are fetched first, by the layout itself
        monkeypatch.setattr(module, "fetch", fetch)
    return asked


def test_saelens_fetches_configs_first_and_then_the_layers_asked_for(
    lenses: list[list[str]],
) -> None:
    params, reporter = SaeLens(release="org/lens", revision=COMMIT, layers=4), SilentReporter()
    (sae,) = _saelens.load(params, reporter)
    assert (sae.layer, reporter.phases) == (4, ["download", "load"])
    assert lenses == [
        ["cfg.json", "**/cfg.json"],
        ["sub/sae_4/cfg.json", "sub/sae_4/sae_weights.safetensors"],
    ]


def test_saelens_downloads_all_or_some_layers(lenses: list[list[str]]) -> None:
    every = patterns("saelens", SaeLens(release="org/lens", revision=COMMIT, folder="sub"))
    weights = "sae_weights.safetensors"
    assert every == ["sub/cfg.json", "sub/**/cfg.json", f"sub/{weights}", f"sub/**/{weights}"]
    assert lenses == []
    (result,) = PARTS["saelens"].downloads(SaeLens(release="org/lens", revision=COMMIT, layers="3"))
    assert result.patterns == ("sub/sae_3/cfg.json", f"sub/sae_3/{weights}")
    with pytest.raises(
        BadInput, match=r"saes\.with\.layers: org/lens has no SAE for layer 7; it has 3-4\."
    ):
        list(PARTS["saelens"].downloads(SaeLens(release="org/lens", revision=COMMIT, layers=7)))


def test_saes_in_a_folder_are_not_downloaded(tmp_path: Path) -> None:
    for part in ("gemma_scope", "llama_scope", "saelens"):
        assert list(PARTS[part].downloads(PARTS[part].params(path=str(tmp_path)))) == []


# --- a hub that has nothing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            errors.RepositoryNotFoundError,
            "RepositoryNotFoundError: there is no repository of this name, or it is private",
        ),
        (
            errors.GatedRepoError,
            "GatedRepoError: it is gated, and you have not been granted access",
        ),
        (
            errors.RevisionNotFoundError,
            "RevisionNotFoundError: the repository has no such revision",
        ),
    ],
)
@pytest.mark.parametrize(
    ("module", "params"),
    [(_llama_scope, LlamaScope), (_gemma_scope, GemmaScope), (_saelens, SaeLens)],
)
def test_an_id_that_the_hub_does_not_give(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    params: Any,
    kind: type[Exception],
    message: str,
) -> None:
    error = kind.__new__(kind)
    error.args = ("404 Client Error. (Request ID: 123)\n\nRepository Not Found for url.",)

    class Hub:
        def repo_info(self, *_: Any, **__: Any) -> None:
            raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    with pytest.raises(BadInput) as caught:
        module.identify(params(release="org/none"))
    assert str(caught.value).startswith(
        f"'org/none' at revision 'main': it cannot be downloaded ({message}). "
    )
    assert "\n" not in str(caught.value)
    assert "`hf auth login` or set HF_TOKEN" in str(caught.value)
