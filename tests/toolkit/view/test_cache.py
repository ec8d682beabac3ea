"""Kept answers: within a limit, computed once."""

from __future__ import annotations

import threading

import pytest

from toolkit._view.cache import AnswerCache


def test_the_answers_used_last_are_kept_within_the_limit() -> None:
    cache = AnswerCache(10)
    for name in "abc":
        cache.get(name, lambda name=name: name, lambda answer: 4)
    assert ["a" in cache, "b" in cache, "c" in cache] == [False, True, True]
    cache.get("b", lambda: "again", lambda answer: 4)
    cache.get("d", lambda: "d", lambda answer: 4)
    assert ["b" in cache, "c" in cache, "d" in cache] == [True, False, True]
    assert cache.size == 8


def test_an_answer_beyond_the_limit_is_given_and_not_kept() -> None:
    cache = AnswerCache(10)
    assert cache.get("a", lambda: "large", lambda answer: 11) == "large"
    assert (cache.size, "a" in cache) == (0, False)


def test_threads_that_ask_the_same_compute_it_once() -> None:
    cache, made, begun, go_on = AnswerCache(10), [], threading.Event(), threading.Event()

    def make() -> str:
        made.append(1)
        begun.set()
        assert go_on.wait(60)
        return "answer"

    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(cache.get("a", make, len))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert (answers, made) == (["answer"] * 3, [1])


def test_what_fails_is_computed_again() -> None:
    cache = AnswerCache(10)
    with pytest.raises(ValueError, match="no"):
        cache.get("a", lambda: (_ for _ in ()).throw(ValueError("no")), len)
    assert cache.get("a", lambda: "yes", len) == "yes"
