"""One run in two images: a stage in the image for CUDA, the statistics in the slim one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit._images.build import write_lock
from toolkit._run.event_log import read_events
from toolkit.containers.images import read_lock
from toolkit_store import open_store

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture
def pins(
    engine: Any, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """The pins of two images. That of CUDA takes gigabytes: here it is the slim one with a label
    more, which has an ID of its own.
    """
    slim = read_lock(image)["cpu"]
    container = engine.containers.create(slim.image, ["true"], network_mode="none")
    try:
        label = {"Labels": {"stands-in-for": "cuda"}}
        cuda = container.commit(conf=label).id
    finally:
        container.remove()
    lock = tmp_path / "images.yaml"
    write_lock("cuda", replace(slim, image=cuda), lock)
    write_lock("slim", slim, lock)
    monkeypatch.setenv("TOOLKIT_IMAGES", str(lock))
    assert cuda != slim.image
    yield {"cuda": cuda, "slim": slim.image}
    engine.images.remove(cuda, force=True)


def in_store(toolkit: Any, folder: Path, *words: str | Path) -> tuple[Path, Any]:
    """Run in a store of its own; the run's folder and the fingerprint of its tables."""
    result = toolkit.run("run", *words, TOOLKIT_STORE=str(folder))
    assert result.returncode == 0, result.stderr
    store = open_store(folder)
    state = store.run_states()[-1]
    return folder / "runs" / state.run, store.fingerprint(state.steps)


def test_a_cuda_stage_and_statistics_in_two_images_leave_the_tables_of_a_local_run(
    engine: Any, pins: dict[str, str], toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    path = toy()
    _, local = in_store(toolkit, tmp_path / "local", path)
    spec = yaml.safe_load(path.read_text())
    spec["executors"] = {
        "docker": {"image": "cuda", "gpus": "none"},
        "slim": {"uses": "docker", "with": {"image": "slim", "gpus": "none"}},
    }
    spec["stages"][1]["on"] = "slim"
    path.write_text(yaml.safe_dump(spec))
    begun = int(time.time())
    run, split = in_store(toolkit, tmp_path / "split", path, "--on", "docker")
    assert split == local
    assert run.name == next((tmp_path / "local" / "runs").iterdir()).name
    filters = {"type": "container", "event": "start"}
    started = engine.events(since=begun, until=int(time.time()) + 1, filters=filters, decode=True)
    assert {event["from"] for event in started} == set(pins.values())
    ran = {event.stage: event.worker for event in read_events(run) if event.event == "step_started"}
    assert ran == {"samples": "docker-0", "features": "docker-0", "groups": "slim-0"}
    recorded = json.loads((run / "manifest.json").read_text())["executors"]
    assert [(one["name"], one["executor"], one["image"]) for one in recorded] == [
        ("docker", "docker", pins["cuda"]),
        ("slim", "docker", pins["slim"]),
    ]
    assert engine.containers.list(all=True) == []
