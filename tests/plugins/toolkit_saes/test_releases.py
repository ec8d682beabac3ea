"""The registry of known releases, a study's list of configurations, and what is fetched because of
them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import BadInput
from toolkit.files.hub import Snapshot
from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts.configurations import read_configurations
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.releases import (
    canonical,
    gemma_page,
    known,
    llama_page,
    releases,
    sparsities,
)

RES = "google/gemma-scope-2b-pt-res"
AT = Snapshot(RES, "c" * 40, None)
"""Nobody is asked of a release that is written down."""
TABLE = """
0: 13 25 46 105* 226; 1: 10 20 40 102* 250; 2: 13 24 53 141* 142 304; 3: 14 28 59* 142 315;
4: 17 31 60 124* 125 281; 5: 18 34 68* 143 309; 6: 19 36 70* 144 301; 7: 20 36 69* 137 285;
8: 20 37 71* 142 301; 9: 21 37 73* 151 340; 10: 21 39 77* 166 395; 11: 22 41 80* 168 393;
12: 22 41 82* 176 445; 13: 23 43 83 84* 173 403; 14: 23 43 83 84* 173 388; 15: 23 41 78* 150 308;
16: 23 42 78* 154 335; 17: 23 42 77* 150 304; 18: 23 40 74* 138 280; 19: 23 40 73* 137 279;
20: 22 38 71* 139 294; 21: 22 38 70* 139 301; 22: 21 38 72* 147 349; 23: 21 38 74 75* 157 404;
24: 20 38 73* 158 457; 25: 16 28 55 116* 285
"""
"""The 135 SAEs of width 16k by layer, as published; * is the canonical one."""
LISTED = {int(layer): found.split() for layer, found in re.findall(r"(\d+): ([\d* ]+)", TABLE)}
ALL = {layer: [int(l0.rstrip("*")) for l0 in found] for layer, found in LISTED.items()}
CANONICAL = {
    layer: next(int(l0[:-1]) for l0 in found if l0.endswith("*")) for layer, found in LISTED.items()
}


def test_the_135() -> None:
    assert sparsities(RES, "16k") == ALL
    assert sum(map(len, ALL.values())) == 135
    assert {layer: canonical(RES, "16k", layer, there) for layer, there in ALL.items()} == CANONICAL
    assert len(_gemma_scope.LAYOUT.patterns(GemmaScope(release=RES, l0="all"), AT)) == 135
    assert _gemma_scope.LAYOUT.patterns(GemmaScope(release=RES), AT) == [
        f"layer_{layer}/width_16k/average_l0_{l0}/params.npz" for layer, l0 in CANONICAL.items()
    ]


def test_every_published_sae_is_named_before_it_is_fetched() -> None:
    facts = _gemma_scope.LAYOUT.published_facts(GemmaScope(release=RES, l0="all"))
    assert facts["saes"] == sorted(
        f"resid_post.{layer}/layer_{layer}/width_16k/average_l0_{l0}"
        for layer, there in ALL.items()
        for l0 in there
    )


def test_counts_of_the_other_releases() -> None:
    def count(release: str, width: str) -> int:
        return sum(map(len, sparsities(release, width).values()))

    assert {width: count(RES, width) for width in known(RES)["l0"]} == {
        "16k": 135, "32k": 6, "65k": 135, "131k": 6, "262k": 6, "524k": 6, "1m": 18,
    }  # fmt: skip
    assert known(RES)["embedding"] == {"4k": [6, 21, 44, 111]}
    assert [count(f"google/gemma-scope-2b-pt-{site}", "16k") for site in ("mlp", "att")] == [
        130,
        130,
    ]
    assert [count("google/gemma-scope-9b-pt-res", width) for width in ("16k", "131k")] == [248, 254]
    it = sparsities("google/gemma-scope-9b-it-res", "16k")
    assert it == {9: [14, 26, 47, 88, 186], 20: [14, 25, 47, 91, 189], 31: [14, 24, 43, 76, 142]}
    assert {
        layer: canonical("google/gemma-scope-9b-it-res", "16k", layer, it[layer]) for layer in it
    } == {9: 88, 20: 91, 31: 76}
    coded = known("google/gemma-scope-2b-pt-transcoders")["l0"]["16k"]
    expected = "76 65 49 54 88 87 95 70 52 72 88 5 6 8 8 8 10 12 13 12 11 13 15 25 37 41"
    assert [coded[str(layer)] for layer in range(26)] == [[int(l0)] for l0 in expected.split()]
    assert sparsities("google/gemma-scope-2b-pt-transcoders", "16k") == {}, (
        "the list of transcoders is not complete"
    )


def test_an_exception_to_the_rule_is_written_down() -> None:
    there = sparsities("google/gemma-scope-9b-pt-att", "16k")[27]
    assert canonical("google/gemma-scope-9b-pt-att", "16k", 27, there) == 136
    assert canonical(None, "16k", 27, there) != 136


def test_pages_on_neuronpedia() -> None:
    assert gemma_page(RES, "16k", 20, 71) == "gemma-2-2b/20-gemmascope-res-16k"
    assert gemma_page(RES, "16k", 20, 38) is None, "a page of another SAE is worse than none"
    assert gemma_page(RES, "16k", 12, 22) == "gemma-2-2b/12-gemmascope-res-16k__l0-22"
    assert gemma_page("org/mine", "16k", 20, 71) is None
    pages = [gemma_page(RES, "16k", layer, l0) for layer, there in ALL.items() for l0 in there]
    assert sum(page is not None for page in pages) == 38
    assert llama_page("fnlp/Llama3_1-8B-Base-LXR-8x", "", 15) == "llama3.1-8b/15-llamascope-res-32k"
    assert (
        llama_page("OpenMOSS-Team/Llama3_1-8B-Base-LXA-32x", "", 3)
        == "llama3.1-8b/3-llamascope-att-131k"
    )
    assert llama_page("fnlp/Llama3_1-8B-Base-LXTC-8x", "", 3) is None
    mixture = "0-Slimpajama-800M-OpenR1-Math-220k"
    assert (
        llama_page("fnlp/Llama-Scope-R1-Distill", mixture, 7)
        == "deepseek-r1-distill-llama-8b/7-llamascope-openr1-res-32k"
    )


def test_the_registry_is_whole() -> None:
    for name, facts in releases().items():
        assert {"adapter", "model"} <= set(facts), name
        if facts["adapter"] == "llama_scope":
            assert (facts["layers"], facts["width"]) in ((32, 32768), (32, 131072)), name
        else:
            assert name.endswith(f"-{facts['site']}"), name


def test_a_release_that_is_known_is_taken_at_the_commit_that_is_written_down() -> None:
    """The commits are those that somebody saw at the source; of others the branch is asked for."""
    written = {name: facts["revision"] for name, facts in releases().items() if "revision" in facts}
    assert written == {
        "fnlp/Llama3_1-8B-Base-LXR-8x": "8dbc1d85edfced43081c03c38b05514dbab1368b",
        RES: "fd571b47c1c64851e9b1989792367b9babb4af63",
        "google/gemma-scope-9b-it-res": "e86af97a5b6fbbccca28ab654f2fda1b0768f770",
    }
    assert GemmaScope(release=RES).pinned_revision == written[RES]
    assert (
        LlamaScope(release="fnlp/Llama3_1-8B-Base-LXR-8x").pinned_revision
        == written["fnlp/Llama3_1-8B-Base-LXR-8x"]
    )
    assert LlamaScope(release="OpenMOSS-Team/Llama3_1-8B-Base-LXR-8x").pinned_revision == "main"
    assert GemmaScope(release=RES, revision="main").pinned_revision == "main"
    assert (
        GemmaScope(release="google/gemma-scope-2b-pt-mlp").pinned_revision
        == GemmaScope(release="org/mine").pinned_revision
        == "main"
    )


# --- a study's list -------------------------------------------------------------------------------


def entry(layer: int, l0: int) -> dict[str, Any]:
    return {
        "layer": layer,
        "average_l0": l0,
        "path": f"layer_{layer}/width_16k/average_l0_{l0}/params.npz",
    }


@pytest.mark.parametrize("everything", [False, True], ids=["26", "135"])
def test_a_studys_configurations(tmp_path: Path, everything: bool) -> None:
    expected = [
        (layer, l0) for layer in ALL for l0 in (ALL[layer] if everything else [CANONICAL[layer]])
    ]
    file = tmp_path / "gemma_scope_16k_configurations.json"
    file.write_text(json.dumps([entry(*sae) for sae in expected]))
    assert [(result.layer, result.l0) for result in read_configurations(file)] == expected
    params = GemmaScope(release=RES, configurations=str(file))
    patterns = _gemma_scope.LAYOUT.patterns(params, AT)
    assert len(patterns) == (135 if everything else 26)
    assert patterns == _gemma_scope.LAYOUT.patterns(
        GemmaScope(release=RES, l0="all" if everything else "canonical"), AT
    )


def test_configurations_choose_files(tmp_path: Path) -> None:
    for layer, l0 in ((0, 13), (0, 105), (1, 102)):
        write.gemma(
            tmp_path / "scope" / f"layer_{layer}" / "width_16k" / f"average_l0_{l0}" / "params.npz"
        )
    file = tmp_path / "list.json"
    file.write_text(
        json.dumps(
            [
                {"layer": 1, "average_l0": 102.0},
                {"path": "layer_0/width_16k/average_l0_13/params.npz"},
            ]
        )
    )
    params = GemmaScope(path=str(tmp_path / "scope"), configurations=str(file))
    assert [sae.declared_l0 for sae in _gemma_scope.load(params, SilentReporter())] == [102, 13]
    file.write_text(json.dumps([entry(25, 141)]))
    message = (
        f"1 of 1 SAEs of the list are not in {tmp_path / 'scope'}; the first is "
        "layer_25/width_16k/average_l0_141/params.npz."
    )
    with pytest.raises(BadInput, match=re.escape(message)):
        _gemma_scope.load(params, SilentReporter())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as JSON"),
        ("[]", "holds no list of SAEs"),
        ('{"a": 1}', "holds no list of SAEs"),
        ('[{"layer": 1}]', "entry 1 of .* names no layer and average_l0"),
        ('[{"layer": 1, "average_l0": 1.5}]', "entry 1 of .* names no layer and average_l0"),
        (
            json.dumps([entry(1, 102) | {"layer": 2}]),
            "entry 1 of .* says layer 2, L0 102, and the path layer_1/",
        ),
        (json.dumps([entry(1, 102)] * 2), "lists layer 1, width 16k, L0 102 twice"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "list.json"
    file.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_configurations(file)


def test_38_of_the_135_gemma_scope_saes_have_a_page_and_only_they_get_a_link() -> None:
    from toolkit.features.addresses import neuronpedia_page

    release, links = "google/gemma-scope-2b-pt-res", []
    for layer, listed in sparsities(release, "16k").items():
        for l0 in listed:
            space = {
                "model": "google/gemma-2-2b",
                "hookpoint": f"resid_post.{layer}",
                "sae": f"layer_{layer}/width_16k/average_l0_{l0}",
            }
            link, page = neuronpedia_page(space, 7), gemma_page(release, "16k", layer, l0)
            assert link == (page and f"https://www.neuronpedia.org/{page}/7")
            links.append(link)
            assert neuronpedia_page({**space, "model": "own/gemma-2-2b-tuned"}, 7) is None
    assert len(links) == 135
    assert sum(link is not None for link in links) == 38


def test_llama_scope_has_pages_and_raw_streams_and_unknown_saes_have_none() -> None:
    from toolkit.features.addresses import neuronpedia_page

    space = {
        "model": "meta-llama/Llama-3.1-8B",
        "hookpoint": "resid_post.25",
        "sae": "Llama3_1-8B-Base-L25R-8x",
    }
    assert (
        neuronpedia_page(space, 9)
        == "https://www.neuronpedia.org/llama3.1-8b/25-llamascope-res-32k/9"
    )
    assert neuronpedia_page({**space, "sae": None}, 9) is None
    assert neuronpedia_page({**space, "sae": "own"}, 9) is None
