"""Addresses of features: every form is read, every printed one is read back, and each mistake says
what is there.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import BadInput
from toolkit.features.addresses import (
    Address,
    at_layer,
    find,
    from_neuronpedia,
    layer_of,
    neuronpedia,
    parse,
    prefixes,
    short,
)
from toolkit.hookpoints import SITES, hookpoint

LLAMA = "meta-llama/Llama-3.1-8B"
SCOPE = "Llama3_1-8B-Base-L25R-8x"


def space(
    hookpoint: str = "resid_post.25",
    sae: str = SCOPE,
    id: str = "",
    width: int = 32768,
    **fields: Any,
) -> dict[str, Any]:
    address = f"{LLAMA}/{hookpoint}/{sae}"
    base = {
        "space": id or f"{hookpoint} {sae}",
        "model": LLAMA,
        "revision": "r",
        "hookpoint": hookpoint,
        "sae": sae,
    }
    return base | {"recipe": "jumprelu", "width": width, "address": address} | fields


@pytest.mark.parametrize(
    "text", ["25/2059", "L25-2059", "l25-2059", "L25#2059", "25:2059", " L25/2059 ", "025/02059"]
)
def test_short_forms(text: str) -> None:
    assert parse(text) == Address(25, None, None, None, 2059)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{LLAMA}/resid_post.25/{SCOPE}:2059", Address(25, "resid_post.25", LLAMA, SCOPE, 2059)),
        (
            "google/gemma-2-2b/mlp_out.20/layer_20/width_16k/average_l0_71:7",
            Address(20, "mlp_out.20", "google/gemma-2-2b", "layer_20/width_16k/average_l0_71", 7),
        ),
        ("gpt2/blocks.8.hook_resid_post/x:0", Address(8, "resid_post.8", "gpt2", "x", 0)),
        ("/models/mine/resid_pre.0/x:1", Address(0, "resid_pre.0", "/models/mine", "x", 1)),
        ("gpt2/resid_post.3:17", Address(3, "resid_post.3", "gpt2", None, 17)),
        (
            "gpt2/resid_post.3/a/resid_post.4:1",
            Address(3, "resid_post.3", "gpt2", "a/resid_post.4", 1),
        ),
    ],
)
def test_full_forms(text: str, expected: Address) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "25",
            "25/",
            "/2059",
            "25/x",
            "25/-1",
            "25.2059",
            "M25/1",
            "25/20/59",
            "٢/٣",
            "9" * 5000 + "/1",
        ),
        *(
            "gpt2/resid_post.3/x",
            "gpt2/x:3",
            "gpt2/resid_past.3/x:3",
            "resid_post.3/x:3",
            "gpt2/resid_post.3/x:",
        ),
        *("gpt2/resid_post.3/x:1.5", "/resid_post.3/x:1", "gpt2/resid_post.3/x:" + "9" * 5000),
    ],
)
def test_anything_else_names_the_forms(text: str) -> None:
    with pytest.raises(
        BadInput,
        match=r"is not a feature address\. Write 25/2059, L25-2059, .* model/hookpoint/sae:2059",
    ):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "gemma-2-2b/20-gemmascope-res-16k/1234",
            Address(20, None, "gemma-2-2b", None, 1234, "20-gemmascope-res-16k"),
        ),
        (
            " gemma-2-2b/5-gemmascope-res-16k__l0-18/0",
            Address(5, None, "gemma-2-2b", None, 0, "5-gemmascope-res-16k__l0-18"),
        ),
        (
            "llama3.1-8b/25-llamascope-res-32k/2059",
            Address(25, None, "llama3.1-8b", None, 2059, "25-llamascope-res-32k"),
        ),
        ("gemma-2-2b/e-embedding/7", Address(None, None, "gemma-2-2b", None, 7, "e-embedding")),
    ],
)
def test_neuronpedia_ids(text: str, expected: Address) -> None:
    assert parse(text) == expected
    assert str(expected) == text.strip()


def gemma(
    sae: str, at: str = "resid_post.20", model: str = "google/gemma-2-2b", **fields: Any
) -> dict[str, Any]:
    base = {
        "model": model,
        "hookpoint": at,
        "sae": sae,
        "address": f"{model}/{at}/{sae}",
        "space": f"{model} {at} {sae}",
    }
    return base | {"revision": "r", "recipe": "j", "width": 16384} | fields


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (gemma("layer_20/width_16k/average_l0_71"), "gemma-2-2b/20-gemmascope-res-16k"),
        (gemma("layer_20/width_16k/average_l0_38"), "gemma-2-2b/20-gemmascope-res-16k__l0-38"),
        (gemma("layer_0/width_16k/average_l0_105"), "gemma-2-2b/0-gemmascope-res-16k"),
        (gemma("layer_25/width_16k/average_l0_116"), "gemma-2-2b/25-gemmascope-res-16k"),
        (gemma("layer_20/width_65k/average_l0_114"), "gemma-2-2b/20-gemmascope-res-65k__l0-114"),
        (
            gemma("layer_20/width_16k/average_l0_72", "mlp_out.20"),
            "gemma-2-2b/20-gemmascope-mlp-16k__l0-72",
        ),
        (
            gemma("layer_31/width_16k/average_l0_76", "resid_post.31", "/m/gemma-2-9b-it/"),
            "gemma-2-9b-it/31-gemmascope-res-16k",
        ),
        (
            gemma("layer_31/width_131k/average_l0_109", model="google/gemma-2-9b-it"),
            "gemma-2-9b-it/31-gemmascope-res-131k",
        ),
        (space(), "llama3.1-8b/25-llamascope-res-32k"),
        (space("mlp_out.3", "Llama3_1-8B-Base-L3M-32x"), "llama3.1-8b/3-llamascope-mlp-131k"),
        (space("resid_post.3", "Lab-L3R-4x"), "llama3.1-8b/3-resid_post-Lab-L3R-4x"),
        (gemma("x y", model="my model"), "my-model/20-resid_post-x-y"),
        (
            gemma("layer_3/width_16k/average_l0_59", model="gpt2"),
            "gpt2/20-resid_post-layer_3-width_16k-average_l0_59",
        ),
        (gemma("", "embedding") | {"sae": None}, "gemma-2-2b/e-embedding-raw"),
    ],
)
def test_what_neuronpedia_calls_a_space(space: dict[str, Any], expected: str) -> None:
    assert "/".join(neuronpedia(space)) == expected
    assert find(f"{expected}/3", [gemma("other"), space]) == space


def test_a_name_without_l0_means_the_canonical_sae_alone() -> None:
    rows = [gemma(f"layer_20/width_16k/average_l0_{l0}") for l0 in (22, 38, 139)]
    message = (
        r"No space corresponds to Neuronpedia's 'gemma-2-2b/20-gemmascope-res-16k'\. "
        r"Did "
        r"you mean "
        r"'gemma-2-2b/20-gemmascope-res-16k__l0-"
    )
    with pytest.raises(BadInput, match=message):
        find("gemma-2-2b/20-gemmascope-res-16k/1", rows)
    assert find("gemma-2-2b/20-gemmascope-res-16k__l0-38/1", rows) == rows[1]
    with pytest.raises(BadInput, match="no feature 16384 in"):
        find("gemma-2-2b/20-gemmascope-res-16k__l0-38/16384", rows)


def test_one_neuronpedia_name_of_two_spaces_lists_them() -> None:
    rows = [
        gemma("layer_20/width_16k/average_l0_71", space=id, revision=id) for id in ("aaaa", "bbbb")
    ]
    with pytest.raises(
        BadInput,
        match=r"'gemma-2-2b/20-gemmascope-res-16k/1' may be any of 2 features: aaaa:1 .*, bbbb:1 ",
    ):
        find("gemma-2-2b/20-gemmascope-res-16k/1", rows)
    assert from_neuronpedia("gemma-2-2b", "20-gemmascope-res-16k", rows) == rows


def is_no_hookpoint(name: str) -> bool:
    try:
        hookpoint(name)
    except BadInput:
        return True
    return False


NAMES = st.lists(
    st.from_regex(r"[A-Za-z0-9_.:-]+", fullmatch=True).filter(is_no_hookpoint),
    min_size=1,
    max_size=4,
).map("/".join)
NUMBERS = st.integers(0, 2**32)
SHORT = st.builds(Address, NUMBERS, st.none(), st.none(), st.none(), NUMBERS)


@st.composite
def full(draw: st.DrawFn) -> Address:
    layer = draw(NUMBERS)
    site = draw(st.sampled_from(SITES))
    return Address(layer, f"{site}.{layer}", draw(NAMES), draw(st.none() | NAMES), draw(NUMBERS))


SOURCES = st.builds(
    lambda model, layer, name, index: Address(
        layer, None, model, None, index, f"{'e' if layer is None else layer}-{name}"
    ),
    st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True),
    st.none() | NUMBERS,
    st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True),
    NUMBERS,
)


@settings(max_examples=50)
@given(SHORT | full() | SOURCES)
def test_what_is_printed_is_read_back(address: Address) -> None:
    assert parse(str(address)) == address


@given(st.text())
def test_any_text_is_an_address_or_a_bad_input(text: str) -> None:
    try:
        result = parse(text)
    except BadInput:
        return
    assert parse(str(result)) == result


def test_find_by_layer_and_in_full() -> None:
    rows = [space("resid_post.24"), space("resid_post.25"), space("resid_post.25")]
    for address in (
        "25/7",
        parse("25/7"),
        f"{LLAMA}/resid_post.25/{SCOPE}:7",
        f"{LLAMA}/blocks.25.hook_resid_post/{SCOPE}:7",
    ):
        assert find(address, rows) == rows[1]


def test_a_short_address_with_several_saes_lists_them() -> None:
    rows = [space(sae="sparse"), space(sae="dense"), space("resid_post.1")]
    with pytest.raises(
        BadInput,
        match=rf"'25/7' may be any of 2 features: {LLAMA}/resid_post.25/sparse:7, "
        rf"{LLAMA}/.*/dense:7",
    ):
        find("25/7", rows)
    assert find("1/7", rows) == rows[2]


def test_spaces_of_one_address_are_told_apart_by_id() -> None:
    rows = [space(id="aaaa", revision="old"), space(id="bbbb", revision="new")]
    with pytest.raises(
        BadInput, match=r"aaaa:7 \(.*model revision old, recipe jumprelu\), bbbb:7 "
    ):
        find("25/7", rows)
    with pytest.raises(BadInput, match="may be any of 2 features: aaaa:7"):
        find(rows[0]["address"] + ":7", rows)
    assert find("bbbb:7", rows) == rows[1]


def test_an_address_of_no_known_hookpoint_is_found_as_printed() -> None:
    rows = [space("toy.0", sae="a", width=8), space("toy.0", sae="b", width=8)]
    assert find(f"{LLAMA}/toy.0/b:3", rows) == rows[1]


def test_no_such_layer_lists_the_layers() -> None:
    with pytest.raises(BadInput, match=r"no space at layer 26\. Layers: 9, 25\."):
        find("26/7", [space("resid_post.25"), space("resid_post.9")])
    with pytest.raises(BadInput, match=r"Layers: \(none\)"):
        at_layer([], 3)


def test_no_such_space_names_the_nearest() -> None:
    with pytest.raises(
        BadInput,
        match=rf"'.*8y'\. Did you mean '{LLAMA}/resid_post.25/{SCOPE}'\? Spaces: ",
    ):
        find(f"{LLAMA}/resid_post.25/{SCOPE[:-1]}y:7", [space()])


def test_a_long_list_is_cut() -> None:
    with pytest.raises(BadInput, match="sae7:0 and 2 more"):
        find("25/0", [space(sae=f"sae{i}") for i in range(10)])


def test_an_index_past_the_width_names_the_width() -> None:
    assert find("25/32767", [space()]) == space()
    with pytest.raises(
        BadInput, match=rf"no feature 32768 in .*{SCOPE}; its width is 32768 \(0 to 32767\)"
    ):
        find("25/32768", [space()])


def test_short_and_layer() -> None:
    assert short(space(), 2059) == "25/2059"
    assert layer_of(space("embedding")) is None
    assert short(space("embedding", sae="x"), 1) == f"{LLAMA}/embedding/x:1"


def test_prefixes_are_short_only_where_that_is_enough() -> None:
    rows = [
        space("resid_post.1", id="a"),
        space(id="b", sae="p"),
        space(id="c", sae="q"),
        space(id="d", sae="q"),
    ]
    assert prefixes(rows) == {"a": "1/", "b": f"{LLAMA}/resid_post.25/p:", "c": "c:", "d": "d:"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["resid_post.1", "mlp_out.1", "resid_post.2", "toy.1"]),
            st.sampled_from("pq"),
        ),
        min_size=1,
    )
)
def test_a_prefix_finds_its_own_space(places: list[tuple[str, str]]) -> None:
    rows = [space(at, sae=sae, id=f"id{number}") for number, (at, sae) in enumerate(places)]
    for id, prefix in prefixes(rows).items():
        assert find(f"{prefix}3", rows)["space"] == id


def test_import_is_light() -> None:
    code = (
        "import sys, toolkit.features.addresses; "
        "print([m for m in ('numpy', 'pyarrow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
