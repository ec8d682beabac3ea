"""False positives and power of causal screens where the truth is known.

    python benchmarks/planted_nulls.py [--sets 200] [--first 0] [--tiny]

Null screens of a planted model: decoder rows shuffled among features, random decoder rows, and
candidates that are inert by construction. A screen counts as false if it calls any feature causal.
Power: the planted causes among the candidates of untouched screens.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from toolkit.saes import Sae, space_id
from toolkit.statistics.randomness import generator
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit.testing.planted import build_planted, prompts

ALPHA = 0.05
OUTCOMES = {"stop": [" stop"], "bet": [" bet"]}
PROMPTS, POINTS, TOP = 240, 40, 16


@dataclass(frozen=True)
class World:
    """A planted model with its SAEs, labelled prompts, and a comparison of half of them."""

    planted: Any
    model: Any
    saes: Sequence[Sae]
    tables: Mapping[str, pa.Table]

    def truth(self, space: str, feature: int) -> Any:
        """What was planted as this feature."""
        sae = next(one for one in self.saes if space_id(self.model.identity, one) == space)
        known = next(one for one in self.planted.truth.saes if one.name == sae.name)
        return known.features[feature]


class Redecoded(Sae):
    """An SAE with other decoder rows: it fires as before, and its edits go elsewhere."""

    def __init__(self, sae: Sae, rows: torch.Tensor) -> None:
        self._sae, self._rows = sae, rows
        for name in ("name", "hookpoint", "release", "width", "inputs", "digest", "recipe"):
            setattr(self, name, getattr(sae, name))
        self.pointwise = sae.pointwise

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return self._sae.encode(rows)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return self._sae.decode(activations)

    def decoder_rows(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._rows[torch.as_tensor(features, dtype=torch.long)]

    def encoder_columns(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._sae.encoder_columns(features)

    def encoder_bias(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._sae.encoder_bias(features)

    def thresholds(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._sae.thresholds(features)


def build_world(folder: Path) -> World:
    """The planted model, its prompts by cause, their activations and the comparison."""
    from toolkit._plugins.loading import load_parts

    parts, planted = load_parts([]), build_planted(folder)
    loader, adapter = parts.get("model", "huggingface"), parts.get("sae", "llama_scope")
    model = loader.load(loader.params(path=str(planted.model)), SilentReporter())
    saes = adapter.load(adapter.params(path=str(planted.llama_scope)), SilentReporter())
    tables = _labelled(planted, model)
    for name, params in (
        ("extract.activations", {}),
        ("compare.welch", {"by": "cause", "between": ["yes", "no"], "half": "select"}),
    ):
        tables |= run_part(parts.get("stage", name), params, tables, model, saes)
    return World(planted, model, saes, tables)


def _labelled(planted: Any, model: Any) -> dict[str, pa.Table]:
    samples, meta = [], []
    for number, prompt in enumerate(prompts(planted, PROMPTS)):
        tokens, name = model.tokenise(prompt.text), f"s{number:04d}"
        facts = {"unit": name, "cluster": name, "prompt_hash": name, "spans": []}
        words = {"text": tokens.text, "token_ids": list(tokens.ids), "pieces": list(tokens.pieces)}
        samples.append({"sample": name, **facts, **words})
        label = "yes" if prompt.cause else "no"
        meta.append({"sample": name, "key": "cause", "number": None, "string": label})
    rows = {"samples": samples, "sample_meta": meta}
    return {
        name: pa.Table.from_pylist(given, schema=arrow_schema(name)) for name, given in rows.items()
    }


def run_part(
    part: Any,
    params: Mapping[str, Any],
    tables: Mapping[str, pa.Table],
    model: Any,
    saes: Any,
    seed: int = 0,
) -> dict[str, pa.Table]:
    """The tables that one part writes."""
    work = make_work(part.params.model_validate(params), tables, model=model, saes=saes, seed=seed)
    written: dict[str, list[pa.Table]] = {}
    for name, rows in part.run(work):
        written.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(rows) for name, rows in written.items()}


def screen(world: World, saes: Sequence[Sae], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Verdicts of one screen."""
    from toolkit._plugins.loading import load_parts

    parts = load_parts([])
    given = {"outcomes": OUTCOMES, "points": POINTS, "arms": [], **params}
    tables = {
        **world.tables,
        **run_part(parts.get("stage", "patch.delta"), given, world.tables, world.model, saes),
    }
    judged = run_part(parts.get("stage", "patch.verdicts"), {}, tables, None, None)
    return judged["verdicts"].to_pylist()


