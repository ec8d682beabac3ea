"""What `toolkit cluster render` writes is valid by the whole schema that KubeRay publishes."""

from __future__ import annotations

import copy
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
NOT_CHECKED = {
    "default",
    "description",
    "format",
    "nullable",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
}
"""Keywords that refuse nothing here: an int-or-string has its types in `anyOf`."""


def problems(schema: Mapping[str, Any], value: Any, at: str = "") -> Iterator[str]:
    """What a strict API server refuses: wrong types, missing and unknown fields, and so on."""
    kind = schema.get("type")
    if kind is not None:
        is_right = isinstance(value, TYPES[kind])
        if not is_right or (isinstance(value, bool) and kind != "boolean"):
            yield f"{at}: is not of type {kind}"
            return
    for keyword, rule in schema.items():
        if keyword != "type" and keyword not in NOT_CHECKED:
            yield from CHECKS[keyword](schema, rule, value, at)


def _properties(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    for name, item in value.items():
        if name in rule:
            yield from problems(rule[name], item, f"{at}.{name}")
        elif at or name not in ("apiVersion", "kind", "metadata"):
            yield f"{at}.{name}: unknown field"


def _required(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    yield from (f"{at}.{name}: missing" for name in rule if name not in value)


def _items(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    for number, item in enumerate(value):
        yield from problems(rule, item, f"{at}[{number}]")


def _additional(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    for name, item in value.items():
        if isinstance(rule, dict):
            yield from problems(rule, item, f"{at}.{name}")


def _any_of(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    if all(list(problems(choice, value, at)) for choice in rule):
        yield f"{at}: fits none of {rule}"


def _pattern(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(rule, value):
        yield f"{at}: '{value}' is not of the form {rule}"


def _enum(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    if value not in rule:
        yield f"{at}: {value!r} is none of {rule}"


def _bounds(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    size = value if isinstance(value, int | float) else len(value)
    smallest = max(schema.get(name, size) for name in ("minimum", "minLength", "minItems"))
    if not smallest <= size <= schema.get("maxLength", size):
        yield f"{at}: {value!r} is out of bounds"


def _unique_keys(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    keys = [tuple(str(item.get(name)) for name in rule) for item in value]
    if len(set(keys)) != len(keys):
        yield f"{at}: two entries with the same {rule}"


def _rules(schema: Mapping[str, Any], rule: Any, value: Any, at: str) -> Iterator[str]:
    yield f"{at}: has rules that are not evaluated here: {rule}"


CHECKS = {
    "properties": _properties,
    "required": _required,
    "items": _items,
    "additionalProperties": _additional,
    "anyOf": _any_of,
    "pattern": _pattern,
    "enum": _enum,
    "minimum": _bounds,
    "minLength": _bounds,
    "maxLength": _bounds,
    "minItems": _bounds,
    "x-kubernetes-list-map-keys": _unique_keys,
    "x-kubernetes-validations": _rules,
}


@pytest.fixture(scope="module")
def published() -> Any:
    return json.loads(gzip.decompress((Path(__file__).parent / "rayjob-v1.json.gz").read_bytes()))


def rendered(toolkit: Any, spec: Path, settings: str, *options: str) -> Any:
    spec.write_text(spec.read_text() + f"executors: {{ray: {settings}}}\n")
    words = ("--kind", "kuberay", "--image", "registry.example/toolkit@sha256:00", *options)
    done = toolkit.run("cluster", "render", spec, *words)
    assert done.returncode == 0, done.stderr
    _, job = yaml.safe_load_all(done.stdout)
    return job


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ("{}", ("--claim", "disk")),
        ("{workers: 3, gpus: 0.5, threads: 4}", ("--claim", "disk")),
        ("{workers: 8, gpus: 1, cpus: 1.5, memory: 25769803776}", ("--store", "s3://b/store")),
        ("{resources: {spot: 1}, labels: {zone: a}}", ("--claim", "disk")),
    ],
)
def test_what_is_rendered_is_valid_by_the_published_schema(
    settings: str, options: tuple[str, ...], published: Any, toolkit: Any, toy: Any
) -> None:
    job = rendered(toolkit, toy(), settings, *options)
    assert list(problems(published, job)) == []


def test_custom_resources_labels_and_whole_cores_reach_the_workers(toolkit: Any, toy: Any) -> None:
    """Actors that ask for what no pod offers would only wait."""
    settings = "{cpus: 1.5, resources: {spot: 1}, labels: {zone: a, kind: b}}"
    job = rendered(toolkit, toy(), settings, "--claim", "disk")
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    start = workers["rayStartParams"]
    assert json.loads(json.loads(start["resources"])) == {"spot": 1}
    assert start["labels"] == "zone=a,kind=b"
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["cpu"] == "2"


def test_the_name_is_one_that_kubernetes_takes(toolkit: Any, toy: Any) -> None:
    spec = toy()
    name = "A_Long.Name_of-an-Experiment.that_goes-on_and_.on"
    spec.write_text(spec.read_text().replace("name: toy", f"name: {name}", 1))
    job = rendered(toolkit, spec, "{}", "--claim", "disk")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"])


DAMAGES: dict[str, Any] = {
    "an unknown field": lambda job: job["spec"].update(shutdownAfter=True),
    "a missing field": lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"].pop("template"),
    "a wrong type": lambda job: job["spec"].update(entrypoint=["toolkit"]),
    "a number for a text": lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"][
        "rayStartParams"
    ].update({"num-cpus": 0}),
    "a size that is none": lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0][
        "template"
    ]["spec"]["containers"][0]["resources"]["limits"].update(memory="24 gigabytes"),
    "a name twice": lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"][
        "spec"
    ]["volumes"].append({"name": "spec"}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_schema_refuses_what_is_damaged(
    damage: str, published: Any, toolkit: Any, toy: Any
) -> None:
    job = copy.deepcopy(rendered(toolkit, toy(), "{gpus: 1}", "--claim", "disk"))
    DAMAGES[damage](job)
    assert len(list(problems(published, job))) == 1
