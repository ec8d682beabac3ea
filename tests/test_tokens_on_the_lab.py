"""The token specs, whole, on the packaged model, and the questions that their runs answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scripts import load_benchmark
from toolkit.testing.planted import build_planted, prompts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SPECS = Path(__file__).parents[1] / "specs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


def toolkit(folder: Path, *args: str) -> str:
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOOLKIT_STORE": str(folder / "store"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "toolkit", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + ("" if "--json" in args else done.stderr)


def run(folder: Path, name: str, *args: str) -> str:
    lab = ("--overlay", str(SPECS / "lab.yaml"))
    sink = ("--set", f"sinks.published.with.path={folder / name}")
    return toolkit(folder, "run", str(SPECS / f"{name}.yaml"), *lab, *sink, *args)


def asked(folder: Path, run: str, *args: str) -> Any:
    return json.loads(toolkit(folder, "query", *args, "--run", run, "--json"))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """A folder with a run of `exp6_tokens_l1_31` and nothing before it, and the bytes that were
    planned and stored.
    """
    folder = tmp_path_factory.mktemp("tracked")
    lab = ("--overlay", str(SPECS / "lab.yaml"))
    plan = toolkit(folder, "plan", str(SPECS / "exp6_tokens_l1_31.yaml"), *lab, "--json")
    (tokens,) = [stage for stage in json.loads(plan)["stages"] if stage["stage"] == "tokens"]
    run(folder, "exp6_tokens_l1_31")
    return (
        folder,
        tokens["cost"]["disk"],
        load_benchmark("_token_bytes").stored_bytes(folder / "store"),
    )


def test_tracking_writes_the_published_files(tracked: tuple[Path, int, int]) -> None:
    folder, planned, stored = tracked
    assert planned == pytest.approx(stored, rel=0.1)
    out = folder / "exp6_tokens_l1_31"
    with np.load(out / "Bankruptcy_90_all_in" / "layer_2.npz") as result:
        features, attention = result["features"], result["attention"]
    tokens = len(features)
    assert attention.shape == (4, tokens, tokens)
    assert attention.dtype == np.float16
    np.testing.assert_allclose(attention.sum(axis=2, dtype=np.float64), 1, atol=0.02)
    metadata = json.loads((out / "metadata_L0_3.json").read_text(encoding="utf-8"))
    assert (metadata["n_scenarios"], metadata["save_attention"]) == (13, True)
    row = next(row for row in metadata["scenarios"] if row["scenario"] == "Desperate_10")
    (balance,) = [row["tokens"][position] for position in row["key_positions"]["balance"]]
    assert balance.strip() == "10"
    assert {"probability", "choices", "goal"} <= set(row["key_positions"])
    shares = asked(
        folder, "exp6_tokens_l1_31", "attention", "--from", "decision", "--to", "balance",
        "--by", "layer,head",
    )  # fmt: skip
    assert {(row["layer"], row["head"]) for row in shares} <= {
        (layer, head) for layer in range(4) for head in range(4)
    }
    assert 0 < max(row["share"] for row in shares) <= 1
    values = asked(
        folder, "exp6_tokens_l1_31", "feature", "2/7", "--across", "layers", "--at", "last",
        "--k", "100",
    )  # fmt: skip
    assert len(values) == 13 * 4
    assert {row["layer"] for row in values} == {0, 1, 2, 3}


def test_the_json_shares_its_pass(tracked: tuple[Path, int, int]) -> None:
    folder, _, _ = tracked
    output = run(folder, "exp6_tokens")
    assert "stage tokens (track.tokens): 1 step, 1 reused, 0 to compute" in output
    result = json.loads((folder / "exp6_tokens" / "tokens.json").read_text(encoding="utf-8"))
    assert result["n_scenarios"] == 13
    assert set(result["scenarios"][0]["layers"]["L3"]) == {"features", "attention"}


def test_attention_alone_examines_and_opens_no_sae(folder: Path) -> None:
    """The spec names SAEs that fail as soon as anything asks for them."""
    overlay = folder / "closed.yaml"
    overlay.write_text("saes: {uses: closed_saes}", encoding="utf-8")
    closed = Path(__file__).parent / "resources" / "closed_saes_plugin.py"
    output = run(folder, "exp6_attention_only", "--overlay", str(overlay), "--plugin", str(closed))
    assert "examine" not in output
    files = {path.name for path in (folder / "exp6_attention_only" / "Risky_40").iterdir()}
    assert files == {"layer_1.npz", "layer_2.npz", "layer_3.npz"}
    with np.load(folder / "exp6_attention_only" / "Risky_40" / "layer_1.npz") as result:
        assert list(result) == ["attention"]


def test_games_are_tracked_decision_by_decision(folder: Path) -> None:
    """Ten games of those that another spec plays, then all fifty; the games are played once."""
    assert "stage exp1_pathway/play (play.games): 1 step, 0 reused" in run(folder, "exp6_games")
    ten = json.loads((folder / "exp6_games" / "tokens.json").read_text(encoding="utf-8"))
    games = {sample["scenario"].rpartition("/")[0] for sample in ten["scenarios"]}
    assert len(games) == 10
    assert ten["n_scenarios"] > 20
    layers = ten["scenarios"][0]["layers"]
    assert set(layers) == {"L0", "L1", "L2", "L3"}
    assert len(layers["L1"]["attention"][0]) == 1  # the decision's row alone
    report = next((folder / "store" / "runs").glob("exp6_games-*/report.html"))
    assert "Features through a game: " in report.read_text(encoding="utf-8")
    again = run(folder, "exp6_games", "--set", "limit.units=50")
    assert "play (play.games): 1 step, 1 reused" in again
    fifty = json.loads((folder / "exp6_games" / "tokens.json").read_text(encoding="utf-8"))
    all_games = {sample["scenario"].rpartition("/")[0] for sample in fifty["scenarios"]}
    assert len(all_games) == 50
    assert games < all_games
    size = (folder / "exp6_games" / "tokens.json").stat().st_size
    assert size < 200e6


def test_attribution_answers_by_sample_and_layer(folder: Path) -> None:
    output = run(folder, "exp6_attribution")
    assert "stage parts (attribute.tokens): 3 steps" in output
    rows = json.loads(
        toolkit(
            folder, "query", "attribution", "exp6_attribution", "--sample",
            "Initial_100_first_round", "--layer", "2", "--top", "10", "--json",
        )
    )  # fmt: skip
    exact = [row for row in rows if row["method"] == "integrated_gradients"]
    assert [row["rank"] for row in exact] == list(range(1, 11))
    assert exact[0]["importance"] == pytest.approx(exact[0]["exact"], rel=0.1)
    assert exact[0]["against"] == "Initial_100_first_round:balance=10"
    first = rows[0]  # the published table: attention x norm of the features, as shares
    assert first["method"] == "attention_magnitude"
    shares = [row["attention"] * row["norm"] for row in rows if row["method"] == first["method"]]
    ratio = first["importance"] / shares[0]
    published = [row["importance"] for row in rows if row["method"] == first["method"]]
    assert published == pytest.approx([ratio * share for share in shares])
    checks = "select method, part, r, compared from attribution_checks"
    agreed = asked(folder, "exp6_attribution", "sql", checks, "--k", "5000")
    compared = {(row["method"], row["part"]) for row in agreed if row["r"] is not None}
    assert compared == {(row["method"], row["part"]) for row in agreed}
    named = "select * from attributions where method = 'attention_activation_importance'"
    rows = asked(folder, "exp6_attribution", "sql", named, "--k", "5000")
    assert {(row["layer"], row["feature"]) for row in rows} == {(3, 312), (1, 436)}
    assert max(row["value"] for row in rows) > 0
    report = next((folder / "store" / "runs").glob("exp6_attribution-*/report.html"))
    text = report.read_text(encoding="utf-8")
    assert "sum of parts" in text
    assert "completeness, and agreement with exact patching" in text


def test_a_path_is_traced_hop_by_hop(folder: Path) -> None:
    output = run(folder, "trace_decision")
    assert "stage path (trace.path): 2 steps" in output
    rows = asked(folder, "trace_decision", "sql", "select * from paths where sample = '*'")
    assert [row["units"] for row in rows] == [10, 10, 10]
    assert [row["verdict"] for row in rows[:2]] == ["confirmed", "confirmed"]
    assert "2 steps, 2 reused" in run(folder, "trace_decision")


def test_the_spec_finds_the_planted_path_and_no_false_one(folder: Path) -> None:
    """The circuit of the planted model: `losing` -> u -> v -> w -> outcome, each arrow of a known
    size; `echo` fires with it and is read by nothing.
    """
    planted = build_planted(folder / "planted")
    address = {
        name: f"{layer}/{planted.truth.sae('wide', layer).named(name).index}"
        for layer, name in ((2, "w"), (1, "v"), (0, "u"), (1, "echo"))
    }
    texts = [prompt.text for prompt in prompts(planted, 24) if prompt.cause]
    marked = [text.replace("losing", "<span cause>losing</span>") for text in texts]
    for name, through in (("true", ("w", "v", "u")), ("false", ("w", "echo"))):
        with_ = {
            "plus": [" stop"],
            "minus": [" bet"],
            "through": [address[feature] for feature in through],
            "to": {"span": "cause"},
        }
        overlay = {
            "name": f"planted_{name}",
            "model": {"uses": "huggingface", "with": {"path": str(planted.model)}},
            "saes": {"uses": "llama_scope", "with": {"path": str(planted.llama_scope)}},
            "samples": {"uses": "prompts", "with": {"prompts": marked, "marks": True}},
            "stages": [{"id": "path", "with": with_}],
            "sinks": [],
        }
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps(overlay), encoding="utf-8")
        toolkit(folder, "run", str(SPECS / "trace_decision.yaml"), "--overlay", str(file))
    query = "select * from paths where sample = '*'"
    rows = asked(folder, "planted_true", "sql", query)
    assert [row["verdict"] for row in rows] == ["confirmed"] * 4
    for row, size in zip(rows, (planted.truth.effect, 4, 4, 4), strict=True):
        assert row["strength"] == pytest.approx(size, rel=0.1)
        assert row["effect"] == pytest.approx(size, rel=0.1)
        assert row["q"] < 0.05
    first, second, *_ = asked(folder, "planted_false", "sql", query)
    assert first["verdict"] == "confirmed"  # w is of the circuit; echo is not
    assert second["verdict"] == "no strength"
    assert abs(second["strength"]) < 1e-3
    assert abs(second["effect"]) < 1e-3
