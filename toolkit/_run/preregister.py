"""`preregister: true`: the tests, their family and the split are recorded and hashed before data
are read.

The record is in the run's folder and in its manifest. Changing it makes another run, whose record
names the earlier one, even under another name: steps are compared by content, and earlier records
by their data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._plan.keys import canonical, differences
from toolkit._plan.power import power_of
from toolkit._run.atomic import write_text
from toolkit._run.events import now, time_in_words
from toolkit._run.run_folder import run_folder
from toolkit._run.stage_progress import committed_counts
from toolkit.errors import Refused

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan, Stage
    from toolkit_store import Store

FILE = "preregistration.json"
DATA = frozenset(
    ("samples", "sample_meta", "activations", "streams", "spaces", "saes", "games", "rounds")
)
"""Tables of observations. A stage that writes any other table states results and counts as a
test.
"""


def register(plan: Plan, store: Store) -> dict[str, Any] | None:
    """Freeze the plan's family and split, once; refuse to continue with a record of another plan.
    None if the spec does not preregister.
    """
    if not plan.loaded.spec.preregister:
        return None
    path = run_folder(store.folder, plan.run) / FILE
    frozen = _frozen(plan)
    if path.exists():
        return _checked(path, frozen)
    before = committed_counts(plan, store)
    record: dict[str, Any] = {
        "registered_at": now(),
        "steps_before": sum(before.values()),
        "results_before": sorted(id for id in frozen["tests"] if before.get(id)),
        "families": _families(plan),
        "earlier": list(_earlier_runs(plan, store.folder, frozen)),
        "frozen": frozen,
    }
    record["sha256"] = _digest(record)
    write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def describe(record: Mapping[str, Any]) -> str:
    """The record in words, for the report."""
    before = int(record["steps_before"])
    were = "1 step of it was" if before == 1 else f"{before} steps of it were"
    when = (
        f"when {were} in the store"
        if before
        else "before any step of this experiment was in the store"
    )
    words = [
        f"Family and split were frozen on {time_in_words(record['registered_at'])}, {when} (sha256 "
        f"{record['sha256'][:16]})."
    ]
    families = [f"{id} {count:,}" for id, count in sorted(record["families"].items()) if count]
    words += [f"Tests in a family: {', '.join(families)}."] if families else []
    if record["results_before"]:
        words.append(
            f"The test's result already existed ({', '.join(record['results_before'])}): nothing "
            "was decided before it."
        )
    elif before:
        words.append("Its data may have been seen by then: read the results as exploration.")
    return " ".join([*words, *map(_describe_earlier, record["earlier"])])


def _describe_earlier(other: Mapping[str, Any]) -> str:
    if other["registered_at"] is None:
        return (
            f"The record of run {other['run']} cannot be read, so it is unknown whether it is "
            "about the same data."
        )
    changed = (
        f"since then changed: {other['changed']}"
        if other["changed"]
        else "nothing was changed since"
    )
    when = time_in_words(other["registered_at"])
    return (
        f"It, or what it is tested on, was registered before, as run {other['run']} on {when}; "
        f"{changed}."
    )


def _frozen(plan: Plan) -> dict[str, Any]:
    """Everything that defines the tests: each test with its settings, the source of its data, and
    the split of units.
    """
    stages = {stage.id: stage for stage in plan.stages}
    tests = {
        id: _stage(stage) for id, stage in stages.items() if not DATA.issuperset(stage.writes())
    }
    data = {id: _stage(stage) for id, stage in stages.items() if id not in tests}
    split = {
        "seed": plan.loaded.spec.seed,
        "rule": "toolkit.statistics.halves.in_half(seed, samples)",
    }
    return {"experiment": plan.name, "tests": tests, "data": data, "split": split}


def _families(plan: Plan) -> dict[str, int | None]:
    """The size of the family of each test that declares one; None if it is unknown until the files
    are fetched.
    """
    powers = {
        stage.id: power_of(plan, stage, {}, None)
        for stage in plan.stages
        if stage.part.estimates.comparison
    }
    return {id: power["family"] if power else None for id, power in powers.items()}


def _stage(stage: Stage) -> dict[str, Any]:
    return {**stage.material(), "needs": list(stage.needs)}


def _digest(record: Mapping[str, Any]) -> str:
    """The hash of the whole record, including its time and the results that existed then."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _checked(path: Path, frozen: Mapping[str, Any]) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = record["sha256"] == _digest(record)
        {record[name] for name in ("registered_at", "steps_before")}
        dict(record["frozen"]), dict(record["families"])
        list(record["results_before"])
        list(record["earlier"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{path}: the preregistration cannot be read ({error}). Put the file back as it was "
            "written."
        ) from None
    if not whole:
        raise Refused(
            f"{path}: the preregistration was changed after it was written: its hash is not that "
            "of what it holds. Put it back as it was."
        )
    if canonical(record["frozen"]) != canonical(frozen):
        changed = differences(canonical(record["frozen"]), canonical(frozen))
        raise Refused(
            f"{path}: this run was registered with another family or split; changed since: "
            f"{changed}. Run with the versions that it was registered with."
        )
    return record


def _earlier_runs(plan: Plan, store: Path, frozen: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Records of other runs of the same data or the same name, which reveal a family changed after
    looking at results.
    """
    records = []
    for path in (store / "runs").glob(f"*/{FILE}"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            same = record["frozen"]["experiment"] == plan.name or _origins(
                record["frozen"]
            ) & _origins(frozen)
            if same and path.parent.name != plan.run:
                changed = differences(canonical(record["frozen"]), canonical(frozen))
                records.append(
                    {
                        "run": path.parent.name,
                        "registered_at": record["registered_at"],
                        "changed": changed,
                    }
                )
        except (OSError, ValueError, KeyError, TypeError):
            records.append(
                {
                    "run": path.parent.name,
                    "registered_at": None,
                    "changed": "its record cannot be read",
                }
            )
    yield from sorted(records, key=lambda record: str(record["registered_at"] or ""))


def _origins(frozen: Mapping[str, Any]) -> set[str]:
    """The stages that need no other stage: the sources of the data, whatever their names."""
    return {canonical(stage) for stage in frozen["data"].values() if not stage["needs"]}
