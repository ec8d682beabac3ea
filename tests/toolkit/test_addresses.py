"""Addresses of features: every form is read, every printed one is read back, and each mistake says what is there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.addresses import Address, at_layer, find, layer_of, parse, prefixes, short
from toolkit.errors import BadInput
from toolkit.hookpoints import SITES, hookpoint

LLAMA = "meta-llama/Llama-3.1-8B"
SCOPE = "Llama3_1-8B-Base-L25R-8x"


def space(hookpoint: str = "resid_post.25", sae: str = SCOPE, id: str = "", width: int = 32768, **fields: Any) -> dict[str, Any]:
    address = f"{LLAMA}/{hookpoint}/{sae}"
    base = {"space": id or f"{hookpoint} {sae}", "model": LLAMA, "revision": "r", "hookpoint": hookpoint, "sae": sae}
    return base | {"recipe": "jumprelu", "width": width, "address": address} | fields


@pytest.mark.parametrize("text", ["25/2059", "L25-2059", "l25-2059", "L25#2059", "25:2059", " L25/2059 ", "025/02059"])
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
        ("gpt2/resid_post.3/a/resid_post.4:1", Address(3, "resid_post.3", "gpt2", "a/resid_post.4", 1)),
    ],
)
def test_full_forms(text: str, expected: Address) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "25", "25/", "/2059", "25/x", "25/-1", "25.2059", "M25/1", "25/20/59", "٢/٣", "9" * 5000 + "/1"),
        *("gpt2/resid_post.3/x", "gpt2/x:3", "gpt2/resid_past.3/x:3", "resid_post.3/x:3", "gpt2/resid_post.3/x:"),
        *("gpt2/resid_post.3/x:1.5", "/resid_post.3/x:1", "gpt2/resid_post.3/x:" + "9" * 5000),
    ],
)
def test_anything_else_names_the_forms(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no address of a feature\. Write 25/2059, L25-2059, .* model/hookpoint/sae:2059"):
        parse(text)


def is_no_hookpoint(name: str) -> bool:
    try:
        hookpoint(name)
    except BadInput:
        return True
    return False


NAMES = st.lists(st.from_regex(r"[A-Za-z0-9_.:-]+", fullmatch=True).filter(is_no_hookpoint), min_size=1, max_size=4).map("/".join)
NUMBERS = st.integers(0, 2**32)
SHORT = st.builds(Address, NUMBERS, st.none(), st.none(), st.none(), NUMBERS)


@st.composite
def full(draw: st.DrawFn) -> Address:
    layer = draw(NUMBERS)
    site = draw(st.sampled_from(SITES))
    return Address(layer, f"{site}.{layer}", draw(NAMES), draw(st.none() | NAMES), draw(NUMBERS))


@settings(max_examples=50)
@given(SHORT | full())
def test_what_is_printed_is_read_back(address: Address) -> None:
    assert parse(str(address)) == address


@given(st.text())
def test_any_text_is_an_address_or_a_bad_input(text: str) -> None:
    try:
        found = parse(text)
    except BadInput:
        return
    assert parse(str(found)) == found


def test_find_by_layer_and_in_full() -> None:
    rows = [space("resid_post.24"), space("resid_post.25"), space("resid_post.25")]
    for address in ("25/7", parse("25/7"), f"{LLAMA}/resid_post.25/{SCOPE}:7", f"{LLAMA}/blocks.25.hook_resid_post/{SCOPE}:7"):
        assert find(address, rows) == rows[1]


def test_a_short_address_with_several_saes_lists_them() -> None:
    rows = [space(sae="sparse"), space(sae="dense"), space("resid_post.1")]
    with pytest.raises(BadInput, match=rf"'25/7' may mean 2 features: {LLAMA}/resid_post.25/sparse:7, {LLAMA}/.*/dense:7"):
        find("25/7", rows)
    assert find("1/7", rows) == rows[2]


def test_spaces_of_one_address_are_told_apart_by_id() -> None:
    rows = [space(id="aaaa", revision="old"), space(id="bbbb", revision="new")]
    with pytest.raises(BadInput, match=r"aaaa:7 \(.*model revision old, recipe jumprelu\), bbbb:7 "):
        find("25/7", rows)
    with pytest.raises(BadInput, match="may mean 2 features: aaaa:7"):
        find(rows[0]["address"] + ":7", rows)
    assert find("bbbb:7", rows) == rows[1]


def test_an_address_of_no_known_hookpoint_is_found_as_printed() -> None:
    rows = [space("toy.0", sae="a", width=8), space("toy.0", sae="b", width=8)]
    assert find(f"{LLAMA}/toy.0/b:3", rows) == rows[1]


def test_no_such_layer_lists_the_layers() -> None:
    with pytest.raises(BadInput, match=r"no space at layer 26 here\. Layers: 9, 25\."):
        find("26/7", [space("resid_post.25"), space("resid_post.9")])
    with pytest.raises(BadInput, match=r"Layers: \(none\)"):
        at_layer([], 3)


def test_no_such_space_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=rf"no space '.*8y' here\. Did you mean '{LLAMA}/resid_post.25/{SCOPE}'\? Spaces: "):
        find(f"{LLAMA}/resid_post.25/{SCOPE[:-1]}y:7", [space()])


def test_a_long_list_is_cut() -> None:
    with pytest.raises(BadInput, match="sae7:0 and 2 more"):
        find("25/0", [space(sae=f"sae{i}") for i in range(10)])


def test_an_index_past_the_width_names_the_width() -> None:
    assert find("25/32767", [space()]) == space()
    with pytest.raises(BadInput, match=rf"no feature 32768 in .*{SCOPE}; its width is 32768 \(0 to 32767\)"):
        find("25/32768", [space()])


def test_short_and_layer() -> None:
    assert short(space(), 2059) == "25/2059"
    assert layer_of(space("embedding")) is None
    assert short(space("embedding", sae="x"), 1) == f"{LLAMA}/embedding/x:1"


def test_prefixes_are_short_only_where_that_is_enough() -> None:
    rows = [space("resid_post.1", id="a"), space(id="b", sae="p"), space(id="c", sae="q"), space(id="d", sae="q")]
    assert prefixes(rows) == {"a": "1/", "b": f"{LLAMA}/resid_post.25/p:", "c": "c:", "d": "d:"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["resid_post.1", "mlp_out.1", "resid_post.2", "toy.1"]), st.sampled_from("pq")), min_size=1
    )
)
def test_a_prefix_finds_its_own_space(places: list[tuple[str, str]]) -> None:
    rows = [space(at, sae=sae, id=f"id{number}") for number, (at, sae) in enumerate(places)]
    for id, prefix in prefixes(rows).items():
        assert find(f"{prefix}3", rows)["space"] == id


def test_import_is_light() -> None:
    code = "import sys, toolkit.addresses; print([m for m in ('numpy', 'pyarrow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
