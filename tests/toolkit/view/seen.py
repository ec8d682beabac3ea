"""A small store with something on every page of the explorer, hostile texts among it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.toolkit.query.asked import STAGES, commit, compared, effect, fired, space, stat, text
from toolkit_store import Store, open_store

EVIL = "<script>document.title='owned'</script>"
TURNED = "\u202edesrever \x1b[31m"
GROUPS = {"name": "", "samples": 3, "units": 3, "prompts": 3, "clusters": 3}
SAMPLES = [
    text("a1", f"The balance {EVIL} is $10", ["The", " balance", f" {EVIL}", " is", " $10"]),
    text("a2", f"Stop{TURNED} now", ["Stop", TURNED, " now"]),
    text("a/3?x=1&y", "odd name", ["odd", " name"]),
]
FIRED = [
    *(fired("s1", "a1", at, f5=at + 1.0, f7=0.5) for at in range(5)),
    fired("s1", "a2", 1, f5=2.0),
    fired("s1", "a/3?x=1&y", 0, f5=1.5),
    *(fired("s2", "a1", at, f6=0.25) for at in range(5)),
]
SPACES = [space("s1", 2, "sparse"), space("s2", 9, "thin")]
CONTRAST = "lost vs won"
FEATURES = [
    {**row, "comparison": "c1"}
    for feature, d, q in ((5, 0.75, 0.01), (7, -1.25, 0.001), (8, 0.1, 0.9))
    for row in compared(feature, d, q, q < 0.05)
]
LABELS = [
    stat(5, "label", "", None, f"money and balances {EVIL}"),
    stat(7, "label", "", None, "stopping early"),
]
EFFECTS = [
    {**effect(5, "*", "set:lost", 0.25, 0.001), "low": 0.1, "high": 0.4},
    {**effect(5, "*", "sham", 0.0, 0.9), "low": -0.01, "high": 0.01},
    {**effect(5, "*", f"{EVIL}\x1b\u202e", -0.1, 0.5), "low": -0.2, "high": 0.1},
]
VERDICTS = [
    {
        "space": "s1",
        "feature": 5,
        "comparison": "c1",
        "screen": "",
        "contrast": CONTRAST,
        "outcome": "stop",
        "verdict": "causal",
        "reason": "more than random directions",
        "effect": 0.25,
        "low": 0.1,
        "high": 0.4,
        "p": 0.0001,
        "q": 0.001,
        "family": 3,
    }
]
COMPARISONS = [
    {
        "comparison": "c1",
        "part": "compare.welch",
        "test": "welch",
        "by": "outcome",
        "effect": "d",
        "groups": [
            {**GROUPS, "name": name, "not_measured": 0, "shared": 0} for name in ("lost", "won")
        ],
        "half": "all",
        "positions": "last",
        "unit": "unit",
        "cluster": "prompt",
        "family": "declared",
        "tested": [{"space": "s1", "address": "m/gpt/resid_post.2/sparse", "features": 3}],
        "min_count": 1,
        "min_density": 0.0,
        "correction": "bh",
        "alpha": 0.05,
        "min_effect": 0.3,
        "adjusted": "",
    }
]
PROMOTED = [
    {
        "space": "s1",
        "feature": 5,
        "method": "unembedding",
        "promoted": [1, 2],
        "promoted_pieces": [" dollars", EVIL],
        "promoted_values": [2.5, 1.5],
        "suppressed": [3],
        "suppressed_pieces": [" zero"],
        "suppressed_values": [-1.0],
    }
]
WORDS = [
    {
        "space": "s1",
        "feature": 5,
        "method": "log_odds",
        "word": "jackpot",
        "value": 1.5,
        "z": 3.0,
        "p": 0.001,
        "q": 0.01,
        "high": 3.0,
        "low": 1.0,
        "high_clusters": 3,
        "low_clusters": 1,
        "confirm_value": 1.0,
        "confirm_z": 2.0,
        "confirm_p": 0.02,
        "confirm_q": 0.04,
        "family": 10,
        "verdict": "confirmed",
    }
]
GAMES = [
    {
        "game": "g1",
        "condition": "fixed",
        "repetition": 0,
        "outcome": "voluntary_stop",
        "rounds": 2,
        "final_balance": 120.0,
        "total_bet": 10.0,
        "meta": "{}",
    }
]
GAMES += [GAMES[0] | {"game": "g2", "outcome": "bankruptcy"}, GAMES[0] | {"game": "g3"}]


def _round(number: int, reply: str, parse: str, action: str) -> dict[str, Any]:
    return {
        "game": "g1",
        "round": number,
        "attempt": 0,
        "prompt": f"Round {number} {EVIL}",
        "prompt_hash": "h",
        "spans": [],
        "state": "{}",
        "state_hash": "h",
        "numbers": "{}",
        "reply": reply,
        "reply_ids": [1],
        "close_draws": 0,
        "finish": "stop",
        "parse": parse,
        "action": action,
        "asked": 10.0,
        "bet": 10.0,
        "balance_before": 100.0,
        "balance_after": 120.0,
        "won": True,
    }


ROUNDS = [_round(1, f"Bet $10 {EVIL}", "ok", "bet"), _round(2, "Stop", "ok", "stop")]
ATTENTION = [
    {
        "model": "m/gpt",
        "sample": "a1",
        "layer": 2,
        "head": head,
        "query": 4,
        "keys": None,
        "weights": [0.1, 0.2, 0.3, 0.2, 0.2],
        "rest": 0.0,
    }
    for head in (0, 1)
]
ATTRIBUTIONS = [
    {
        "sample": "a1",
        "against": "a2",
        "outcome": "stop",
        "method": "gradient",
        "part": "token",
        "layer": 2,
        "position": at,
        "head": None,
        "space": "s2" if at == 3 else None,
        "feature": None,
        "value": at / 10 - 0.2,
        "exact": None,
    }
    for at in range(5)
]


def make(folder: Path) -> Path:
    """The store: a finished run, another of the same steps, and one that goes on."""
    store = open_store(folder, create=True)
    with store.writer():
        commit(store, "k1", "prompts", "full-1", {"samples": SAMPLES})
        commit(store, "k2", "extract", "full-1", {"activations": FIRED, "spaces": SPACES})
        commit(
            store,
            "k3",
            "groups",
            "full-1",
            {"features": [*FEATURES, *LABELS], "comparisons": COMPARISONS},
        )
        commit(store, "k4", "cause", "full-1", {"effects": EFFECTS, "verdicts": VERDICTS})
        commit(
            store,
            "k5",
            "words",
            "full-1",
            {"feature_words": WORDS, "promoted_tokens": PROMOTED},
        )
        commit(store, "k6", "play", "full-1", {"games": GAMES, "rounds": ROUNDS})
        commit(
            store,
            "k7",
            "tokens",
            "full-1",
            {"attention": ATTENTION, "attributions": ATTRIBUTIONS},
        )
        commit(store, "k8", "extract", "other-1", {"activations": FIRED[:3], "spaces": SPACES})
        _begin(store, "other-1", "2026-01-01", "done", ["k1", "k8"])
        _begin(store, "part-1", "2026-01-02", "running", ["k1", "k2"])
        _begin(store, "full-1", "2026-01-03", "done", [f"k{number}" for number in range(1, 8)])
        store.index(["k1", "k2"], run="full-1")
    return folder


def _begin(store: Store, run: str, at: str, state: str, steps: list[str]) -> None:
    store.record_run(run=run, name=run, state=state, at=at, done=len(steps), total=7, steps=steps)
    folder = store.folder / "runs" / run
    folder.mkdir(parents=True)
    manifest = {
        "run": run,
        "name": run,
        "spec": {"name": run, "question": f"What moves it? {EVIL}", "stages": []},
        "stages": STAGES,
        "command": f"toolkit run {run}",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    started = {"event": "run_started", "at": at, "run": run, "stages": 4, "log": "log.txt"}
    (folder / "events.jsonl").write_text(json.dumps(started) + "\n")
    (folder / "report.html").write_text(f"<!doctype html><title>report of {run}</title>")
