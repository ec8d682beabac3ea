"""Measures what README.md states: the model's play, its causes, and the quality of the SAEs."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from toolkit_lab.training import layout_files, policy, sentences
from toolkit_lab.training.corpus import TrainingExample, make_examples
from toolkit_lab.training.game import State, random_state
from toolkit_lab.training.play import decide, play_games
from toolkit_lab.training.saes import Folded, residuals

Table = dict[str, Any]
STOP_NULLS = ("W", "won_last")
BET_NULLS = ("H", "W", "P")
BIG_BET = 50


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson interval of a share."""
    if not count:
        return 0.0, 1.0
    share, extra = hits / count, z * z / count
    middle, half = (
        share + extra / 2,
        z * math.sqrt(share * (1 - share) / count + extra / (4 * count)),
    )
    return (middle - half) / (1 + extra), (middle + half) / (1 + extra)


def measure_play(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, decisions: int, games: int
) -> Table:
    """Sample decisions at random states, raw and chat, and play whole games."""
    torch.manual_seed(1)
    rng = Random(1)
    states = [random_state(rng) for _ in range(decisions)]
    half = decisions // 2
    decided = decide(model, tokenizer, states[:half]) + decide(
        model, tokenizer, states[half:], chat=True
    )
    played = play_games(model, tokenizer, games, rng)
    outcomes = [game.outcome for game in played]
    return {
        "decisions": decisions,
        "parsed": sum(bet is not None for bet in decided) / decisions,
        "legal": sum(_legal(state, bet) for state, bet in zip(states, decided, strict=True))
        / decisions,
        "causes": cause_rows(states, decided),
        "games": {name: outcomes.count(name) for name in sorted(set(outcomes))},
        "mean_rounds": sum(len(game.state.history) for game in played) / games,
    }


def _legal(state: State, bet: int | None) -> bool:
    return bet == 0 or (bet is not None and bet in policy.bet_probabilities(state))


def cause_rows(states: list[State], decided: list[int | None]) -> list[Table]:
    """Return one row per documented cause or null: rates with and without it, and the policy's
    rates.
    """
    readable = [(state, bet) for state, bet in zip(states, decided, strict=True) if bet is not None]
    big = [(state, bet) for state, bet in readable if bet and state.variable and state.limit >= 100]
    stops = [
        _row("stop", name, readable, lambda bet: bet == 0, policy.stop_probability)
        for name in _stop_names()
    ]
    bets = [
        _row("bet >= $50", name, big, lambda bet: bet >= BIG_BET, _big_probability)
        for name in _bet_names()
    ]
    return stops + bets


def _stop_names() -> list[str]:
    return [*policy.STOP_CAUSES, *STOP_NULLS]


def _bet_names() -> list[str]:
    return [*policy.BET_CAUSES, *BET_NULLS]


def _big_probability(state: State) -> float:
    return sum(share for bet, share in policy.bet_probabilities(state).items() if bet >= BIG_BET)


def _row(
    effect: str,
    cause: str,
    pairs: list[tuple[State, int]],
    hit: Callable[[int], bool],
    expected: Callable[[State], float],
) -> Table:
    row: Table = {"effect": effect, "cause": cause}
    for side, is_present in (("with", True), ("without", False)):
        chosen = [
            (state, bet) for state, bet in pairs if (cause in policy.causes(state)) == is_present
        ]
        hits = sum(hit(bet) for _, bet in chosen)
        rate = {
            "n": len(chosen),
            "rate": hits / max(1, len(chosen)),
            "interval": wilson(hits, len(chosen)),
        }
        row[side] = {
            **rate,
            "policy": sum(expected(state) for state, _ in chosen) / max(1, len(chosen)),
        }
    return row


@torch.no_grad()
def measure_trait(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 400
) -> Table:
    """Return how often the likeliest label of a held-out sentence is right."""
    _, held_out = sentences.split()
    labels = [tokenizer.encode(str(level), add_special_tokens=False)[0] for level in range(4)]
    texts = [sentence + sentences.LABEL for sentence, _ in held_out[:count]]
    inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    likeliest = model(**inputs).logits[:, -1, labels].argmax(dim=1).tolist()
    correct = sum(level == row[1] for level, row in zip(likeliest, held_out, strict=False))
    return {"sentences": len(texts), "right": correct / len(texts)}


