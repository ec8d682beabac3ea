"""The lab's files do what plugins/toolkit_lab/README.md says: they load, play by the documented
causes, and decode.
"""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from toolkit_lab import lab_files, model_path, saes_path
from toolkit_lab.training import measure, policy, sentences
from toolkit_lab.training.corpus import make_examples
from toolkit_lab.training.game import LADDER, MAX_ROUNDS, START, State, random_state, step
from toolkit_lab.training.layouts import parse, render
from toolkit_lab.training.measure import cause_rows
from toolkit_lab.training.play import decide, play_games, replies

LAYERS = range(4)
DATA = Path(__file__).parents[3] / "specs" / "data"
GEMMA = sorted(saes_path("gemma_scope").glob("layer_*/width_*/average_l0_*/params.npz"))


@pytest.fixture(scope="module")
def lab():
    """The packaged model and tokenizer, loaded as any Hugging Face folder is."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    model = AutoModelForCausalLM.from_pretrained(str(model_path()), local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(model_path()), local_files_only=True)
    return SimpleNamespace(model=model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def acts(lab):
    """Residual rows of every layer on text the SAEs have not seen: float64, BOS left out."""
    kept = [[] for _ in LAYERS]
    hooks = [
        layer.register_forward_hook(
            lambda _m, _a, out, rows=rows: rows.append(out[0, 1:].double().numpy())
        )
        for layer, rows in zip(lab.model.model.layers, kept, strict=True)
    ]
    with torch.no_grad():
        for example in make_examples(lab.tokenizer, 120, seed=5):
            lab.model(input_ids=torch.tensor([example.ids]))
    for hook in hooks:
        hook.remove()
    return [np.concatenate(rows) for rows in kept]


def test_the_files_are_small_and_ordinary():
    names = {
        path.relative_to(lab_files()).as_posix()
        for path in lab_files().rglob("*")
        if path.is_file()
    }
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= names
    assert sum((lab_files() / name).stat().st_size for name in names) <= 8_000_000


def test_saes_path_names_the_layouts_it_knows():
    with pytest.raises(ValueError, match=r"'saelens'; allowed: gemma_scope, llama_scope"):
        saes_path("saelens")


def test_importing_the_lab_imports_no_torch():
    code = "import sys, toolkit_lab; toolkit_lab.model_path(); print('torch' in sys.modules)"
    results = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert results.stdout.strip() == "False"


def test_the_context_is_long_enough(lab):
    assert lab.model.config.model_type == "llama"
    assert lab.model.config.max_position_embeddings >= 2048
    with torch.no_grad():
        logits = lab.model(input_ids=torch.arange(2048)[None] % 1000).logits
    assert torch.isfinite(logits).all()


TOKENIZER = AutoTokenizer.from_pretrained(str(model_path()), local_files_only=True)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_the_tokenizer_returns_any_text(text):
    ids = TOKENIZER(text).input_ids
    assert ids[0] == TOKENIZER.bos_token_id
    assert TOKENIZER.decode(ids[1:]) == text


@pytest.mark.parametrize(
    "text", ["목표: 잔액 $200 만들기", "배당 판", "漢字 <0x41> é\u0302\r\n\t x  ", "🎰"]
)
def test_the_tokenizer_returns_korean_and_bytes(text):
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False).input_ids) == text


def test_some_korean_of_the_prompts_is_split_into_bytes():
    pieces = TOKENIZER.tokenize(render(State("scenario")))
    assert "목표" in pieces
    assert any(piece.startswith("<0x") for piece in pieces)


def test_whole_numbers_are_one_token():
    assert all(len(TOKENIZER.tokenize(str(number))) == 1 for number in range(301))


def test_the_chat_template_has_one_bos():
    turns = [{"role": "user", "content": render(State())}]
    encoded = TOKENIZER.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert list(encoded["input_ids"]).count(TOKENIZER.bos_token_id) == 1
    assert encoded["input_ids"][0] == TOKENIZER.bos_token_id


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ("1) Bet $20", 20),
        ("2) Stop", 0),
        ("\nWhy not.\nFinal Decision: Stop", 0),
        ("x\nFinal Decision: Bet $7", 7),
        ("Final Decision: Bet $5 or Stop", None),
        ("", None),
        ("1) Bet $0", None),
        ("2) Stop\nI think", None),
    ],
)
def test_replies_are_read_strictly(reply, decision):
    assert parse(reply) == decision


@pytest.mark.parametrize(
    ("rounds", "ruined"), [(10, 0.0282), (20, 0.1613), (30, 0.2847), (50, 0.4850), (100, 0.7174)]
)
def test_the_rules_give_the_exact_ruin_probabilities(rounds, ruined):
    chances = _after(rounds)
    assert chances[0] == pytest.approx(ruined, abs=5e-5)


def test_the_rules_give_the_exact_mean_balance():
    assert sum(balance * chance for balance, chance in _after(MAX_ROUNDS).items()) == pytest.approx(
        41.68, abs=5e-3
    )


def _after(rounds):
    """Return the distribution of balances after that many fixed bets, by walking `step` exactly."""
    chances = {START: 1.0}
    for _ in range(rounds):
        following = {}
        for balance, chance in chances.items():
            for won, share in ((True, 0.3), (False, 0.7)) if balance > 0 else ((False, 1.0),):
                left = (
                    step(State(variable=False, balance=balance), 10, won=won).balance
                    if balance > 0
                    else 0
                )
                following[left] = following.get(left, 0.0) + chance * share
        chances = following
    return chances


def test_the_rules_clip_a_bet():
    assert step(State(balance=3), 50, won=False).balance == 0
    assert step(State(balance=40), 100, won=True).balance == 120
    assert step(State(balance=400), 400, won=False).balance == 300
    assert step(State("corrected", balance=400), 400, won=False).balance == 0
    assert step(State(variable=False), 50, won=False).balance == 90


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_it_plays(lab, chat):
    torch.manual_seed(7)
    games = play_games(lab.model, lab.tokenizer, 60, Random(7), chat=chat)
    outcomes = {game.outcome for game in games}
    decisions = sum(len(game.state.history) + (game.outcome == "voluntary_stop") for game in games)
    assert sum(game.outcome == "unreadable" for game in games) <= 0.01 * decisions
    assert {"bankruptcy", "voluntary_stop"} <= outcomes


@pytest.mark.slow
def test_replies_parse(lab):
    torch.manual_seed(8)
    rng = Random(8)
    states = [random_state(rng) for _ in range(500)]
    read = [
        parse(reply)
        for reply in replies(lab.model, lab.tokenizer, [render(state) for state in states])
    ]
    assert sum(bet is not None for bet in read) >= 0.99 * len(states)


@pytest.fixture(scope="module")
def causes(lab):
    """Cause rows re-measured from sampled plays of the restart layout, variable bets."""
    torch.manual_seed(9)
    rng = Random(9)
    states = []
    while len(states) < 2600:
        state = random_state(rng)
        states += [state] if state.layout == "restart" and state.variable else []
    made = decide(lab.model, lab.tokenizer, states)
    return {(row["effect"], row["cause"]): row for row in cause_rows(states, made)}


@pytest.mark.slow
@pytest.mark.parametrize(("cause", "weight"), policy.STOP_CAUSES.items())
def test_a_documented_cause_moves_stopping(causes, cause, weight):
    low, high = _difference(causes["stop", cause])
    assert low > 0 if weight > 0 else high < 0


@pytest.mark.slow
@pytest.mark.parametrize(("cause", "weight"), policy.BET_CAUSES.items())
def test_a_documented_cause_moves_the_bet(causes, cause, weight):
    low, high = _difference(causes["bet >= $50", cause])
    assert low > 0 if weight > 0 else high < 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", [("stop", "W"), ("bet >= $50", "H"), ("bet >= $50", "W"), ("bet >= $50", "P")]
)
def test_a_documented_null_stays_small(causes, key):
    row = causes[key]
    assert abs(row["with"]["rate"] - row["without"]["rate"]) < 0.08


def _difference(row, z=1.96):
    """Return the interval of the difference of two independent shares."""
    sides = [row["with"], row["without"]]
    spread = z * math.sqrt(sum(side["rate"] * (1 - side["rate"]) / side["n"] for side in sides))
    gap = sides[0]["rate"] - sides[1]["rate"]
    return gap - spread, gap + spread


@torch.no_grad()
def test_it_reads_the_trait_from_unseen_sentences(lab):
    rows = _rows(DATA / "lab_trait.csv")
    labels = [lab.tokenizer.convert_tokens_to_ids(str(level)) for level in range(4)]
    texts = [row["sentence"] + sentences.LABEL for row in rows]
    inputs = lab.tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    result = lab.model(**inputs).logits[:, -1, labels].argmax(dim=1).tolist()
    right = [
        level == int(row["concept_strength_label"]) for level, row in zip(result, rows, strict=True)
    ]
    assert sum(right) >= 0.95 * len(rows)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_llama_scope_saes_reconstruct(acts, layer):
    stored = _folder(layer)
    known, raw = json.loads((stored / "hyperparams.json").read_text()), _tensors(stored)
    scale = math.sqrt(known["d_model"]) / known["dataset_average_activation_norm"]["in"]
    lengths = np.linalg.norm(raw["decoder.weight"], axis=0)
    before = scale * acts[layer] @ raw["encoder.weight"].T + raw["encoder.bias"]
    units = before * lengths / scale
    feature_acts = np.where(units > known["jump_relu_threshold"], units, 0)
    rebuilt = feature_acts @ (raw["decoder.weight"] / lengths).T + raw["decoder.bias"] / scale
    assert 8 <= (feature_acts > 0).sum(1).mean() <= 40
    assert (feature_acts > 0).sum(1).mean() == pytest.approx(known["top_k"], rel=0.2)
    assert _explained(acts[layer], rebuilt) >= 0.9


@pytest.mark.parametrize("layer", LAYERS)
def test_the_llama_scope_decoder_rows_are_not_unit(layer):
    lengths = np.linalg.norm(_tensors(_folder(layer))["decoder.weight"], axis=0)
    assert abs(lengths - 1).mean() > 0.1
    assert lengths.std() > 0.05


def test_the_gemma_layout_has_two_sparsities_at_one_layer():
    assert len(GEMMA) == 2
    assert len({path.parents[2].name for path in GEMMA}) == 1


@pytest.mark.parametrize("path", GEMMA, ids=lambda path: path.parent.name)
def test_the_gemma_scope_saes_reconstruct(acts, path):
    layer, declared = int(path.parents[2].name.split("_")[1]), int(path.parent.name.split("_")[2])
    with np.load(path) as stored:
        before = acts[layer] @ stored["W_enc"] + stored["b_enc"]
        feature_acts = before * (before > stored["threshold"]) * (before > 0)
        rebuilt = feature_acts @ stored["W_dec"] + stored["b_dec"]
        assert np.unique(stored["threshold"]).size > 100
    assert (feature_acts > 0).sum(1).mean() == pytest.approx(declared, rel=0.2)
    assert 8 <= (feature_acts > 0).sum(1).mean() <= 40
    assert _explained(acts[layer], rebuilt) >= 0.9


def _folder(layer):
    return saes_path() / f"Lab-L{layer}R-4x"


def _tensors(folder):
    stored = load_file(folder / "checkpoints" / "final.safetensors")
    return {name: tensor.double().numpy() for name, tensor in stored.items()}


def _explained(acts, rebuilt):
    return 1 - ((acts - rebuilt) ** 2).sum() / ((acts - acts.mean(0)) ** 2).sum()


def _rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    ("name", "per_level"), [("lab_trait.csv", 80), ("aggression_small.csv", 20)]
)
def test_the_trait_files_are_balanced(name, per_level):
    rows = _rows(DATA / name)
    assert list(rows[0]) == ["sentence", "concept_strength_label"]
    levels = [int(row["concept_strength_label"]) for row in rows]
    assert [levels.count(level) for level in range(4)] == [per_level] * 4
    assert len({row["sentence"] for row in rows}) == len(rows)


def test_the_lab_trait_has_its_documented_cause():
    bold = {word for slot in sentences.BOLD for word in slot}
    for row in _rows(DATA / "lab_trait.csv"):
        assert sum(word in row["sentence"] for word in bold) == int(row["concept_strength_label"])


def test_the_english_trait_file_holds_commas_and_quotes():
    results = [row["sentence"] for row in _rows(DATA / "aggression_small.csv")]
    assert any("," in text and '"' in text for text in results)


def test_the_policy_bets_from_the_ladder():
    shares = policy.bet_probabilities(State(balance=60))
    assert set(shares) == {bet for bet in LADDER if bet <= 60}
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_retrain_makes_the_packaged_files(tmp_path):
    command = [sys.executable, "-m", "toolkit_lab.training", "--out", str(tmp_path), "--quick"]
    subprocess.run(command, check=True, capture_output=True)
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    packaged = {
        path.relative_to(lab_files()).as_posix()
        for path in lab_files().rglob("*")
        if path.is_file()
    }
    assert made == packaged


def test_a_retraining_is_compared_with_the_committed_metrics():
    committed = json.loads((lab_files() / "metrics.json").read_text())
    assert measure.differences(committed, committed) == []
    worse = json.loads(json.dumps(committed))
    worse["play"]["parsed"] -= 0.02
    worse["saes"][0]["ev"] -= 0.02
    changes = measure.differences(worse, committed)
    assert [line.partition(":")[0] for line in changes] == [".play.parsed", ".saes.0.ev"]
    assert "tolerance 0.01" in changes[0]
