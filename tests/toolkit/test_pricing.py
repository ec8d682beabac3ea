"""What passes are said to cost: sizes that are not known cost nothing, and more of anything costs
no less.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolkit.costs import ANSWERED, head_flops, key_bytes, pass_bytes, token_bytes, token_flops

LLAMA = {
    "layers": 32,
    "width": 4096,
    "intermediate": 14_336,
    "keys": 1024,
    "vocabulary": 128_256,
    "item": 2,
    "bytes": 16 << 30,
    "block_parameters": 6_979_321_856,
}


def test_published_sizes() -> None:
    """Of Llama 3.1 8B: 128 KiB of keys a token, and about two operations a parameter."""
    assert key_bytes(LLAMA) == 128 << 10
    assert token_flops(LLAMA, 0) == 2 * 6_979_321_856
    assert token_flops(LLAMA, 0, 16) == 6_979_321_856
    assert head_flops(LLAMA) == 2 * 4096 * 128_256


def test_what_is_not_known_costs_nothing() -> None:
    assert (
        token_flops({}, 100)
        == head_flops({})
        == key_bytes({})
        == token_bytes({}, 3)
        == pass_bytes({}, 10, 10, 1)
        == 0
    )


@given(st.integers(1, 10**6), st.integers(1, 5000), st.integers(1, 64))
def test_a_pass_holds_its_tokens_but_no_more_than_it_may(
    tokens: int, longest: int, kept: int
) -> None:
    tokens_held = (
        pass_bytes(LLAMA, tokens, longest, kept, ANSWERED) - LLAMA["bytes"]
    ) // token_bytes(LLAMA, kept)
    assert tokens_held == min(max(tokens, longest), max(ANSWERED, longest))
    assert pass_bytes(LLAMA, tokens, longest, kept + 1) > pass_bytes(LLAMA, tokens, longest, kept)
