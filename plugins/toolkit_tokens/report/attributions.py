"""The report's figures of attributions: each method next to exact patching, and waterfalls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from toolkit import figures as draw
from toolkit.work import Figure, Finding, Inputs
from toolkit_tokens.attribute.params import OF_PAIRS

from .drawings import shown_number, waterfall

SHOWN_PARTS = 12
WATERFALLS = ("integrated_gradients", "attribution_patching", "direct")


def attribution_figures(inputs: Inputs) -> Iterator[Figure]:
    checks = inputs.read("attribution_checks").to_pylist()
    rows = inputs.read("attributions").to_pylist()
    pieces = {}
    if "samples" in inputs.tables():
        pieces = {row["sample"]: row["pieces"] for row in inputs.read("samples").to_pylist()}
    yield _agreement(checks)
    sample = min(row["sample"] for row in checks)
    for method in WATERFALLS:
        method_checks = [
            check
            for check in checks
            if (check["sample"], check["method"]) == (sample, method)
            and check["measured"] is not None
            and check["part"] in ("token", "head")
        ]
        if not method_checks:
            continue
        # The lowest layer: at the last one, the last token carries nearly everything.
        check = min(
            method_checks, key=lambda check: -1 if check["layer"] is None else check["layer"]
        )
        part_rows = [
            row
            for row in rows
            if all(row[key] == check[key] for key in ("sample", "against", "method", "space"))
            and (row["space"] is None or row["part"] == check["part"])
            and (row["space"] is not None or row["layer"] == check["layer"] or method == "direct")
        ]
        steps = _largest([(_label(row, pieces), row["value"]) for row in part_rows])
        layer_text = "" if check["layer"] is None else f", layer {check['layer']}"
        against = f" against {check['against']}" if method in OF_PAIRS else ""
        title = f"{method}{layer_text}: {sample}{against}"
        drawing = waterfall(steps, check["total"], check["measured"])
        data = [{"part": part, "value": value} for part, value in steps]
        alt = "Bars add up to the sum, shown with the measured change."
        yield Figure(title, drawing, alt, data)


def _agreement(checks: Sequence[Mapping[str, Any]]) -> Figure:
    by_method: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for check in checks:
        by_method.setdefault((check["method"], check["part"]), []).append(check)
    cells = [
        [
            draw.escaped(method),
            draw.escaped(part),
            _gap(method_checks),
            _agreed(method_checks, "r"),
            _agreed(method_checks, "rank_r"),
            str(sum(check["compared"] for check in method_checks)),
            str(len(method_checks)),
        ]
        for (method, part), method_checks in sorted(by_method.items())
    ]
    title = "Methods: completeness, and agreement with exact patching"
    note = (
        "The gap is that between the sum of the parts and the measured change, the largest of all "
        "attributions; r and the correlation of ranks compare each part with what patching this "
        "part alone does, as the mean of attributions. Methods of one prompt (attention, rollout, "
        "direct, gradient x activation) explain the outcome and not the change: the sizes of their "
        "parts are compared."
    )
    heads = ("method", "by", "gap", "r", "rank r", "parts patched", "attributions")
    return Figure(title, draw.table(note, heads, cells), note)


def _gap(checks: Sequence[Mapping[str, Any]]) -> str:
    gaps = [
        abs(check["total"] - check["measured"]) for check in checks if check["measured"] is not None
    ]
    return shown_number(max(gaps)) if gaps else "no sum"


def _agreed(checks: Sequence[Mapping[str, Any]], statistic: str) -> str:
    """The mean correlation; of parts that do not vary there is none."""
    values = [check[statistic] for check in checks if check[statistic] is not None]
    if values:
        return draw.fixed(sum(values) / len(values), 2)
    return "-" if any(check["compared"] for check in checks) else "not patched"


def _label(row: Mapping[str, Any], pieces: Mapping[str, Sequence[str]]) -> str:
    texts = pieces.get(row["sample"], ())
    position = row["position"]
    token = texts[position] if position is not None and position < len(texts) else ""
    fields = [
        row["part"] if row["part"] != "token" else "",
        "" if row["layer"] is None or row["part"] == "token" else f"L{row['layer']}",
        "" if row["head"] is None else f"head {row['head']}",
        "" if row["feature"] is None else f"feature {row['feature']}",
        "" if position is None else f"{position} {token.strip() or '(blank)'}",
    ]
    return " ".join(field for field in fields if field)


def _largest(steps: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The largest parts, and the sum of the others, so that the bars add up."""
    order = sorted((step for step in steps if step[1]), key=lambda step: -abs(step[1]))
    shown = order[:SHOWN_PARTS]
    omitted = order[SHOWN_PARTS:]
    if omitted:
        shown.append((f"{len(omitted)} others", sum(value for _, value in omitted)))
    return shown


def completeness_findings(checks: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    complete = [
        check for check in checks if check["measured"] is not None and check["part"] == "token"
    ]
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for check in complete:
        by_method.setdefault(check["method"], []).append(check)
    largest = {
        method: max(abs(check["total"] - check["measured"]) for check in method_checks)
        for method, method_checks in by_method.items()
    }
    for method in sorted(largest, key=largest.__getitem__):
        yield Finding(
            sentence=f"{method}: its parts miss the measured change by at most "
            f"{largest[method]:.3g}{_agreement_clause(by_method[method])}.",
            number=largest[method],
            n=len({check["sample"] for check in by_method[method]}),
            rank=30,
        )


def _agreement_clause(checks: Sequence[Mapping[str, Any]]) -> str:
    values = [check["r"] for check in checks if check["r"] is not None]
    if not values:
        return ""
    mean = draw.fixed(sum(values) / len(values), 2)
    return f", and correlate with exact patching of single tokens at r {mean}"
