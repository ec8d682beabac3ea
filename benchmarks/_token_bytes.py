"""Bytes of tracked tokens: what a plan forecasts, and what a store then holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from toolkit.ledger import StepRow
from toolkit.saes import Sparse
from toolkit_store import open_store
from toolkit_tokens.track.rows import Owner, TrackedText, activation_rows, attention_rows

SPECS = Path(__file__).parents[1] / "specs"
LLAMA_TOKENS = (110, 101, 124, 87, 87, 115, 101, 70, 115, 101, 110, 101, 101)
"""Tokens of the ten situations and their three twins by the tokeniser of Llama 3.1, the one that
begins a text included.
"""
LAYERS_AT_8B = 31
HEADS, FEATURES, ACTIVE = 32, 32768, 50
"""The shape of a layer: heads of Llama 3.1 8B, features of its SAE, and those active at a token."""


@dataclass(frozen=True)
class TrackedBytes:
    """Bytes of one run: those that the plan forecasts and those that are written."""

    forecast: int
    written: int

    def __str__(self) -> str:
        ratio = self.forecast / self.written
        return f"forecast {self.forecast:,} bytes, written {self.written:,}, ratio {ratio:.3f}"


def at_8b(folder: Path, layers: int) -> TrackedBytes:
    """All layers of Llama 3.1 8B: the plan has neither the model nor its tokeniser, and rows of its
    shape are drawn at random. Fewer layers than all are written and scaled up.
    """
    stored = written(folder, published_rows(LLAMA_TOKENS, layers))
    return TrackedBytes(_planned(folder), stored * LAYERS_AT_8B // layers)


def on_the_lab(folder: Path) -> TrackedBytes:
    """The same spec on the packaged model, run."""
    lab = ("--overlay", str(SPECS / "lab.yaml"))
    planned = _planned(folder, *lab)
    _toolkit(folder, "run", *lab, "--set", f"sinks.published.with.path={folder / 'files'}")
    return TrackedBytes(planned, stored_bytes(folder / "store"))


def written(folder: Path, tables: Mapping[str, pa.Table]) -> int:
    """Bytes of the tables in a new store, and of what it derives from them to answer by feature."""
    store = open_store(folder / "store", create=True)
    row = StepRow(
        key="k" * 64, experiment="e", stage="tokens", part="track.tokens", part_version="1",
        run="r", index=0, material="{}", tables={}, worker="w", seconds=1.0,
        committed_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    store.commit(row, tables)
    store.index(["k" * 64])
    return stored_bytes(folder / "store")


def stored_bytes(store: Path) -> int:
    """Bytes of features and attention in a store, by sample and by feature."""
    names = ("activations", "attention", "postings", "feature_index")
    return sum(
        file.stat().st_size
        for name in names
        for file in (store / "tables" / f"{name}.lance").rglob("*")
        if file.is_file()
    )


def published_rows(lengths: Sequence[int], layers: int) -> dict[str, pa.Table]:
    """Features and attention of texts of these lengths, drawn at random in the published shape."""
    draw = np.random.default_rng(0)
    texts = [
        TrackedText(
            tuple(range(length)),
            (Owner(f"situation_{number}", tuple(range(1, length)), tuple(range(length))),),
        )
        for number, length in enumerate(lengths)
    ]
    activations, attention = [], []
    for layer in range(1, layers + 1):
        activations.append(
            activation_rows(f"space-{layer}", texts, _active(draw, sum(lengths) - len(lengths)))
        )
        attention += [
            attention_rows("m", layer, text, _weights(draw, len(text.ids)), None, True)
            for text in texts
        ]
    return {
        "activations": pa.concat_tables(activations),
        "attention": pa.concat_tables(attention),
    }


def _active(draw: np.random.Generator, rows: int) -> Sparse:
    numbers = np.sort([draw.choice(FEATURES, ACTIVE, replace=False) for _ in range(rows)])
    values = draw.exponential(1.0, rows * ACTIVE).astype("float32")
    return Sparse(torch.full((rows,), ACTIVE), torch.tensor(numbers.ravel()), torch.tensor(values))


def _weights(draw: np.random.Generator, length: int) -> torch.Tensor:
    """Causal attention of every head, most of it to the first token."""
    scores = torch.tensor(draw.normal(0, 2, (length, HEADS, length)).astype("float32"))
    scores[..., 0] += 4
    hidden = torch.arange(length) > torch.arange(length)[:, None]
    return scores.masked_fill(hidden[:, None], -torch.inf).softmax(-1)


def _planned(folder: Path, *options: str) -> int:
    planned: Any = json.loads(_toolkit(folder, "plan", *options, "--json"))
    (cost,) = [stage["cost"] for stage in planned["stages"] if stage["stage"] == "tokens"]
    return int(cost["disk"])


def _toolkit(folder: Path, command: str, *options: str) -> str:
    """What a command on `exp6_tokens_l1_31` prints, offline and with no model in the cache."""
    none = str(folder / "no_models")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": none, "HF_HUB_CACHE": none}
    spec = str(SPECS / "exp6_tokens_l1_31.yaml")
    store = ("--store", str(folder / "store"))
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", command, spec, *store, *options],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"toolkit {command} {spec} failed:\n{done.stderr}")
    return done.stdout
