"""`patch.verdicts`: judges each screened feature, corrected over everything screened.

A feature is causal only if its specific effect is significant over the units and larger than that
of random directions of equal length. Its p is the larger of the two, and q is Benjamini-Hochberg
over the whole declared family, in which features that were not compared with random directions have
p 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
"""Verdicts, the strongest first."""
SHAM_LIMIT = 1e-4
SCREEN_COLUMNS = (
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
"""Columns that a verdict copies from its screen."""
FAMILY = ("screen", "comparison", "outcome")


def judge(work: Work) -> Rows:
    """Rows of `verdicts` for every row of `screens`, and the same for a control."""
    screens = work.inputs.read("screens")
    if not len(screens):
        raise DataError("No feature was screened, so there is nothing to judge.")
    yield "verdicts", _verdicts(screens, work.params, "verdicts")
    if "control_screens" in work.inputs.tables():
        control = work.inputs.read("control_screens")
        yield "control_verdicts", _verdicts(control, work.params, "control_verdicts")


def _verdicts(screens: pa.Table, params: Verdicts, table: str) -> pa.Table:
    """The verdicts on the rows of a screen, as rows of `table`."""
    import pyarrow as pa

    from toolkit.tables import arrow_schema

    rows = [row for family_rows in _families(screens) for row in _judged(family_rows, params)]
    return pa.Table.from_pylist(rows, schema=arrow_schema(table))


def _families(screens: pa.Table) -> list[list[Row]]:
    """Rows that are corrected together: one whole declared family each."""
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in screens.to_pylist():
        families.setdefault(tuple(row[name] for name in FAMILY), []).append(row)
    for rows in families.values():
        if len(rows) != rows[0]["checked"]:
            raise DataError(
                f"The screen of '{rows[0]['contrast']}' declared {rows[0]['checked']} features, "
                f"and {len(rows)} were screened. Correction runs over all of them; screen the "
                "others."
            )
    return list(families.values())


def _judged(rows: list[Row], params: Verdicts) -> list[dict[str, Any]]:
    family = rows[0]["family"]
    p_values = [evidence(row) for row in rows]
    # A candidate that a gradient left out has no evidence; it stays in the family with p 1.
    q_values = corrected(_array(p_values + [1.0] * (family - len(rows)))).tolist()
    verdict_rows = []
    for row, p, q in zip(rows, p_values, q_values[: len(rows)], strict=True):
        verdict, reason = verdict_of(row, q, params)
        screen_values = {name: row[name] for name in SCREEN_COLUMNS}
        verdict_rows.append(
            {
                **screen_values,
                "verdict": verdict,
                "reason": reason,
                "p": p,
                "q": q,
                "family": family,
            }
        )
    return verdict_rows


def _array(values: list[float]) -> Any:
    import numpy as np

    return np.array(values)


def evidence(row: Row) -> float:
    """The larger p of two tests: over the units, and against random directions. Without the second,
    p is 1.
    """
    p_directions = row["p_directions"]
    return 1.0 if p_directions is None else float(max(row["p_units"], p_directions))


def verdict_of(row: Row, q: float, params: Verdicts) -> tuple[str, str]:
    """The verdict and its reason."""
    change_text = (
        f"P({row['outcome']}) moves by {signed(row['effect'])} [{signed(row['low'])}, "
        f"{signed(row['high'])}] from the mean of {row['group_b']} to that of {row['group_a']}"
    )
    if row["sham"] > SHAM_LIMIT:
        return SHAM, f"the edit to its own value moves P({row['outcome']}) by {row['sham']:.2g}"
    is_significant = row["p_units"] <= params.alpha
    is_large = abs(row["effect"]) >= params.min_effect
    if not row["fired_here"]:
        return (
            SILENT,
            f"it fires at none of {row['points']} decision points; set to values, {change_text}",
        )
    if is_significant and is_large and row["p_directions"] is not None:
        return _beside_directions(row, q, params, change_text)
    if _rebuilding(row, params):
        changes = f"{signed(row['reconstruct_a'])} and {signed(row['reconstruct_b'])}"
        return REBUILT, (
            f"with the whole stream rebuilt both values move P({row['outcome']}) ({changes}); with "
            f"the error kept, {change_text}"
        )
    if is_significant and not is_large:
        return SMALL, (
            f"real but below {params.min_effect:g}: {change_text} (p {row['p_units']:.2g} "
            f"over the units)"
        )
    return NOTHING, f"{change_text} (p {row['p_units']:.2g} over the units)"


def _beside_directions(row: Row, q: float, params: Verdicts, change_text: str) -> tuple[str, str]:
    null = null_name([row])
    comparison = f"{row['beyond']} of {row['directions']} {null} move it as much"
    correction = f"(q {q:.2g} over {row['family']} features)"
    if q <= params.alpha:
        return CAUSAL, f"{change_text}; {comparison} {correction}"
    return UNSPECIFIC, f"{change_text}, but {comparison} {correction}"


def _rebuilding(row: Row, params: Verdicts) -> bool:
    """Whether both values move the outcome the same way in the rebuilt stream, in which case the
    cause is the dropped SAE error.
    """
    change_a, change_b = row["reconstruct_a"], row["reconstruct_b"]
    if change_a is None or change_b is None or row["p_reconstruct"] > params.alpha:
        return False
    return bool(min(abs(change_a), abs(change_b)) >= params.min_effect and change_a * change_b > 0)


def signed(value: float) -> str:
    """With sign and three decimals; zero has no sign."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def null_name(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the effects were compared with, as the screen drew it: in some spaces other features,
    in others random directions.
    """
    names = {
        "other features" if row["null"] == "features" else "random directions"
        for row in rows
        if row["null"] is not None
    }
    return " or ".join(sorted(names)) or "random directions"
