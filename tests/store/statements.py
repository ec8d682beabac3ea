"""Statements that somebody might send, made from the words of SQL: most of them wrong, some of them
sly.
"""

from __future__ import annotations

import random

from toolkit_store.query.sql import FUNCTIONS

PIECES = (
    *(
        "SELECT",
        "*",
        "FROM",
        "features",
        "activations",
        "WHERE",
        "number",
        "> 1",
        "'x'",
        "''",
        "'",
        '"',
        '"space"',
        ";",
        "--",
    ),
    *(
        "/*",
        "*/",
        "$$",
        "\\",
        "é",
        "\u2028",
        "\0",
        "(",
        ")",
        ",",
        "GROUP BY",
        "ORDER BY",
        "LIMIT 1",
        "OFFSET 1",
        "JOIN",
        "ON",
    ),
    *(
        "USING",
        "UNION",
        "ALL",
        "WITH",
        "AS",
        "t",
        "DROP TABLE features",
        "DELETE FROM features",
        "TRUNCATE features",
        "CASE",
    ),
    *(
        "WHEN",
        "THEN",
        "END",
        "AS INT",
        "NULL",
        "IS",
        "NOT",
        "IN",
        "1e999",
        "9" * 30,
        "-",
        "+",
        "/",
        "%",
        "::",
        "DATE '2020-01-01'",
    ),
    *(
        "INTERVAL '1 day'",
        "feature",
        "values",
        "OVER",
        "PARTITION BY",
        "[",
        "]",
        "0",
        ".",
        "a.b",
        "DISTINCT",
        "EXCLUDE",
        "HAVING",
    ),
    *(
        "stat",
        "text",
        "position",
        "LIKE",
        "BETWEEN",
        "AND",
        "OR",
        "FETCH FIRST",
        "QUALIFY",
        "LATERAL",
        "CROSS JOIN",
        "NATURAL",
    ),
    *(
        "VALUES (1)",
        "BOOLEAN",
        "SELECT * FROM features",
        "REPLACE",
        "\U0001f600",
        "\uff05",
        "\u2018",
        "COLUMNS",
        "read_csv",
        *sorted(FUNCTIONS),
    ),
)
ARGUMENTS = (
    "number",
    "feature",
    "space",
    "1",
    "-1",
    "0",
    "'x'",
    "NULL",
    "1e308",
    "space || 'a'",
    "DISTINCT number",
    "*",
    "9" * 20,
)


def generated(seed: int, count: int) -> list[str]:
    """Statements from the words of SQL: half of them nearly right, each with a call of something
    that would leave a mark.
    """
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        body = " ".join(
            rng.choices(
                (*PIECES, "read_csv('{mark}')", "\"read_csv\"('{mark}')"), k=rng.randint(1, 8)
            )
        )
        function = rng.choice(sorted(FUNCTIONS))
        call = f"{function}({', '.join(rng.choices(ARGUMENTS, k=rng.randint(0, 4)))})"
        shapes = (
            body,
            f"SELECT {body} FROM features",
            f"SELECT * FROM features WHERE {body}",
            f"SELECT {call} FROM features",
        )
        out.append(rng.choice(shapes))
    return out