# --- null screens ---------------------------------------------------------------------------------


def shuffled(world: World, number: int) -> tuple[Sequence[Sae], Mapping[str, Any]]:
    """Every feature gets the decoder row of a feature drawn at random from its own SAE."""

    def rows(sae: Sae) -> torch.Tensor:
        order = generator(number, "planted.shuffled", sae.name).permutation(sae.width)
        return sae.decoder_rows(order.tolist())

    return [Redecoded(sae, rows(sae)) for sae in world.saes], {"candidates": {"top": TOP}}


def random_rows(world: World, number: int) -> tuple[Sequence[Sae], Mapping[str, Any]]:
    """Every feature gets a random direction for its decoder row."""

    def rows(sae: Sae) -> torch.Tensor:
        drawn = generator(number, "planted.random", sae.name).standard_normal(
            (sae.width, sae.inputs)
        )
        return torch.nn.functional.normalize(torch.from_numpy(drawn).float(), dim=1)

    return [Redecoded(sae, rows(sae)) for sae in world.saes], {"candidates": {"top": TOP}}


def inert(world: World, number: int) -> tuple[Sequence[Sae], Mapping[str, Any]]:
    """Candidates drawn at random among features that move nothing, with their own decoder rows."""
    spaces = {space_id(world.model.identity, sae): sae for sae in world.saes}
    fired = [
        (row["space"], row["feature"])
        for row in world.tables["features"].to_pylist()
        if row["stat"] == "d" and row["number"] is not None
    ]
    nothing = [key for key in fired if world.truth(*key).role != "causal"]
    drawn = generator(number, "planted.inert").choice(len(nothing), size=TOP, replace=False)
    named = [
        f"{spaces[space].layer}/{feature}" for space, feature in (nothing[one] for one in drawn)
    ]
    return world.saes, {"candidates": {"features": named}}


KINDS: dict[str, Callable[[World, int], tuple[Sequence[Sae], Mapping[str, Any]]]] = {
    "shuffled decoder rows": shuffled,
    "random decoder rows": random_rows,
    "inert features": inert,
}


def null_screens(world: World, sets: int, first: int = 0) -> Iterator[tuple[str, bool, int]]:
    """(kind, whether any feature was called causal, how many were screened) of each null screen,
    numbered from `first`.
    """
    for number in range(first, first + sets):
        kind = list(KINDS)[number % len(KINDS)]
        saes, params = KINDS[kind](world, number)
        verdicts = screen(world, saes, params)
        yield kind, any(row["verdict"] == "causal" for row in verdicts), len(verdicts)


def power(world: World, screens: int) -> tuple[int, int, int]:
    """(planted causes found, planted causes tried, others called causal) in untouched screens."""
    found = tried = others = 0
    for number in range(screens):
        verdicts = screen(world, world.saes, {"candidates": {"top": TOP + number}})
        for row in verdicts:
            causal = row["verdict"] == "causal"
            planted = world.truth(row["space"], row["feature"]).role == "causal"
            found, tried = found + (causal and planted), tried + planted
            others += causal and not planted
    return found, tried, others


def limit(sets: int) -> float:
    """Alpha and two standard errors."""
    return ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / sets)


def main(arguments: list[str] | None = None) -> int:
    """Print both and say whether the limit holds."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sets", type=int, default=200, help="null screens")
    options.add_argument("--first", type=int, default=0, help="number of the first null screen")
    options.add_argument("--tiny", action="store_true", help="6 null screens, for tests")
    given = options.parse_args(arguments)
    sets = 6 if given.tiny else given.sets
    with tempfile.TemporaryDirectory() as folder:
        world = build_world(Path(folder))
        results = list(null_screens(world, sets, given.first))
        found, tried, others = power(world, 1 if given.tiny else 8)
    for kind in KINDS:
        own = [wrong for name, wrong, _ in results if name == kind]
        print(f"{kind}: {sum(own)} of {len(own)} null screens call a feature causal")
    share = float(np.mean([wrong for _, wrong, _ in results]))
    print(f"all: {share:.3f} of {sets} null screens (at most {limit(sets):.3f} allowed)")
    print(f"power: {found} of {tried} planted causes found; {others} others called causal")
    return 0 if share <= limit(sets) else 1


if __name__ == "__main__":
    raise SystemExit(main())
