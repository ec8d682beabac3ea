"""`words.replies`: planted words are found with the right log-odds, and nothing else is."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats

from tests.plugins.toolkit_words.reply_tables import COMMON, PARTS, planted, replied, run, word_rows
from toolkit.errors import DataError
from toolkit.statistics.halves import in_half
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_words.replies.corpus import one_each, split
from toolkit_words.replies.levels import cuts, high
from toolkit_words.replies.log_odds import PairCounts, exact_tails, log_odds
from toolkit_words.replies.tf_idf import published

# --- the effect -----------------------------------------------------------------------------------


def monroe(
    first: Counter[str], second: Counter[str], word: str, prior: float
) -> tuple[float, float]:
    """The formula of the paper, word by word, in Python's floats."""
    together = first + second
    every = sum(together.values())
    a = {key: prior * number / every for key, number in together.items()}
    odds = []
    for corpus in (first, second):
        y, n = corpus[word], sum(corpus.values())
        odds.append(math.log((y + a[word]) / (n + sum(a.values()) - y - a[word])))
    delta = odds[0] - odds[1]
    variance = 1 / (first[word] + a[word]) + 1 / (second[word] + a[word])
    return delta, delta / math.sqrt(variance)


@pytest.mark.parametrize("prior", [1.0, 100.0, 500.0])
def test_the_log_odds_are_those_of_the_formula(prior: float) -> None:
    """Both corpora are built word by word from the replies that the stage draws."""
    replies, values = planted()
    tables = replied(replies, values)
    rows = tables["samples"].to_pylist()
    names = [row["sample"] for row in rows]
    drawn = one_each(0, rows, "select", frozenset(names))
    corpora: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for name in drawn:
        position = names.index(name)
        corpora[bool(values[position, 3] > 0)].update(set(replies[position].split()))
    result = word_rows(tables, prior=prior)
    for word in ("gamble", "careful"):
        delta, z = monroe(corpora[True], corpora[False], word, prior)
        assert result[3, word]["value"] == pytest.approx(delta, rel=1e-12)
        assert result[3, word]["z"] == pytest.approx(z, rel=1e-12)


def test_log_odds_have_the_sign_of_the_difference() -> None:
    delta, z = log_odds([8, 1], [10, 10], [50, 50], 100.0, 10.0)
    assert delta[0] > 0 > delta[1]
    assert np.sign(z).tolist() == [1.0, -1.0]


# --- the test -------------------------------------------------------------------------------------


@given(st.integers(2, 400), st.data())
def test_tails_are_those_of_the_hypergeometric_distribution(n: int, data: st.DataObject) -> None:
    m, k = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    y = data.draw(st.integers(max(0, m + k - n), min(m, k)))
    upper, lower = exact_tails(*(np.array([count], np.int32) for count in (y, m, k)), n)
    law = stats.hypergeom(n, k, m)
    assert upper[0] == pytest.approx(law.sf(y - 1), rel=1e-8)
    assert lower[0] == pytest.approx(law.cdf(y), rel=1e-8)


def test_the_score_is_in_standard_deviations() -> None:
    """A word that every cluster has cannot vary."""
    law = stats.hypergeom(100, 30, 40)
    counts = PairCounts(np.array([[20, 40]]), np.array([40]), np.array([30, 100]), 100)
    assert counts.score()[0, 0] == pytest.approx((20 - law.mean()) / law.std())
    assert counts.score()[0, 1] == 0


def test_planted_words_are_confirmed_with_their_direction() -> None:
    tables = replied(*planted())
    result = word_rows(tables)
    confirmed = {key: row for key, row in result.items() if row["verdict"] == "confirmed"}
    assert set(confirmed) == {(3, "gamble"), (3, "careful")}
    more, less = confirmed[3, "gamble"], confirmed[3, "careful"]
    assert more["value"] > 0 > less["value"]
    assert more["confirm_value"] > 0 > less["confirm_value"]
    assert more["high"] == pytest.approx(0.9, abs=0.12)
    assert more["low"] == pytest.approx(0.1, abs=0.1)
    assert more["family"] == 12 * len({word for row in planted()[0] for word in row.split()})


