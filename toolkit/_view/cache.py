"""Answers that take long, kept within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class AnswerCache:
    """The answers used last, as many as fit in `limit` by their sizes. When several threads ask the
    same thing, one of them computes it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._answers: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._computing: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The size of all kept answers."""
        return sum(size for _, size in self._answers.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._answers

    def get(self, key: Hashable, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        """The answer for a key, computed if it is not kept. One that is larger than the limit is
        not kept at all.
        """
        with self._lock:
            computing = self._computing.setdefault(key, threading.Lock())
        with computing:
            with self._lock:
                if key in self._answers:
                    self._answers.move_to_end(key)
                    return self._answers[key][0]
            try:
                answer = make()
                self._keep(key, answer, size(answer))
            finally:
                with self._lock:
                    self._computing.pop(key, None)
        return answer

    def _keep(self, key: Hashable, answer: Any, size: int) -> None:
        with self._lock:
            self._answers[key] = (answer, size)
            while self.size > self.limit:
                self._answers.popitem(last=False)
