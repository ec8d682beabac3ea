"""Executors under names of their own: two of one part in one run, each with params of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit._cli.schema import spec_schema
from toolkit._plugins.loading import load_parts
from toolkit._run.event_log import read_events
from toolkit._spec.spec import is_reference
from toolkit_store import open_store

CUDA, SLIM = ("sha256:" + digit * 64 for digit in "ab")
IN_IMAGES = {
    "docker": {"image": CUDA, "gpus": [5]},
    "slim": {"uses": "docker", "with": {"image": SLIM, "gpus": "none", "memory": "4g"}},
}


@pytest.fixture
def spec(toy: Any) -> Path:
    """The toy spec, whose statistics run in an image of their own."""
    return written(toy(), IN_IMAGES, on="slim")


def written(path: Path, executors: dict[str, Any], on: str | None = None) -> Path:
    """A spec with these executors; its statistics run on one of them."""
    spec = yaml.safe_load(path.read_text())
    spec["executors"] = executors
    if on is not None:
        spec["stages"][1]["on"] = on
    path.write_text(yaml.safe_dump(spec))
    return path


def test_a_dry_run_prints_the_lines_of_both_images(toolkit: Any, spec: Path) -> None:
    result = toolkit.run("run", spec, "--on", "docker", "--dry-run")
    assert result.returncode == 0, result.stderr
    docker_title, docker, slim_title, slim = result.stdout.splitlines()
    assert (docker_title, slim_title) == ("# docker: samples, features", "# slim (docker): groups")
    assert f"{CUDA} python -m toolkit.worker" in docker
    assert "--gpus '\"device=5\"'" in docker
    assert f"{SLIM} python -m toolkit.worker" in slim
    assert "--memory 4g" in slim
    assert "--gpus" not in slim


def test_gpus_of_the_command_line_are_for_those_who_may_have_one(
    toolkit: Any, spec: Path, nvidia_smi: Any
) -> None:
    words = ("run", spec, "--on", "docker", "--dry-run", "--gpu", "1")
    lines = toolkit.run(*words, PATH=nvidia_smi(2)).stdout.splitlines()
    assert ["GPU-uuid-1" in line for line in lines] == [False, True, False, False]
    alone = ("--set", "stages.groups.on=docker", "--set", "executors.docker.gpus=none")
    lines = toolkit.run(*words, *alone, PATH=nvidia_smi(2)).stdout.splitlines()
    assert ["GPU-uuid-1" in line for line in lines] == [True], "--gpu is not ignored"


def test_check_and_plan_say_what_runs_on_which(toolkit: Any, spec: Path) -> None:
    checked = toolkit.run("check", spec, "--on", "docker").stdout
    assert "on docker: samples, features\non slim (docker): groups\n" in checked
    assert "on local" not in toolkit.run("check", spec, "--set", "stages.groups.on=local").stdout
    plan = [
        line.split() for line in toolkit.run("plan", spec, "--on", "docker").stdout.splitlines()
    ]
    assert ["STAGE", "PART", "ON"] in [line[:3] for line in plan]
    assert ["groups", "compare.means", "slim"] in [line[:3] for line in plan]
    rows = json.loads(toolkit.run("plan", spec, "--on", "slim", "--json").stdout)["stages"]
    assert {row["stage"]: row["on"] for row in rows} == dict.fromkeys(
        ("samples", "features", "groups"), "slim"
    )
    one = toolkit.run("plan", spec, "--on", "slim").stdout
    assert "--on slim` computes" in one
    assert "  ON  " not in one


@pytest.mark.slow
def test_two_of_one_part_work_in_one_run_and_leave_the_tables_of_one(
    toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    plain = toolkit.run("run", toy("plain.yaml"), TOOLKIT_STORE=str(tmp_path / "alone"))
    assert plain.returncode == 0, plain.stderr
    alone = open_store(tmp_path / "alone")
    pools = {
        "local": {"workers": 1},
        "slim": {"uses": "local", "with": {"threads": 1, "workers": 2}},
    }
    result = toolkit.run("run", written(toy(), pools, on="slim"))
    assert result.returncode == 0, result.stderr
    (folder,) = (toolkit.store / "runs").iterdir()
    ready = {
        event.worker: event.executor
        for event in read_events(folder)
        if event.event == "worker_ready"
    }
    assert ready == {"local-0": "local", "slim-0": "slim"}
    manifest = json.loads((folder / "manifest.json").read_text())
    recorded = [(one["name"], one["executor"], one["workers"]) for one in manifest["executors"]]
    assert recorded == [("local", "local", 1), ("slim", "local", 2)]
    assert {stage["id"]: stage["on"] for stage in manifest["stages"]}["groups"] == "slim"
    assert folder.name == alone.run_states()[-1].run, "where it runs makes no other run"
    keys = alone.run_states()[-1].steps
    assert open_store(toolkit.store).fingerprint(keys) == alone.fingerprint(keys)
    assert "<td>slim-0</td>" in (folder / "report.html").read_text()
    shown = toolkit.run("show", folder.name).stdout
    assert "executors   local, slim (local)" in shown
    assert ["groups", "compare.means", "slim"] in [line.split()[:3] for line in shown.splitlines()]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            "stages.groups.on=slin",
            "stages.1.on: There is no executor 'slin'. Did you mean 'slim'? Executors: apptainer, "
            "docker, local, ray, slim, slurm.",
        ),
        (
            "executors.slim.image=cpu",
            "executors.slim.image: unknown key 'image' for executor 'slim', whose params stand "
            "under `with`; allowed: uses, with.",
        ),
        (
            "executors.slim.with.imag=cpu",
            "executors.slim.with.imag: unknown key 'imag' for executor 'slim'; allowed: workers, "
            "threads, gpus, image, cdi, memory, shm, pids. Did you mean 'image'?",
        ),
        (
            "executors.slim.uses=dokcer",
            "executors.slim.uses: There is no executor part 'dokcer'. Did you mean 'docker'?",
        ),
        (
            "executors.moon={image: cpu}",
            "An entry with another name must say which executor it `uses`: `moon: {uses: docker}`",
        ),
        ("executors.slim.with=4", "executors.slim.with: must be a map, not 4."),
    ],
)
def test_a_wrong_entry_is_refused_with_what_is_allowed(
    toolkit: Any, spec: Path, change: str, problem: str
) -> None:
    result = toolkit.run("check", spec, "--set", change)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: --set {change}: ")
    assert problem in result.stderr


def test_on_lists_the_names_of_the_spec_and_of_what_is_installed(toolkit: Any, spec: Path) -> None:
    result = toolkit.run("run", spec, "--on", "slin", "--dry-run")
    assert result.returncode == 2
    assert "--on slin: There is no executor 'slin'. Did you mean 'slim'? Executors: " in (
        result.stderr
    )


def test_overlays_and_set_change_an_entry(toolkit: Any, spec: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("executors: {slim: {with: {memory: 8g}}}\n")
    words = ("run", spec, "--on", "slim", "--dry-run", "--overlay", overlay)
    merged = toolkit.run(*words, "--set", "executors.slim.with.pids=512").stdout
    assert "--pids-limit 512 --shm-size 2g --memory 8g --env" in merged
    assert SLIM in merged
    overlay.write_text(f"executors: {{slim: {{uses: docker, with: {{image: {CUDA}}}}}}}\n")
    replaced = toolkit.run(*words).stdout
    assert CUDA in replaced
    assert "--memory" not in replaced, "an entry that sets `uses` replaces the whole"


def test_the_name_of_an_executor_may_mean_another(toolkit: Any, spec: Path, tmp_path: Path) -> None:
    """On a cluster without Docker, an overlay sends `on: docker` to Apptainer."""
    overlay = tmp_path / "cluster.yaml"
    sif = tmp_path / "cuda.sif"
    overlay.write_text(
        f"executors: {{docker: {{uses: apptainer, with: {{sif: {sif}, gpus: [5]}}}}}}\n"
    )
    lines = toolkit.run("run", spec, "--on", "docker", "--dry-run", "--overlay", overlay).stdout
    assert "# docker (apptainer): samples, features" in lines
    assert "apptainer exec" in lines


def computing(path: Path, image: str, name: str = "toy") -> Path:
    """A spec whose features are computed in an image."""
    slim = {"slim": {"uses": "docker", "with": {"image": image, "gpus": "none"}}}
    spec = yaml.safe_load(written(path, slim).read_text()) | {"name": name}
    spec["stages"][0]["on"] = "slim"
    path.write_text(yaml.safe_dump(spec))
    return path


def drawing(path: Path, *sources: Path) -> Path:
    """A spec with statistics of what each of these specs computes."""
    stages = [
        {
            "id": f"means{number}",
            "uses": "compare.means",
            "with": {"by": "group"},
            "needs": [{"spec": source.name, "stage": stage} for stage in ("samples", "features")],
        }
        for number, source in enumerate(sources)
    ]
    path.write_text(yaml.safe_dump({"version": 1, "name": "later", "stages": stages}))
    return path


def test_specs_that_describe_one_name_differently_are_refused(
    toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    first = computing(toy("first.yaml"), SLIM)
    second = computing(toy("second.yaml"), CUDA, "other")
    result = toolkit.run("check", drawing(tmp_path / "later.yaml", first, second))
    assert result.returncode == 2
    assert "executors.slim: another spec that this run uses defines it differently" in (
        result.stderr
    )
    assert "Define it in later.yaml." in result.stderr


def test_a_stage_of_another_spec_runs_on_the_executor_that_its_spec_describes(
    toolkit: Any, toy: Any, tmp_path: Path
) -> None:
    later = drawing(tmp_path / "later.yaml", computing(toy("first.yaml"), SLIM))
    lines = toolkit.run("run", later, "--dry-run").stdout
    assert "# slim (docker): toy/features" in lines
    assert SLIM in lines
    own = {"slim": {"uses": "docker", "with": {"image": CUDA}}}
    later.write_text(later.read_text() + f"executors: {json.dumps(own)}\n")
    assert f"{CUDA} python -m" in toolkit.run("run", later, "--dry-run").stdout, (
        "its own goes first"
    )


def test_the_schema_takes_both_forms() -> None:
    schema = spec_schema(load_parts())
    block, entry = schema["properties"]["executors"], schema["$defs"]["executor_part"]
    params, reference, alone = block["properties"]["docker"]["anyOf"]
    assert "image" in params["properties"]
    assert reference == block["additionalProperties"] == {"$ref": "#/$defs/executor_part"}
    assert set(entry["properties"]) == {"uses", "with"}
    assert entry["required"] == ["uses"]
    assert "docker" in [one["const"] for one in entry["properties"]["uses"]["oneOf"]]
    assert alone["properties"]["with"] == params
    (rule,) = (
        one for one in entry["allOf"] if one["if"]["properties"]["uses"]["const"] == "docker"
    )
    assert rule["then"]["properties"]["with"]["properties"].keys() == params["properties"].keys()


def test_params_are_told_from_a_reference() -> None:
    assert not is_reference(IN_IMAGES["docker"])
    assert is_reference(IN_IMAGES["slim"])
    assert is_reference({"with": {"image": SLIM}})
    assert not is_reference({})