def test_the_number_that_goes_with_a_word_stands_beside_it() -> None:
    """Feature 3 follows the balance; the number and the feature are held to the same z."""
    replies, values = planted()
    tables = replied(replies, values)
    names = tables["samples"]["sample"].to_pylist()
    draw = np.random.default_rng(5)
    numbers = {"balance": (values[:, 3] > 0) * 50.0, "round": draw.random(len(names))}
    meta = [
        {"sample": name, "key": key, "number": float(value), "string": None}
        for key, of_key in numbers.items()
        for name, value in zip(names, of_key, strict=True)
    ]
    schema = arrow_schema("sample_meta")
    known = {**tables, "sample_meta": pa.Table.from_pylist(meta, schema=schema)}
    rows = run("words.replies", known, covariates=("round", "balance"))["feature_words"]
    tested = [row for row in rows if row["method"] == "log_odds"]
    assert {row["covariate"] for row in tested} == {"balance"}
    for row in tested:
        if row["feature"] == 3:
            assert row["covariate_z"] == pytest.approx(row["z"], rel=1e-9)
    without = run("words.replies", known)["feature_words"]
    assert {row["covariate"] for row in without} == {None}
    with pytest.raises(DataError, match="Did you mean 'balance'"):
        run("words.replies", known, covariates=("balanc",))


@pytest.mark.slow
def test_shuffled_replies_give_no_more_discoveries_than_alpha() -> None:
    """A hundred sets in which words and features have nothing to do with each other."""
    sets = 0
    for seed in range(100):
        replies, values = planted(seed, 120, 20)
        np.random.default_rng(1000 + seed).shuffle(values)
        result = word_rows(replied(replies, values), tf_idf=False, contexts=0)
        sets += any(row["verdict"] == "confirmed" for row in result.values())
    assert sets <= 5


def test_a_word_repeated_in_one_game_is_no_evidence() -> None:
    """One game says the word in each of its forty rounds while the feature fires; nobody else
    does.
    """
    rng = np.random.default_rng(0)
    replies = [" ".join(rng.choice(COMMON, 8)) for _ in range(240)]
    units = [f"g{index}" for index in range(200)] + ["loud"] * 40
    values = np.zeros((240, 2))
    values[:200:4, 0] = 1.0
    values[200:, 0] = 1.0
    values[:, 1] = rng.random(240) < 0.3
    replies[200:] = [f"jackpot {reply}" for reply in replies[200:]]
    assert [word for _, word in word_rows(replied(replies, values, units=units))] == []
    apart = word_rows(replied(replies, values))
    assert apart[0, "jackpot"]["verdict"] == "confirmed"


def test_an_equal_prompt_is_one_cluster_and_gives_one_reply() -> None:
    rows = replied(["a"] * 6, np.ones((6, 1)), prompts=["p"] * 5 + ["q"])["samples"].to_pylist()
    names = frozenset(row["sample"] for row in rows)
    drawn = one_each(3, rows, "all", names)
    assert len(drawn) == 2
    assert drawn == one_each(3, rows[::-1], "all", names)
    assert {row["cluster"] for row in rows if row["sample"] in drawn} == {"p", "q"}


def test_the_halves_share_no_prompt() -> None:
    replies, values = planted()
    prompts = [f"p{index % 150}" for index in range(400)]
    rows = replied(replies, values, prompts=prompts)["samples"].to_pylist()
    names = frozenset(row["sample"] for row in rows)
    cluster = {row["sample"]: row["cluster"] for row in rows}
    sides = [
        {cluster[sample] for sample in one_each(0, rows, half, names)}
        for half in ("select", "confirm")
    ]
    assert not sides[0] & sides[1]
    selected, _ = in_half(0, rows, "select")
    assert len(one_each(0, rows, "select", names)) <= len(selected)


def test_results_do_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit_words.replies import pairs

    tables = replied(*planted())
    whole = run("words.replies", tables)
    monkeypatch.setattr(pairs, "BLOCK_PAIRS", 40)
    assert run("words.replies", tables) == whole


# --- levels ---------------------------------------------------------------------------------------


def test_a_sparse_feature_is_high_where_it_fires_and_a_dense_one_above_its_median() -> None:
    values = np.array([[0.0, 1.0], [0.0, 2.0], [0.5, 3.0], [0.0, 4.0]])
    matrix = sparse.csr_array(values)
    assert cuts(matrix).tolist() == [0.0, 2.5]
    assert high(matrix, cuts(matrix)).toarray().tolist() == [[0, 0], [0, 0], [1, 1], [0, 1]]


def test_silence_is_high_where_the_median_is_negative() -> None:
    values = np.array([[-1.0], [-2.0], [-3.0], [0.0]])
    matrix = sparse.csr_array(values)
    assert cuts(matrix).tolist() == [-1.5]
    assert high(matrix, cuts(matrix)).toarray().ravel().tolist() == [1, 0, 0, 1]


