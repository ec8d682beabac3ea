"""`patch.games`: measures the effect of a persistent patch on whole games.

Games of an arm share repetitions, luck and token draws with the unpatched games, so that each has
its pair. Outcomes are those of the games, not a proxy. p is from McNemar's exact test on the pairs
that end differently; q is corrected over all arms and outcomes. Null arms (`null_arm` in `games`)
hold random features or directions: every other arm is also ranked among them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.errors import DataError, choices
from toolkit.parts import Params
from toolkit_patch.screen.estimates import corrected, estimate

if TYPE_CHECKING:
    from toolkit.work import Rows, Work

    Row = Mapping[str, Any]


class PairedGames(Params):
    """Which outcomes are compared."""

    outcomes: tuple[str, ...] = Field(
        ("bankruptcy", "voluntary_stop"), min_length=1, description="Outcomes of games."
    )


def compare_games(work: Work) -> Rows:
    """Rows of `paired_games` for every arm and outcome."""
    import numpy as np
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    params: PairedGames = work.params
    unpatched, arms = _by_arm(work.inputs.read("games").to_pylist())
    rows = [
        _row(work, arm, outcome, _pairs(arm, unpatched, games, outcome))
        for arm, games in sorted(arms.items())
        for outcome in params.outcomes
    ]
    for row, q in zip(rows, corrected(np.array([row["p"] for row in rows])), strict=True):
        row["q"] = float(q)
    null_arms = {arm for arm, games in arms.items() if games[0]["null_arm"]}
    for row in rows:
        row |= _among_null(row, rows, null_arms)
    yield "paired_games", pa.Table.from_pylist(rows, schema=arrow_schema("paired_games"))


def _by_arm(rows: Sequence[Row]) -> tuple[dict[str, Row], dict[str, list[Row]]]:
    """Unpatched games by id, and the games of each arm."""
    unpatched: dict[str, Row] = {}
    arms: dict[str, list[Row]] = {}
    for row in rows:
        if row["arm"] is None:
            unpatched[row["game"]] = row
        else:
            arms.setdefault(row["arm"], []).append(row)
    if not unpatched or not arms:
        raise DataError(
            f"Games with and without a patch are needed; there are {len(unpatched)} without one, "
            f"and arms {choices(sorted(arms))}. Add a `play.games` and a `play.patched` stage to "
            "needs."
        )
    return unpatched, arms


def _pairs(arm: str, unpatched: Mapping[str, Row], games: Sequence[Row], outcome: str) -> Any:
    """(pairs, 2): whether each game ends in the outcome, without the patch and with it."""
    import numpy as np

    outcome_pairs = []
    for game in sorted(games, key=lambda row: str(row["game"])):
        pair = unpatched.get(game["pair"])
        if pair is not None:
            outcome_pairs.append((pair["outcome"] == outcome, game["outcome"] == outcome))
    if not outcome_pairs:
        raise DataError(
            f"arm '{arm}': none of its games has a pair. Play the same game with the same "
            "conditions, repetitions and seed without the patch."
        )
    return np.array(outcome_pairs, dtype=float)


def _row(work: Work, arm: str, outcome: str, outcome_pairs: Any) -> dict[str, Any]:
    import numpy as np
    from scipy.stats import binomtest

    difference = outcome_pairs[:, 1] - outcome_pairs[:, 0]
    mean_difference = estimate(
        difference[None],
        np.ones(len(outcome_pairs)),
        np.arange(len(outcome_pairs)),
        work.rng("patch.games", arm, outcome),
    )
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return {
        "arm": arm,
        "outcome": outcome,
        "pairs": len(outcome_pairs),
        "changed": gained + lost,
        "unpatched": float(outcome_pairs[:, 0].mean()),
        "patched": float(outcome_pairs[:, 1].mean()),
        "difference": float(mean_difference.mean[0]),
        "low": float(mean_difference.low[0]),
        "high": float(mean_difference.high[0]),
        "p": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        "q": 1.0,
    }


def _among_null(row: Row, rows: Sequence[Row], null_arms: Collection[str]) -> dict[str, Any]:
    """The rank of an arm among the null arms."""
    null_rows = [
        null_row
        for null_row in rows
        if null_row["arm"] in null_arms and null_row["outcome"] == row["outcome"]
    ]
    if not null_rows or row["arm"] in null_arms:
        return {"null_arms": 0, "beyond": None, "p_null": None}
    beyond = sum(abs(null_row["difference"]) >= abs(row["difference"]) for null_row in null_rows)
    return {
        "null_arms": len(null_rows),
        "beyond": beyond,
        "p_null": (1 + beyond) / (1 + len(null_rows)),
    }
