"""Tables of replies whose words are known, for `words.replies`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from toolkit.parts import StagePart
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_work
from toolkit_words import toolkit_parts

PARTS = {part.name: part for part in toolkit_parts() if isinstance(part, StagePart)}
SPACE = {
    "space": "s1",
    "model": "m",
    "revision": "1",
    "hookpoint": "resid_post.3",
    "sae": "x",
    "sae_hash": "h",
    "recipe": "relu",
    "address": "m/resid_post.3/x",
}


COMMON = [f"word{at}" for at in range(30)]


def planted(
    seed: int = 0, samples: int = 400, features: int = 12, effect: float = 0.8
) -> tuple[list[str], np.ndarray]:
    """Feature 3 fires in a quarter of the samples; their replies say `gamble` more often, and
    `careful` less.
    """
    rng = np.random.default_rng(seed)
    values = rng.random((samples, features)) * (rng.random((samples, features)) < 0.25)
    on = values[:, 3] > 0
    replies = []
    for index in range(samples):
        words = [word for word in COMMON if rng.random() < 0.3]
        if rng.random() < 0.1 + effect * on[index]:
            words += ["gamble"]
        if rng.random() < 0.1 + effect * (not on[index]):
            words += ["careful"]
        replies.append(" ".join(words) or "nothing")
    return replies, values


def replied(
    replies: Sequence[str],
    values: Any,
    *,
    units: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
) -> dict[str, pa.Table]:
    """Samples with replies, and activations: an array of samples by features."""
    dense = np.asarray(values, float)
    names = [f"n{index:04d}" for index in range(len(replies))]
    samples, fired = [], []
    for index, (name, reply) in enumerate(zip(names, replies, strict=True)):
        prompt = prompts[index] if prompts else f"prompt {index}"
        pieces = [prompt, *(f" {word}" for word in reply.split())]
        samples.append(
            {
                "sample": name,
                "unit": units[index] if units else name,
                "cluster": prompt,
                "text": "".join(pieces),
                "token_ids": list(range(len(pieces))),
                "pieces": pieces,
                "spans": [{"name": "generation", "start": 1, "end": len(pieces)}],
                "prompt_hash": prompt,
                "bos": False,
            }
        )
        positions = np.flatnonzero(dense[index])
        entry = {"features": positions.tolist(), "values": dense[index, positions].tolist()}
        fired.append({"space": "s1", "sample": name, "position": 0, **entry})
    made = {
        "samples": samples,
        "activations": fired,
        "spaces": [{**SPACE, "width": dense.shape[1]}],
    }
    return {
        name: pa.Table.from_pylist(rows, schema=arrow_schema(name)) for name, rows in made.items()
    }


def run(
    part: str, tables: Mapping[str, pa.Table], *, seed: int = 0, **params: Any
) -> dict[str, list[dict[str, Any]]]:
    """What a stage writes, by table."""
    stage = PARTS[part]
    result: dict[str, list[dict[str, Any]]] = {}
    for name, rows in stage.run(make_work(stage.params(**params), tables, seed=seed)):
        result.setdefault(name, []).extend(rows.to_pylist())
    return result


def word_rows(
    tables: Mapping[str, pa.Table], method: str = "log_odds", **params: Any
) -> dict[tuple[int, str], dict[str, Any]]:
    """Rows of `feature_words` by feature and word."""
    result = run("words.replies", tables, **params)["feature_words"]
    return {(row["feature"], row["word"]): row for row in result if row["method"] == method}
