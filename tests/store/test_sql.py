"""SQL that can only ask: what is not wholly understood never reaches polars, and no text gives a
traceback.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.statements import generated
from toolkit.errors import BadInput
from toolkit_store.query.sql import checked, select

FEATURES = pl.DataFrame(
    {
        "space": ["a", "b"],
        "feature": [1, 2],
        "stat": ["d", "q"],
        "number": [1.5, None],
        "text": ["it's", None],
    }
)
ACTIVATIONS = pl.DataFrame(
    {"space": ["a"], "sample": ["s"], "position": [0], "features": [[1, 2]], "values": [[0.5, 1.0]]}
)
TABLES = {"features": FEATURES, "activations": ACTIVATIONS}


def ask(text: str) -> pl.DataFrame:
    return select(text, lambda name: TABLES[name].lazy(), TABLES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT feature FROM features", [(1,), (2,)]),
        (" select feature\n from features ; ", [(1,), (2,)]),
        ("(SELECT feature FROM features)", [(1,), (2,)]),
        ("SELECT /* it's ;\n * */ feature -- from steps\r\nFROM features --", [(1,), (2,)]),
        ("SELECT f.* FROM features AS f WHERE f.feature=2", [("b", 2, "q", None, None)]),
        ("SELECT feature::VARCHAR || '-' || stat FROM features", [("1-d",), ("2-q",)]),
        ("SELECT 2-1 AS a, 4/-2 AS b, .5+1. AS c, 3%2 AS d", [(1, -2, 1.5, 1)]),
        ("WITH f AS (SELECT * FROM features) SELECT count(*) FROM f", [(2,)]),
        ("SELECT stat FROM features WHERE text = 'it''s'", [("d",)]),
        ("SELECT max(feature) - -1.5e0 AS m FROM features WHERE number IS NOT NULL", [(2.5,)]),
        ('SELECT "features"."feature" FROM "features" ORDER BY 1 DESC LIMIT 1', [(2,)]),
        ("SELECT f.feature FROM features f JOIN activations a ON f.space = a.space", [(1,)]),
        (
            "SELECT CASE WHEN feature > 1 THEN 'much' ELSE 'é;--' END FROM features",
            [("é;--",), ("much",)],
        ),
        ("SELECT unnest(features) AS feature FROM activations", [(1,), (2,)]),
        (
            "SELECT feature FROM features WHERE feature IN (SELECT feature FROM features WHERE "
            "feature < 2)",
            [(1,)],
        ),
        ('SELECT 1 AS "drop"', [(1,)]),
    ],
)
def test_what_may_be_asked(text: str, expected: list[tuple[object, ...]]) -> None:
    assert ask(text).rows() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Only SELECT is allowed"),
        ("   ;", "Only SELECT is allowed"),
        ("SHOW TABLES", "Only SELECT is allowed"),
        ("EXPLAIN SELECT 1", "Only SELECT is allowed"),
        ("SELECT 1; DROP TABLE features", "One statement at a time"),
        (
            "WITH f AS (SELECT 1) DELETE FROM features",
            "'DELETE' is not allowed, since it does more than read tables",
        ),
        ("SELECT * INTO x FROM features", "'INTO' is not allowed"),
        ("SELECT /* x /* y */ 1 */", r"At character 8 of the statement: '/\* x"),
        ("SELECT 1 /* x", r"At character 10 of the statement: '/\* x' cannot be read"),
        ("-- SELECT 1", "Only SELECT is allowed"),
        ("SELECT * FROM features WHERE text = '", "At character 37 of the statement"),
        ('SELECT "', "At character 8 of the statement"),
        ("SELECT 'a\\'", "At character 8 of the statement"),
        ("SELECT \u2028 1", r"'\\u2028"),
        ("SELECT \u0441ount(*)", r"'\\u0441ount"),
        ("SELECT 1 # x", "'# x'"),
        ("SELECT E'x'", "At character 9 of the statement"),
        ("SELECT `x`", "At character 8"),
        ("SELECT * FROM Read_CSV('x')", "There is no function 'Read_CSV'."),
        ("SELECT * FROM \"read_csv\" ('x')", '"read_csv" is followed by a bracket'),
        ("SELECT averge(number) FROM features", r"no function 'averge'\. Did you mean 'avg'"),
        ("SELECT greatest() FROM features", r"'greatest\(\)' needs an argument"),
        ("SELECT " + "(" * 31 + "1" + ")" * 31, "too complex: at most 30"),
        ("SELECT " + "+".join("1" * 1_002), "too complex"),
        ("SELECT '" + "x" * 10_000 + "'", "has 10,009 characters; at most 10,000"),
        ("SELECT nothing FROM features", "polars cannot run this statement:"),
        ("SELECT * FROM steps", r"relation 'steps' was not found\. Tables: activations, features"),
        ("SELECT CAST('x' AS INT)", "polars cannot run this statement: conversion from"),
    ],
)
def test_what_may_not(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ask(text)


HIDDEN = (
    "SELECT $$'$$ AS a, * FROM {call} --'",
    "SELECT $x$'$x$ AS a, * FROM {call} --'",
    r"SELECT E'\'' AS a, * FROM {call} --'",
    r"SELECT '\'' AS a, * FROM {call} --'",
    "SELECT /* /* */ * FROM {call} -- */",
    "SELECT q'[']' AS a, * FROM {call} --'",
    'SELECT "\'" AS a, * FROM {call}',
    "SELECT '\"' AS a, * FROM {call}",
    "SELECT * FROM (SELECT * FROM {call})",
    "SELECT * FROM features WHERE space IN (SELECT secret FROM {call})",
    "SELECT * FROM features JOIN {call} ON true",
    "SELECT * FROM features, LATERAL {call}",
    "WITH x AS (SELECT * FROM {call}) SELECT * FROM x",
    "SELECT * FROM features UNION SELECT * FROM {call}",
    "SELECT `'` AS a, * FROM {call} --'",
    "SELECT * FROM TABLE({call})",
    "SELECT U&'\\0027' AS a, * FROM {call} --'",
    "SELECT N'x' 'y' AS a, * FROM {call}",
    "FROM {call}",
)


@pytest.mark.parametrize("statement", HIDDEN)
@pytest.mark.parametrize(
    "name", ["read_csv", "READ_CSV", '"read_csv"', "scan_csv", "read_csv ", "read_csv\n"]
)
def test_no_quoting_hides_a_call_that_reads_files(
    statement: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("secret\n42\n")
    text = statement.format(call=f"{name}('{tmp_path / 'x.csv'}')")
    with pytest.raises(BadInput) as caught:
        ask(text)
    assert "polars" not in str(caught.value), "it got past the guard"


@pytest.mark.slow
def test_ten_thousand_statements_read_nothing_else_and_end_well(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark.csv"
    mark.write_text("secret\nxyzzy\n")
    before = TABLES["features"].clone(), TABLES["activations"].clone()
    answered, refusals = 0, [""]
    for text in generated(5, 10_000):
        try:
            result = ask(text.replace("{mark}", str(mark)))
        except BadInput as error:
            refusals.append(str(error))
            continue
        answered += 1
        assert "xyzzy" not in str(result.to_dicts())
        assert "secret" not in result.columns
    assert answered > 50
    assert "xyzzy" not in "".join(refusals)
    assert before[0].equals(TABLES["features"])
    assert before[1].equals(TABLES["activations"])
    assert list(tmp_path.iterdir()) == [mark]
    assert capfd.readouterr().err == "", "polars said something on its own"


@settings(max_examples=300)
@given(
    st.text() | st.text("SELECT *FROMfeatures'\"();$-/\\\n", max_size=40).map("SELECT {}".format)
)
def test_any_text_is_answered_or_refused(text: str) -> None:
    with suppress(BadInput):
        ask(text)


@given(st.text())
def test_what_passes_consists_of_known_words_alone(text: str) -> None:
    try:
        words = checked(f"SELECT {text}")
    except BadInput:
        return
    assert {word.kind for word in words} <= {"word", "name", "number", "text", "sign"}
    again = " ".join(word.text for word in words)
    assert [(word.kind, word.text) for word in checked(again)] == [
        (word.kind, word.text) for word in words
    ]


@pytest.mark.slow
def test_long_statements_do_not_end_the_process() -> None:
    """Each as deep as is let through: what breaks the stack ends the process, so it has one of its
    own.
    """
    program = (
        "import polars as pl\n"
        "from toolkit.errors import BadInput\n"
        "from toolkit_store.query.sql import select\n"
        "texts = ['SELECT ' + '+'.join(['1'] * 990), 'SELECT ' + '- ' * 950 + '1', ' UNION ALL "
        "'.join(['SELECT 1'] * 900),\n"
        "    'SELECT ' + '(' * 30 + '1' + ')' * 30, 'SELECT * FROM features WHERE ' + ' OR "
        "'.join(['feature=1'] * 490),\n"
        "    'SELECT ' + 'CASE WHEN true THEN ' * 29 + '1' + ' END' * 29, 'SELECT ' + 'NOT ' * 950 "
        "+ 'TRUE']\n"
        "for text in texts:\n"
        "    try:\n"
        "        select(text, lambda name: pl.LazyFrame({'feature': [1]}))\n"
        "    except BadInput:\n"
        "        pass\n"
        "    print('went on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout.split("\n").count("went on"), done.stderr) == (0, 7, "")
