"""Whatever stands in a question's names, only rows of exactly that name are found, and nothing else
happens.
"""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

import toolkit_store
from toolkit.errors import BadInput
from toolkit.features.addresses import parse
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import RunView, Store, open_store

NAMES = (
    "s1",
    "it's",
    "''",
    "' OR '1'='1",
    "a;b",
    "é",
    "e\u0301",
    "日本 語",
    "\u202eabc",
    '"',
    "\\",
    "%",
    "--",
    "NULL",
    "\n",
    " ",
)
PIECES = (
    *NAMES,
    "' OR 1=1 --",
    "'; DROP TABLE activations; --",
    "\\'",
    "')) UNION SELECT",
    "*/",
    "/*",
    "\u2019",
    "\uff07",
    "\x00",
    "x'",
)


def generated(count: int) -> list[str]:
    """Names and near misses: pieces of SQL, quotes of all kinds, and letters from all over."""
    rng = random.Random(3)
    out = list(NAMES)
    while len(out) < count:
        pieces = rng.choices(PIECES, k=rng.randint(1, 4))
        letters = [
            chr(rng.choice((rng.randint(0, 127), rng.randint(128, 0xD7FF))))
            for _ in range(rng.randint(0, 3))
        ]
        out.append("".join(rng.sample(pieces + letters, len(pieces) + len(letters))))
    return out


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "store", create=True)
    rows = [
        {"space": name, "sample": name, "position": 0, "features": [n], "values": [1.0]}
        for n, name in enumerate(NAMES)
    ]
    store.commit(
        make_step("k"), {"activations": pa.Table.from_pylist(rows, arrow_schema("activations"))}
    )
    store.index(["k"], run="r")
    store.record_run(run="r", name="n", state="done", steps=["k"])
    return store


def check(store: Store, names: list[str]) -> None:
    view, before = toolkit_store.open(store.folder).run(), store.fingerprint(["k"])
    result = 0
    for name in names:
        rows = view.sample(name).rows()
        assert rows == ([(name, 0, NAMES.index(name), 1.0)] if name in NAMES else [])
        result += len(rows)
        assert view.samples([name]).is_empty()
        check_space(view, name)
        check_run(store, name)
        check_address(name)
    assert result >= len(NAMES)
    assert store.fingerprint(["k"]) == before


def check_space(view: RunView, name: str) -> None:
    if name in NAMES:
        assert view.top(name, NAMES.index(name)).rows() == [(name, 0, 1.0, None)]
        return
    with pytest.raises(BadInput, match="has no space"):
        view.top(name, 0)


def check_run(store: Store, name: str) -> None:
    assert store.run_states(name) == []
    assert store.has([name]) == set()


def check_address(name: str) -> None:
    with suppress(BadInput):
        parse(name)


@pytest.mark.slow
def test_names_find_themselves_alone(store: Store) -> None:
    check(store, generated(150))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_names_find_themselves_alone(store: Store) -> None:
    check(store, generated(10_000))
