"""`patch.verdicts`: what may be said of each screened feature, corrected over everything screened.

A feature is causal only if its specific effect is no accident of the units that were drawn, and
more than random directions of equal length do. Its p is the larger of the two, and q is
Benjamini-Hochberg over the whole declared family: features that were not held against random
directions are in it, with p 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit_patch.screen.estimates import corrected

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.work import Rows, Work
    from toolkit_patch.screen.params import Verdicts

    Row = Mapping[str, Any]

CAUSAL, SMALL, REBUILT = "causal", "below the threshold", "reconstruction"
UNSPECIFIC, SHAM, SILENT, NOTHING = "unspecific", "sham fails", "silent here", "no effect"
ORDER = (CAUSAL, UNSPECIFIC, REBUILT, SMALL, SILENT, NOTHING, SHAM)
"""Verdicts, the most telling first."""
SHAM_LIMIT = 1e-4
CARRIED = (
    "screen",
    "space",
    "feature",
    "comparison",
    "contrast",
    "outcome",
    "effect",
    "low",
    "high",
)
"""Columns that a verdict has from its screen."""
FAMILY = ("screen", "comparison", "outcome")


def judge(work: Work) -> Rows:
    """Rows of `verdicts` for every row of `screens`."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    screens = work.inputs.read("screens")
    if not len(screens):
        raise DataError("No feature was screened, so there is nothing to judge.")
    rows = [row for part in _families(screens) for row in _judged(part, work.params)]
    yield "verdicts", pa.Table.from_pylist(rows, schema=arrow_schema("verdicts"))


def _families(screens: pa.Table) -> list[list[Row]]:
    """Rows that are corrected together: one declared family each, whole."""
    parts: dict[tuple[Any, ...], list[Row]] = {}
    for row in screens.to_pylist():
        parts.setdefault(tuple(row[name] for name in FAMILY), []).append(row)
    for rows in parts.values():
        if len(rows) != rows[0]["checked"]:
            raise DataError(
                f"The screen of '{rows[0]['contrast']}' declared {rows[0]['checked']} features, "
                f"and {len(rows)} were screened. Correction runs over all of them; screen the "
                "others."
            )
    return list(parts.values())


def _judged(rows: list[Row], params: Verdicts) -> list[dict[str, Any]]:
    family = rows[0]["family"]
    p = [evidence(row) for row in rows]
    # What a gradient left out was not asked: it has no evidence, and stays in the family.
    q_of = corrected(_array(p + [1.0] * (family - len(rows)))).tolist()
    judged = []
    for row, own, q in zip(rows, p, q_of[: len(rows)], strict=True):
        verdict, reason = verdict_of(row, q, params)
        facts = {name: row[name] for name in CARRIED}
        judged.append(
            {**facts, "verdict": verdict, "reason": reason, "p": own, "q": q, "family": family}
        )
    return judged


def _array(values: list[float]) -> Any:
    import numpy as np

    return np.array(values)


def evidence(row: Row) -> float:
    """The larger p of two questions: is it more than chance among the units, and more than random
    directions do? Who was not asked the second has no evidence.
    """
    directions = row["p_directions"]
    return 1.0 if directions is None else float(max(row["p_units"], directions))


def verdict_of(row: Row, q: float, params: Verdicts) -> tuple[str, str]:
    """The verdict and its reason."""
    moved = (
        f"P({row['outcome']}) moves by {signed(row['effect'])} [{signed(row['low'])}, "
        f"{signed(row['high'])}] from the mean of {row['group_b']} to that of {row['group_a']}"
    )
    if row["sham"] > SHAM_LIMIT:
        return SHAM, f"the edit to its own value moves P({row['outcome']}) by {row['sham']:.2g}"
    real = row["p_units"] <= params.alpha
    large = abs(row["effect"]) >= params.min_effect
    if not row["fired_here"]:
        return (
            SILENT,
            f"it fires at none of {row['points']} decision points; set to values, {moved}",
        )
    if real and large and row["p_directions"] is not None:
        return _beside_directions(row, q, params, moved)
    if _rebuilding(row, params):
        both = f"{signed(row['reconstruct_a'])} and {signed(row['reconstruct_b'])}"
        return REBUILT, (
            f"with the whole stream rebuilt both values move P({row['outcome']}) ({both}); with "
            f"the error kept, {moved}"
        )
    if real and not large:
        return SMALL, (
            f"real but below {params.min_effect:g}: {moved} (p {row['p_units']:.2g} over the units)"
        )
    return NOTHING, f"{moved} (p {row['p_units']:.2g} over the units)"


def _beside_directions(row: Row, q: float, params: Verdicts, moved: str) -> tuple[str, str]:
    null = "other features" if row["null"] == "features" else "random directions"
    beside = f"{row['beyond']} of {row['directions']} {null} move it as much"
    tail = f"(q {q:.2g} over {row['family']} features)"
    if q <= params.alpha:
        return CAUSAL, f"{moved}; {beside} {tail}"
    return UNSPECIFIC, f"{moved}, but {beside} {tail}"


def _rebuilding(row: Row, params: Verdicts) -> bool:
    """Both values move the outcome the same way once the stream is rebuilt: what the SAE leaves out
    does it.
    """
    first, second = row["reconstruct_a"], row["reconstruct_b"]
    if first is None or second is None or row["p_reconstruct"] > params.alpha:
        return False
    return bool(min(abs(first), abs(second)) >= params.min_effect and first * second > 0)


def signed(value: float) -> str:
    """With its sign, three decimals; what rounds to nothing has none."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text
