"""`words.cross_reference`: what agrees by construction is found, and shuffles are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from tests.plugins.toolkit_words.reply_tables import PARTS, SPACE, run
from toolkit.errors import DataError
from toolkit.features.agreement import agreement
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_words.reference.descriptions import agreements, rank_correlation
from toolkit_words.reference.spans import attention_to

SUBJECTS = ("risk", "money", "caution", "history", "numbers", "winning", "machine", "goal")


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(name))


def label(feature: int, text: str) -> dict[str, Any]:
    row = {"space": "s1", "feature": feature, "stat": "label", "group": "auto", "text": text}
    return {**row, "number": None, "comparison": None}


def tokens(feature: int, pieces: list[str]) -> dict[str, Any]:
    numbers = {"promoted": [0] * len(pieces), "promoted_values": [1.0] * len(pieces)}
    row = {"space": "s1", "feature": feature, "method": "unembedding", "promoted_pieces": pieces}
    return {**row, **numbers, "suppressed": [], "suppressed_pieces": [], "suppressed_values": []}


def word(feature: int, word: str, value: float = 1.0, verdict: str = "confirmed") -> dict[str, Any]:
    schema = arrow_schema("feature_words")
    row: dict[str, Any] = {
        name: 0 if pa.types.is_integer(schema.field(name).type) else 0.5 for name in schema.names
    }
    named = {"space": "s1", "feature": feature, "method": "log_odds", "word": word}
    named["covariate"] = "balance"
    return {**row, **named, "value": value, "verdict": verdict}


def described(shift: int = 0) -> dict[str, pa.Table]:
    """Features with a label, tokens and words about one subject each; labels may be shifted."""
    count = len(SUBJECTS)
    return {
        "spaces": table("spaces", [{**SPACE, "width": 50}]),
        "features": table(
            "features",
            [
                label(index, f"mentions of {SUBJECTS[(index + shift) % count]}")
                for index in range(count)
            ],
        ),
        "promoted_tokens": table(
            "promoted_tokens",
            [tokens(index, [f" {SUBJECTS[index]}", " x1"]) for index in range(count)],
        ),
        "feature_words": table(
            "feature_words", [word(index, SUBJECTS[index]) for index in range(count)]
        ),
    }


def by_relation(result: dict[str, list[dict[str, Any]]]) -> dict[tuple[str, Any], dict[str, Any]]:
    return {(row["relation"], row["feature"]): row for row in result["cross_references"]}


def test_labels_that_are_right_agree_and_shifted_ones_do_not() -> None:
    right = by_relation(run("words.cross_reference", described()))
    wrong = by_relation(run("words.cross_reference", described(shift=3)))
    for relation in ("label~words", "label~tokens", "words~tokens"):
        whole = right[relation, None]
        assert whole["score"] > 0.7
        assert whole["baseline"] < 0.25
        assert whole["p"] <= 0.001
        assert whole["q"] >= whole["p"]
        assert right[relation, 2]["p"] == pytest.approx(1 / len(SUBJECTS))
        assert right[relation, 2]["n"] == len(SUBJECTS)
    assert wrong["label~words", None]["score"] == 0
    assert wrong["label~words", None]["p"] == 1
    assert wrong["label~words", 2]["p"] == 1
    assert wrong["words~tokens", None]["p"] <= 0.001


def test_labels_can_stand_in_the_spec() -> None:
    inputs = {name: rows for name, rows in described().items() if name != "features"}
    labels = {"3/0": "risk of things", "3/1": "machine parts"}
    result = by_relation(run("words.cross_reference", inputs, labels=labels))
    assert result["label~words", 0]["score"] == pytest.approx(1 / 2**0.5)  # risk, thing
    assert result["label~words", 1]["score"] == 0


def test_words_that_were_not_confirmed_or_are_rarer_describe_nothing() -> None:
    inputs = described()
    rows = [word(0, "risk", verdict="not confirmed"), word(1, "money", value=-1.0)]
    results = run(
        "words.cross_reference", {**inputs, "feature_words": table("feature_words", rows)}
    )
    assert {row["relation"] for row in results["cross_references"]} == {"label~tokens"}


def test_agreements_are_those_of_single_pairs() -> None:
    rng = np.random.default_rng(0)
    bags = [
        {
            feature: frozenset(str(word) for word in rng.choice(30, 5, replace=False))
            for feature in range(40)
        }
        for _ in range(2)
    ]
    result = agreements(bags[0], bags[1], rng, 200)
    assert result is not None
    for index, feature in enumerate(result.features):
        values = [agreement(bags[0][feature], bags[1][other]) for other in result.features]
        assert result.score[index] == pytest.approx(values[index])
        others = [value for place, value in enumerate(values) if place != index]
        assert result.baseline[index] == pytest.approx(np.mean(others))
        assert result.p[index] == np.mean([value >= values[index] - 1e-9 for value in values])
    assert result.mean_p > 0.01


# --- effects --------------------------------------------------------------------------------------


def verdicts(effects: list[float]) -> pa.Table:
    schema = arrow_schema("verdicts")
    rows = []
    for feature, effect in enumerate(effects):
        row: dict[str, Any] = {
            name: "x" if pa.types.is_string(schema.field(name).type) else 1 for name in schema.names
        }
        named = {"space": "s1", "feature": feature, "outcome": "stop", "effect": effect}
        rows.append({**row, **named})
    return pa.Table.from_pylist(rows, schema=schema)


def test_labels_are_compared_with_what_patching_did() -> None:
    texts = ["stopping", "careful stopping", "stop", "a bet", "bets", "betting and risk"] * 3
    inputs = {
        **described(),
        "features": table("features", [label(index, text) for index, text in enumerate(texts)]),
    }
    outcomes = {"stop": ("stop", "stopping", "careful"), "bet": ("bet", "betting", "risk")}
    effects = [0.1 if "stop" in text else -0.1 for text in texts]
    agree = run(
        "words.cross_reference", {**inputs, "verdicts": verdicts(effects)}, outcomes=outcomes
    )
    row = by_relation(agree)["label~effect:stop", None]
    assert row["score"] == pytest.approx(1)
    assert row["p"] <= 0.01
    assert row["n"] == len(texts)
    against = run(
        "words.cross_reference",
        {**inputs, "verdicts": verdicts([-effect for effect in effects])},
        outcomes=outcomes,
    )
    assert by_relation(against)["label~effect:stop", None]["score"] == pytest.approx(-1)


def test_rank_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 5, 60).astype(float)
    y = x + rng.normal(size=60) * 3
    result = rank_correlation(x, y, rng, 2000)
    assert result is not None
    expected = stats.spearmanr(x, y)
    assert result.r == pytest.approx(expected.statistic)
    assert result.p == pytest.approx(expected.pvalue, abs=0.02)
    assert rank_correlation(x[:4], y[:4], rng, 20) is None
    assert rank_correlation(np.ones(9), y[:9], rng, 20) is None


# --- spans ----------------------------------------------------------------------------------------


def placed(inside: dict[int, float]) -> dict[str, pa.Table]:
    """Thirty texts of twenty tokens; feature f fires in the span `balance` with probability
    `inside[f]` and outside of it else. Each fires once in a text.
    """
    rng = np.random.default_rng(0)
    samples, fired = [], []
    for text in range(30):
        start = int(rng.integers(2, 15))
        pieces = [f" t{index}" for index in range(20)]
        where: dict[int, dict[int, float]] = {index: {} for index in range(20)}
        for feature, share in inside.items():
            span = [*range(start, start + 3)]
            outside = [index for index in range(20) if index not in span]
            place = int(rng.choice(span if rng.random() < share else outside))
            where[place][feature] = float(1 + rng.random())
        samples.append(
            {
                "sample": f"n{text:02d}",
                "unit": f"n{text:02d}",
                "cluster": f"n{text:02d}",
                "text": "".join(pieces),
                "token_ids": list(range(20)),
                "pieces": pieces,
                "spans": [{"name": "balance", "start": start, "end": start + 3}],
                "prompt_hash": f"n{text:02d}",
                "bos": False,
            }
        )
        fired += [
            {
                "space": "s1",
                "sample": f"n{text:02d}",
                "position": index,
                "features": list(positions),
                "values": list(positions.values()),
            }
            for index, positions in where.items()
        ]
    return {
        **described(),
        "samples": table("samples", samples),
        "activations": table("activations", fired),
    }


def test_a_feature_that_fires_in_a_span_is_told_from_those_that_fire_anywhere() -> None:
    """Of forty that fire anywhere, about one in twenty has p of at most 0.05."""
    anywhere = range(1, 41)
    made = placed({0: 0.95, **dict.fromkeys(anywhere, 3 / 20)})
    inputs = {name: made[name] for name in ("samples", "activations", "spaces")}
    labels = {f"3/{feature}": "something" for feature in range(41)}
    stage = run("words.cross_reference", inputs, labels=labels, permutations=1999)
    result = by_relation(stage)
    there = result["fires in balance", 0]
    assert there["score"] > 0.8
    assert there["baseline"] == pytest.approx(3 / 20, abs=0.03)
    assert there["q"] < 0.05
    assert there["n"] == 30
    assert "15.0% of the positions" in there["text"]
    others = [result["fires in balance", feature] for feature in anywhere]
    assert sum(row["p"] <= 0.05 for row in others) <= 6
    assert not [row for row in others if row["q"] <= 0.05]


def test_equal_prompts_count_once() -> None:
    inputs = placed({0: 0.95})
    rows = inputs["samples"].to_pylist()
    for row in rows:
        row["cluster"] = "one prompt"
    result = by_relation(
        run("words.cross_reference", {**inputs, "samples": table("samples", rows)})
    )
    assert result["fires in balance", 0]["n"] == 1
    assert result["fires in balance", 0]["p"] > 0.05


def test_a_span_that_no_sample_has_is_refused() -> None:
    with pytest.raises(DataError, match=r"no sample has a span 'goal'. Spans: balance"):
        run("words.cross_reference", placed({0: 0.5}), spans=["goal"])


def test_nothing_to_hold_against_anything_is_an_error() -> None:
    with pytest.raises(DataError, match="no feature has a description"):
        run("words.cross_reference", {"spaces": table("spaces", [{**SPACE, "width": 5}])})


def attending(shares: dict[str, float], layer: int = 3, whole: bool = True) -> pa.Table:
    """Rows of `attention` of one query, two heads; the span is where the sample has it."""
    rows = []
    for (name, share), start in zip(shares.items(), STARTS, strict=False):
        for head in range(2):
            weights = np.full(20, (1 - share) / 17)
            weights[start : start + 3] = share / 3
            keys = np.arange(20) if whole else np.arange(start, start + 3)
            rows.append(
                {
                    "model": "m",
                    "sample": name,
                    "layer": layer,
                    "head": head,
                    "query": 19,
                    "keys": None if whole else keys.tolist(),
                    "weights": list(weights[keys].astype(np.float16)),
                    "rest": 0.0 if whole else 1 - share,
                }
            )
    return table("attention", rows)


STARTS = [
    next(span["start"] for span in row["spans"]) for row in placed({0: 0.5})["samples"].to_pylist()
]


@pytest.mark.parametrize("whole", [True, False])
def test_a_feature_that_follows_attention_is_found(whole: bool) -> None:
    inputs = placed({1: 0.5})
    names = inputs["samples"]["sample"].to_pylist()
    shares = {name: 0.1 + 0.02 * index for index, name in enumerate(names)}
    fired = [row for row in inputs["activations"].to_pylist() if row["position"] != 19]
    fired += [
        {
            "space": "s1",
            "sample": name,
            "position": 19,
            "features": [0],
            "values": [shares[name] ** 2],
        }
        for name in names
    ]
    inputs = {
        **inputs,
        "activations": table("activations", fired),
        "attention": attending(shares, whole=whole),
    }
    result = by_relation(run("words.cross_reference", inputs))
    row = result["fires with attention to balance", 0]
    assert row["score"] == pytest.approx(1)
    assert row["p"] <= 0.001
    assert row["n"] == 30
    ranges = {name: [(start, start + 3)] for name, start in zip(names, STARTS, strict=True)}
    mass = attention_to(inputs["attention"], 3, ranges)
    assert mass[names[4], 19] == pytest.approx(shares[names[4]], rel=2e-3)
    assert attention_to(inputs["attention"], 2, ranges) == {}


def test_contract() -> None:
    check_part(PARTS["words.cross_reference"], work=make_work(None, placed({0: 0.9})))
