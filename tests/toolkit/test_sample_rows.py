"""Rows of samples and of their metadata, as sources write them."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from toolkit.models import Tokens
from toolkit.samples.rows import metadata_row, sample_row
from toolkit.tables import arrow_schema

TOKENS = Tokens("one two", (5, 6), ("one", " two"), (("last", 1, 2),), bos=True)


def test_a_row_has_every_column_of_the_table() -> None:
    row = sample_row("a", "u", TOKENS)
    assert list(row) == arrow_schema("samples").names
    digest = hashlib.sha256(b"one two").hexdigest()
    assert pa.Table.from_pylist([row], schema=arrow_schema("samples")).to_pylist() == [
        {
            "sample": "a",
            "unit": "u",
            "cluster": digest,
            "text": "one two",
            "token_ids": [5, 6],
            "pieces": ["one", " two"],
            "spans": [{"name": "last", "start": 1, "end": 2}],
            "prompt_hash": digest,
            "bos": True,
        }
    ]


def test_a_text_that_continues_a_prompt_is_in_the_cluster_of_the_prompt() -> None:
    row = sample_row("a", "u", TOKENS, prompt_hash="of the prompt")
    assert (row["cluster"], row["prompt_hash"]) == ("of the prompt", "of the prompt")


def test_metadata_is_a_number_or_a_text() -> None:
    assert metadata_row("a", "bet", 10) == {
        "sample": "a",
        "key": "bet",
        "number": 10.0,
        "string": None,
    }
    assert metadata_row("a", "group", "x") == {
        "sample": "a",
        "key": "group",
        "number": None,
        "string": "x",
    }
