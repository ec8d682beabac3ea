"""The power of a comparison: the smallest effect that can be detected after correction with its
units, present or planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import atanh, tanh
from typing import TYPE_CHECKING, Any

from toolkit._plan.costs import max_samples
from toolkit._plan.texts import facts
from toolkit.costs import PlannedComparison
from toolkit.ledger import StepRow
from toolkit.statistics.halves import in_half, joined_by_state
from toolkit.tables import written

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit._plan.plan import Plan, Stage

POWER = 0.8
"""The probability of detecting an effect of the reported size."""
Read = Callable[[str, Sequence[StepRow]], "pa.Table"]


def power_of(
    plan: Plan, stage: Stage, committed: Mapping[str, list[StepRow]], read: Read | None
) -> dict[str, Any] | None:
    """The power of a stage, as plain data; None if its part does not declare its comparison, or its
    units are unknown. Once the samples exist, the clusters (units, joined by equal prompts) of each
    group are counted; before that, all units that the source can yield are divided evenly, which is
    the best case.
    """
    compares = stage.part.estimates.comparison
    if compares is None:
        return None
    comparison: PlannedComparison = compares(stage.params, facts(stage.model))
    unknown = comparison.discovered or comparison.family == 0
    family = (
        None if unknown else comparison.family or _features(plan, stage, each=comparison.each_space)
    )
    source = next(
        (need for need in stage.needs if need in committed and _gives_samples(plan, need)), None
    )
    counts = _counted(comparison, plan, read, committed[source]) if source and read else None
    exact = counts is not None
    if counts is None:
        limit = _at_most(plan, stage)
        if limit is None:
            return None
        counts = _shared_out(comparison, limit if comparison.half == "all" else limit // 2)
    effect = _smallest(comparison, list(counts.values()), comparison.alpha / (family or 1))
    facts_of = {
        "groups": counts,
        "exact": exact,
        "family": family,
        "alpha": comparison.alpha,
        "power": POWER,
    }
    return {**facts_of, "effect": comparison.effect, comparison.effect: effect}


def _shared_out(comparison: PlannedComparison, units: int) -> dict[str, int]:
    """The units divided into groups of equal size; two if the spec names none, since two groups
    detect the smallest effect.
    """
    names = _names(comparison, ("one", "another"))
    return {name: units // len(names) for name in names}


def _smallest(comparison: PlannedComparison, counts: Sequence[int], alpha: float) -> float | None:
    if comparison.effect == "r":
        return smallest_r(counts[0], alpha)
    if comparison.effect == "eta2":
        return smallest_eta2(counts, alpha)
    return smallest(counts[0], counts[1], alpha)


def smallest(first: int, second: int, alpha: float) -> float | None:
    """The |d| between the means of two groups of independent clusters that Welch's test at `alpha`
    detects with `POWER`. The critical value uses the degrees of freedom of the smaller group:
    pooled degrees of freedom would promise more than a test of unequal groups that holds alpha can
    detect. None with too few clusters to estimate a variance.
    """
    from scipy.special import nctdtr, stdtrit

    if min(first, second) < 2:
        return None
    edge = -float(stdtrit(min(first, second) - 1, alpha / 2))
    scale = (1 / first + 1 / second) ** 0.5
    df = scale**4 / (
        1 / (first**2 * (first - 1)) + 1 / (second**2 * (second - 1))
    )  # assumes equal variances
    low, high = 0.0, 2 * edge + 20.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - float(nctdtr(df, middle, edge)) < POWER else (low, middle)
    return float(high * scale)


def smallest_r(units: int, alpha: float) -> float | None:
    """The |r| over `units` independent clusters that the t test of a correlation at `alpha` detects
    with `POWER`, by Fisher's z.
    """
    from scipy.special import ndtri, stdtrit

    if units < 4:
        return None
    edge = -float(stdtrit(units - 2, alpha / 2))
    seen = atanh(edge / (units - 2 + edge**2) ** 0.5) + float(ndtri(POWER)) / (units - 3) ** 0.5
    r = tanh(seen)
    for _ in range(20):
        r = tanh(seen - r / (2 * (units - 1)))  # the bias of a sample's z
    return r


def smallest_eta2(counts: Sequence[int], alpha: float) -> float | None:
    """The share of the variance between groups of these numbers of clusters that Fisher's F at
    `alpha` detects with `POWER`.
    """
    from scipy.special import fdtri, ncfdtr

    total, groups = sum(counts), len(counts)
    if groups < 2 or min(counts) < 1 or total <= groups:
        return None
    edge = float(fdtri(groups - 1, total - groups, 1 - alpha))
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        away = total * middle / (1 - middle)
        low, high = (
            (middle, high)
            if 1 - float(ncfdtr(groups - 1, total - groups, away, edge)) < POWER
            else (low, middle)
        )
    return high


def _features(plan: Plan, stage: Stage, *, each: bool) -> int | None:
    """How many features the SAEs of earlier stages have, in total or `each`; None until they are
    fetched.
    """
    seen, todo = set(), list(stage.needs)
    results: list[Any] = []
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            before = plan.stage(name)
            todo.extend(before.needs)
            if before.saes is not None and "spaces" in before.part.writes:
                known = facts(before.saes)
                results.append(known.get("width" if each else "features"))
    if not results or None in results:
        return None
    return int(max(results) if each else sum(results))


def _gives_samples(plan: Plan, name: str) -> bool:
    return "samples" in plan.stage(name).part.writes


def _at_most(plan: Plan, stage: Stage) -> int | None:
    """The most units that the source can yield: the limit, or what the stage before it makes."""
    for need in stage.needs:
        source = plan.stage(need)
        if _gives_samples(plan, need):
            made = [
                units
                for before in source.needs
                if (units := plan.stage(before).units()) is not None
            ]
            limit = max_samples(source, {}) if not made else None
            known = [units for units in (source.limit, limit, *made) if units is not None]
            return min(known) if known else None
    return None


# --- counting -------------------------------------------------------------------------------------


def _counted(
    comparison: PlannedComparison, plan: Plan, read: Read, rows: Sequence[StepRow]
) -> dict[str, int] | None:
    """The number of independent clusters of each group; None if the samples do not have the
    label.
    """
    meta = read("sample_meta", rows).to_pylist()
    label = _words(meta, comparison.by)
    samples = read("samples", rows).select(["sample", "unit", "cluster"]).to_pylist()
    if comparison.cluster == "state":
        state_of = _words(meta, "state")
        if any(row["sample"] not in state_of for row in samples):
            return None  # the comparison will be refused
        samples = joined_by_state(samples, state_of)
    chosen, _ = in_half(
        plan.loaded.spec.seed, samples, comparison.half, prompts=comparison.cluster != "none"
    )
    samples = [row for row in samples if row["sample"] in label and row["sample"] in chosen]
    named = {name for name in comparison.groups or () if name is not None}
    if not label or (named and not named & set(label.values())):
        return None
    if comparison.unit in ("unit", "sample"):
        unit_of = {row["sample"]: row[comparison.unit] for row in samples}
    else:
        unit_of = _words(meta, comparison.unit)
        if any(row["sample"] not in unit_of for row in samples):
            return None  # the comparison will be refused
    members: dict[str, list[tuple[str, str]]] = {
        name: [] for name in _names(comparison, label.values())
    }
    for row in samples:
        group = _group_of(comparison, label[row["sample"]])
        if group is not None:
            members[group].append(_member_key(comparison, unit_of[row["sample"]], row["cluster"]))
    return {name: _clusters(pairs) for name, pairs in members.items()}


def _names(comparison: PlannedComparison, there: Iterable[str]) -> list[str]:
    """The names of the groups; for a trend, one group named after the number."""
    if comparison.effect == "r":
        return [comparison.by]
    return [name or "rest" for name in comparison.groups or sorted(set(there))]


def _group_of(comparison: PlannedComparison, value: str) -> str | None:
    """The group of a sample with this value; None if it belongs to none."""
    named = comparison.groups is None or value in comparison.groups
    if comparison.effect == "r":
        return comparison.by if named else None
    return value if named else "rest" if None in (comparison.groups or ()) else None


def _member_key(comparison: PlannedComparison, unit: str, prompt: str) -> tuple[str, str]:
    """The unit of a sample and, if equal prompts are one cluster, its prompt: samples that share
    one are joined.
    """
    return f"u{unit}", f"p{prompt}" if comparison.cluster != "none" else f"u{unit}"


def _words(meta: Sequence[Mapping[str, Any]], key: str) -> dict[str, str]:
    """Each sample's value of a key, spelt as in a spec."""
    return {
        row["sample"]: row["string"] if row["string"] is not None else written(row["number"])
        for row in meta
        if row["key"] == key and (row["string"] is not None or row["number"] is not None)
    }


def _clusters(pairs: Sequence[tuple[str, str]]) -> int:
    """The number of connected components of these pairs."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = name = parent[above]
        return name

    for first, second in pairs:
        parent[root(first)] = root(second)
    return len({root(name) for name in list(parent)})
