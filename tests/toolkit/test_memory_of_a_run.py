"""What the host keeps of a step while a run goes on: its row of the ledger."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest
import yaml

from toolkit import _flow
from toolkit._run.events import RunEvent, StepDone
from toolkit._run.options import RunOptions

STEPS, FROM, TO = 320, 100, 300


def objects() -> Counter[str]:
    """How many objects there are of each class."""
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_host_keeps_one_record_of_a_step(tmp_path: Path) -> None:
    stage = {"id": "features", "uses": "extract.hash", "with": {"batch": 1}}
    spec = {
        "version": 1,
        "name": "many",
        "model": {"uses": "toy"},
        "saes": {"uses": "toy"},
        "examine": "off",
        "samples": {"uses": "count", "with": {"n": STEPS}},
        "stages": [stage],
    }
    path = tmp_path / "many.yaml"
    path.write_text(yaml.safe_dump(spec))
    done: list[str] = []
    counted: dict[int, Counter[str]] = {}

    def listen(event: RunEvent) -> None:
        if isinstance(event, StepDone) and event.stage == "features":
            done.append(event.key)
            if len(done) in (FROM, TO):
                counted[len(done)] = objects()

    planned = _flow.plan(str(path), RunOptions(store=str(tmp_path / "store"), gpu="none"))
    _flow.run(planned, listen)
    more = counted[TO] - counted[FROM]
    assert abs(more.pop("StepRow") - (TO - FROM)) <= 64, "steps are committed up to 64 together"
    assert sum(more.values()) < TO - FROM, more.most_common(10)