# --- as published ---------------------------------------------------------------------------------


def test_tf_idf_is_that_of_the_study() -> None:
    """Loops over features and words, as its script has them."""
    rng = np.random.default_rng(1)
    words = [f"w{index}" for index in range(12)]
    replies = [[str(word) for word in rng.choice(words, 9)] for _ in range(40)]
    values = rng.random((40, 5))
    replies = [
        [*reply, "bet", "bet"] if values[index, 0] > 0.6 or values[index, 2] > 0.8 else reply
        for index, reply in enumerate(replies)
    ]
    names = sorted({word for reply in replies for word in reply})
    counts = np.array([[reply.count(word) for word in names] for reply in replies])
    listed: dict[int, dict[str, float]] = {}
    for feature in range(5):
        cut = np.median(values[:, feature])
        sides = []
        for chosen in (values[:, feature] >= cut, values[:, feature] < cut):
            message = Counter(word for index in np.flatnonzero(chosen) for word in replies[index])
            sides.append({word: message[word] / sum(message.values()) for word in names})
        far = {word: sides[0][word] - sides[1][word] for word in names}
        listed[feature] = {word: sides[0][word] for word in names if abs(far[word]) > 0.01}
    result = published(sparse.csr_array(values), sparse.csr_array(counts))
    expected = {}
    for feature, listed_words in listed.items():
        for word, frequency in listed_words.items():
            spread = sum(word in other for other in listed.values())
            if spread >= 2:
                expected[feature, word] = frequency * math.log(5 / spread)
    made = {
        (int(feature), names[word]): value
        for feature, word, value in zip(result.column, result.word, result.score, strict=True)
    }
    assert made == pytest.approx(expected)
    assert len(expected) > 10
    assert result.split == 5


def test_the_published_median_does_not_split_a_sparse_feature() -> None:
    values = np.zeros((40, 1))
    values[:10] = 1.0
    result = published(sparse.csr_array(values), sparse.csr_array(np.ones((40, 3), int)))
    assert result.split == len(result.word) == 0


# --- rows -----------------------------------------------------------------------------------------


def test_contexts_show_each_prompt_once_strongest_first() -> None:
    replies, values = planted()
    result = run("words.replies", replied(replies, values), contexts=4)["feature_contexts"]
    rows_of_feature = [row for row in result if row["feature"] == 3]
    assert [row["rank"] for row in rows_of_feature] == [1, 2, 3, 4]
    best = np.argsort(-values[:, 3])[:4]
    assert [row["sample"] for row in rows_of_feature] == [f"n{index:04d}" for index in best]
    assert rows_of_feature[0]["value"] == pytest.approx(values[best[0], 3])
    assert rows_of_feature[0]["piece"] == f"prompt {best[0]}"
    assert rows_of_feature[0]["after"].split() == replies[best[0]].split()[:12]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I bet $100, BET!", ["bet", "100", "bet"]),
        ("베팅하다 it_is", ["베팅하다"]),
        ("", []),
    ],
)
def test_words_are_letters_and_digits_of_any_script(text: str, words: list[str]) -> None:
    assert split(text, 3) == words


# --- refusals -------------------------------------------------------------------------------------


def test_no_reply_is_an_error_and_not_an_empty_result() -> None:
    tables = replied(["bet"] * 30, np.ones((30, 1)))
    with pytest.raises(DataError, match=r"there are no samples"):
        run("words.replies", {**tables, "samples": tables["samples"].slice(0, 0)})
    with pytest.raises(DataError, match=r"no.* span 'answer'; spans: generation.*with_reply: true"):
        run("words.replies", tables, span="answer")
    with pytest.raises(DataError, match=r"none of the 30 replies has a word of at least 9 letters"):
        run("words.replies", tables, min_length=9)
    with pytest.raises(DataError, match=r"not measured"):
        run("words.replies", {**tables, "activations": tables["activations"].slice(0, 0)})


def test_too_few_clusters_are_an_error() -> None:
    tables = replied(["bet one", "stop two"] * 6, np.ones((12, 1)))
    with pytest.raises(DataError, match=r"a test needs 10 in each \(twice min_clusters\)"):
        run("words.replies", tables)


def test_contract() -> None:
    tables: dict[str, Any] = replied(*planted(samples=100))
    check_part(PARTS["words.replies"], work=make_work(None, tables))
