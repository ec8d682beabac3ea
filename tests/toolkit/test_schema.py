"""`toolkit schema`: the keys of a spec and of every installed part are in it, where they belong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit._cli.schema import command, spec_schema
from toolkit._plugins.loading import load_parts
from toolkit._spec.yaml import load_yaml, plain
from toolkit.errors import BadInput

TOY = Path(__file__).parents[2] / "specs" / "toy.yaml"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return spec_schema(load_parts())


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    results = list(_values(schema, "$ref"))
    assert results
    for reference in results:
        assert reference.removeprefix("#/$defs/") in schema["$defs"], reference


def test_with_follows_uses(schema: dict[str, Any]) -> None:
    rules = schema["$defs"]["StageSpec"]["allOf"]
    (rule,) = (
        rule for rule in rules if rule["if"]["properties"]["uses"]["const"] == "extract.hash"
    )
    params = rule["then"]["properties"]["with"]
    assert params["properties"]["width"]["minimum"] == 2
    assert params["additionalProperties"] is False


def test_only_samples_come_from_elsewhere_and_only_sinks_have_names(schema: dict[str, Any]) -> None:
    keys = {
        name: set(schema["$defs"][f"{name}_part"]["properties"])
        for name in ("model", "sae", "source", "sink")
    }
    both = {"uses", "with"}
    assert keys == {"model": both, "sae": both, "source": both | {"from"}, "sink": both | {"name"}}


def test_the_toy_spec_fits(schema: dict[str, Any]) -> None:
    spec: Any = plain(load_yaml(TOY).root)
    assert _problems(schema, spec, schema["$defs"]) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"modell": {}}, "unknown key modell"),
        ({"model": {"uses": "toy", "with": {"slat": 1}}}, "unknown key slat"),
        ({"model": {"uses": "tyo"}}, "uses"),
        ({"samples": {"uses": "count", "name": "x"}}, "unknown key name"),
        (
            {"stages": [{"id": "a", "uses": "extract.hash", "with": {"hight": 1}}]},
            "unknown key hight",
        ),
        ({"executors": {"docker": {"imag": "cuda"}}}, "unknown key imag"),
        ({"executors": {"slim": {"image": "cpu"}}}, "uses is missing"),
        ({"executors": {"slim": {"uses": "dokcer"}}}, "uses"),
        ({"executors": {"slim": {"uses": "docker", "with": {"imag": 1}}}}, "unknown key imag"),
    ],
)
def test_mistakes_do_not_fit(schema: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    spec: Any = {"version": 1, "name": "x", **change}
    assert problem in " ".join(_problems(schema, spec, schema["$defs"]))


@pytest.mark.parametrize(
    "entry",
    [
        {"docker": {"image": "cuda", "gpus": [5]}},
        {"docker": {"with": {"image": "cuda"}}},
        {"slim": {"uses": "docker", "with": {"image": "cpu", "gpus": "none"}}},
        {"docker": {"uses": "apptainer", "with": {"sif": "cuda.sif"}}},
    ],
)
def test_executors_fit_under_any_name(schema: dict[str, Any], entry: dict[str, Any]) -> None:
    spec: Any = {"version": 1, "name": "x", "executors": entry}
    assert _problems(schema, spec, schema["$defs"]) == []


def test_the_command_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "spec.schema.json"
    CliRunner().invoke(command, ["--out", str(out)], catch_exceptions=False)
    shown = CliRunner().invoke(command, [], catch_exceptions=False).output
    assert json.loads(shown) == json.loads(out.read_text())
    assert json.loads(shown)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written: No such file or directory"):
        CliRunner().invoke(
            command, ["--out", str(tmp_path / "no" / "file")], catch_exceptions=False
        )


def _values(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get(key), str):
            yield node[key]
        for child in node.values():
            yield from _values(child, key)
    elif isinstance(node, list):
        for child in node:
            yield from _values(child, key)


def _problems(schema: dict[str, Any], value: Any, definitions: dict[str, Any]) -> list[str]:
    """The small part of JSON Schema that says which keys and parts are allowed where."""
    if "$ref" in schema:
        return _problems(definitions[schema["$ref"].removeprefix("#/$defs/")], value, definitions)
    if "anyOf" in schema:
        options = [_problems(option, value, definitions) for option in schema["anyOf"]]
        return [] if any(not option for option in options) else options[0]
    result: list[str] = ["not null"] if schema.get("type") == "null" and value is not None else []
    if "oneOf" in schema and sum(value == option["const"] for option in schema["oneOf"]) != 1:
        result.append("uses")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties")
        for key in value.keys() - known.keys():
            result += [f"unknown key {key}"] if others is False else []
            result += _problems(others, value[key], definitions) if isinstance(others, dict) else []
        result += [f"{key} is missing" for key in schema.get("required", ()) if key not in value]
        for key in value.keys() & known.keys():
            result += _problems(known[key], value[key], definitions)
    if isinstance(value, list):
        for item in value:
            result += _problems(schema.get("items", {}), item, definitions)
    for rule in schema.get("allOf", ()):
        if value.get("uses") == rule["if"]["properties"]["uses"]["const"]:
            result += _problems(rule["then"], value, definitions)
    return result
