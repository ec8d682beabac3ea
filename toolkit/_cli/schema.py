"""`toolkit schema`: the JSON Schema of a spec, for editors. What follows `with` depends on what
`uses` names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import plugin_files_option
from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts
    from toolkit.parts import Part

PLACES = {"model": "model", "saes": "sae", "samples": "source"}
"""Which kind of part each key of a spec takes."""
USED = ("environment", "parser")
"""Kinds of parts that the params of other parts name."""


_USED_CLASSES = {f"Used{kind.capitalize()}": kind for kind in USED}
"""The classes of `toolkit.parts` by which params name them."""


@click.command("schema")
@plugin_files_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of stdout.",
)
def command(files: tuple[Path, ...], out: Path | None) -> None:
    """Write the JSON Schema (draft 2020-12) of a spec with all installed parts."""
    from toolkit._plugins.loading import load_parts
    from toolkit.errors import BadInput

    text = schema_text(load_parts(files))
    if out is None:
        echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{out} cannot be written: {error.strerror}. Give another file with --out."
        ) from error


def schema_text(parts: Parts) -> str:
    """The schema as it is written to a file."""
    return json.dumps(spec_schema(parts), indent=2) + "\n"


def spec_schema(parts: Parts) -> dict[str, Any]:
    """The schema of `Spec`, with one definition for each kind of part in place of the general
    reference.
    """
    from toolkit._spec.spec import Spec

    schema = Spec.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    general, stage = definitions["PartRef"], definitions["StageSpec"]
    for key, kind in PLACES.items():
        definitions[f"{kind}_part"] = _with_parts(
            general, parts.of(kind), definitions, leave_out=_foreign_keys(kind)
        )
        for owner in (schema, stage):
            owner["properties"][key] = {
                "anyOf": [{"$ref": f"#/$defs/{kind}_part"}, {"type": "null"}],
                "default": None,
            }
    definitions["sink_part"] = _with_parts(
        general, parts.of("sink"), definitions, leave_out=_foreign_keys("sink")
    )
    schema["properties"]["sinks"]["items"] = {"$ref": "#/$defs/sink_part"}
    definitions["StageSpec"] = _with_parts(stage, parts.of("stage"), definitions)
    schema["properties"]["executors"] |= _executors(parts, definitions)
    for kind in USED:
        definitions[f"{kind}_part"] = _with_parts(
            general, parts.of(kind), definitions, leave_out=_foreign_keys(kind)
        )
    definitions.pop("PartRef")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _executors(parts: Parts, definitions: dict[str, Any]) -> dict[str, Any]:
    """An entry names the executor that it `uses`. One with the name of an executor may omit that,
    and may be the params themselves.
    """
    from toolkit._spec.spec import ExecutorRef

    installed, general = parts.of("executor"), ExecutorRef.model_json_schema(by_alias=True)
    entry = _with_parts(general, installed, definitions)
    definitions["executor_part"] = {**entry, "required": ["uses"]}
    reference = {"$ref": "#/$defs/executor_part"}
    forms = {}
    for part in installed:
        params = _params(part, definitions, partial=True)
        with_only = {**general, "properties": {"with": params}, "required": ["with"]}
        forms[part.name] = {"anyOf": [params, reference, with_only]}
    return {"properties": forms, "additionalProperties": reference}


def _foreign_keys(kind: str) -> tuple[str, ...]:
    """Keys of the general part reference that belong to other kinds: `from` is for sources, `name`
    for sinks.
    """
    return tuple(key for key, owner in (("from", "source"), ("name", "sink")) if owner != kind)


def _with_parts(
    base: dict[str, Any],
    parts: list[Part],
    definitions: dict[str, Any],
    leave_out: tuple[str, ...] = (),
) -> dict[str, Any]:
    """`base` where `uses` is one of the parts and `with` follows the params of the one it names."""
    properties = {key: value for key, value in base["properties"].items() if key not in leave_out}
    names = [{"const": part.name, "description": part.help} for part in parts]
    uses = {**properties["uses"], "oneOf": names} if names else properties["uses"]
    rules = [_rule(part, definitions) for part in parts]
    return {
        **base,
        "properties": {**properties, "uses": uses},
        **({"allOf": rules} if rules else {}),
    }


def _rule(part: Part, definitions: dict[str, Any]) -> dict[str, Any]:
    params = _params(part, definitions)
    then: dict[str, Any] = {"properties": {"with": params}}
    if params.get("required"):
        then["required"] = ["with"]
    return {
        "if": {"properties": {"uses": {"const": part.name}}, "required": ["uses"]},
        "then": then,
    }


def _params(part: Part, definitions: dict[str, Any], *, partial: bool = False) -> dict[str, Any]:
    """The params' schema; its own definitions move to the top under the part's name, as two plugins
    may use one name.
    """
    prefix = f"{part.kind}.{part.name}."
    made = part.params.model_json_schema(by_alias=True, ref_template=f"#/$defs/{prefix}{{model}}")
    for name, value in made.pop("$defs", {}).items():
        used = _USED_CLASSES.get(name)
        refers = {"$ref": f"#/$defs/{used}_part"} if used else value
        definitions[f"{prefix}{name}"] = refers
    if "$ref" in made:  # a recursive model refers to itself
        return made
    return {key: value for key, value in made.items() if not (partial and key == "required")}