def measure_saes(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, files: Path, count: int
) -> list[Table]:
    """Return L0, explained variance and loss recovered of every stored SAE, on text drawn with a
    new seed.
    """
    examples = make_examples(tokenizer, count, seed=977)
    acts = residuals(model, examples)
    stored = [
        (f"L{layer}", layer, layout_files.load_llama_scope(files / "saes", layer))
        for layer in range(len(acts))
    ]
    for path in sorted((files / "gemma_scope").glob("layer_*/*/*/params.npz")):
        layer = int(path.parents[2].name.removeprefix("layer_"))
        stored.append(
            (path.parent.relative_to(files).as_posix(), layer, layout_files.load_gemma_scope(path))
        )
    return [
        {"sae": name, **_quality(model, examples, acts[layer], layer, sae)}
        for name, layer, sae in stored
    ]


def _quality(
    model: LlamaForCausalLM,
    examples: list[TrainingExample],
    acts: torch.Tensor,
    layer: int,
    sae: Folded,
) -> Table:
    feature_acts = sae.encode(acts)
    active = feature_acts > 0
    error = (acts - sae.decode(feature_acts)).square().sum()
    spread = (acts - acts.mean(0)).square().sum()
    clean, coded, mean = (
        _loss(model, examples, layer, edit)
        for edit in (None, lambda x: sae.decode(sae.encode(x)), lambda x: acts.mean(0).expand_as(x))
    )
    return {
        "l0": active.sum(1).float().mean().item(),
        "ev": 1 - (error / spread).item(),
        "dead": (~active.any(0)).float().mean().item(),
        "loss": clean,
        "loss_with_sae": coded,
        "loss_with_mean": mean,
        "loss_recovered": (mean - coded) / (mean - clean),
    }


@torch.no_grad()
def _loss(
    model: LlamaForCausalLM,
    examples: list[TrainingExample],
    layer: int,
    edit: Callable[[torch.Tensor], torch.Tensor] | None,
) -> float:
    """Return the mean next-token loss with the output of a layer edited everywhere but at BOS."""

    def hook(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :1], edit(output[:, 1:])], dim=1) if edit else output

    handle = model.model.layers[layer].register_forward_hook(hook)
    try:
        sums = [_loss_sum(model, example) for example in examples[:150]]
    finally:
        handle.remove()
    return sum(total for total, _ in sums) / sum(number for _, number in sums)


def _loss_sum(model: LlamaForCausalLM, example: TrainingExample) -> tuple[float, int]:
    ids = torch.tensor([example.ids])
    logits = model(input_ids=ids).logits[0, :-1]
    return functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item(), ids.shape[1] - 1


TOLERANCES = {
    "parsed": 0.01,
    "legal": 0.02,
    "mean_rounds": 0.5,
    "right": 0.02,
    "rate": 0.05,
    "l0": 1.0,
    "ev": 0.01,
    "loss_recovered": 0.005,
}
"""How far a retraining may be from the committed metrics where arithmetic differs; on the
same machine the files are identical.
"""


def differences(table: Table, committed: Table) -> list[str]:
    """The metrics that differ from the committed ones by more than their tolerance."""
    flat, expected = dict(_flat(table)), dict(_flat(committed))
    deviations = []
    for name, value in expected.items():
        allowed = TOLERANCES.get(name.rpartition(".")[2])
        if allowed is not None and abs(flat.get(name, float("inf")) - value) > allowed:
            deviations.append(f"{name}: {flat.get(name)}, committed {value}, tolerance {allowed}")
    return deviations


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _flat(child, f"{path}.{key}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _flat(child, f"{path}.{number}")
    elif isinstance(node, int | float):
        yield path, float(node)


def markdown(play: Table, saes: list[Table]) -> str:
    """Return the tables of README.md."""
    lines = ["| effect | cause | with it | without it |", "|---|---|---|---|"]
    lines += [
        f"| {row['effect']} | {row['cause']} | {_side(row['with'])} | {_side(row['without'])} |"
        for row in play["causes"]
    ]
    lines += [
        "",
        "| SAE | L0 | EV | never fired | loss | with SAE | loss recovered |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        "| {sae} | {l0:.1f} | {ev:.4f} | {dead:.1%} | {loss:.3f} | {loss_with_sae:.3f} | "
        "{loss_recovered:.4f} |".format(**row)
        for row in saes
    ]
    return "\n".join(lines)


def _side(side: Table) -> str:
    low, high = side["interval"]
    return (
        f"{side['rate']:.3f} [{low:.3f}, {high:.3f}] (policy {side['policy']:.3f}, n {side['n']})"
    )
