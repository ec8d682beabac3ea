"""Write a new plugin package from `toolkit/_plugins/templates`, with one working part of the
requested kind.

The package installs and passes its contract test unchanged; a test does both for every kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType

from toolkit._plugins.loading import plugin_names
from toolkit._plugins.part_checks import STAGE_PREFIXES
from toolkit.errors import BadInput, choices, nearest

_SPEC = "version: 1\nname: $name\n"
_TOY_SAMPLES = "samples: {uses: count, with: {n: 8}}\n"
_TOY_PARTS = "model: {uses: toy}\nsaes: {uses: toy}\n"
_LAB_MODEL = 'model: {uses: huggingface, with: {path: "package:toolkit_lab/files/model"}}\n'
_EXTRACT = "stages:\n  - {id: features, uses: extract.hash}\n"

EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "source": _SPEC + "samples: {uses: $part}\n",
        "extract": _SPEC + _TOY_SAMPLES + "stages:\n  - {id: own, uses: $part}\n",
        "trace": _SPEC + _TOY_SAMPLES + "stages:\n  - {id: own, uses: $part}\n",
        "play": _SPEC + "stages:\n  - {id: own, uses: $part}\n",
        "environment": _SPEC
        + _LAB_MODEL
        + "stages:\n  - {id: play, uses: play.games, with: {game: {uses: $part}, reps: 4}}\n",
        "parser": _SPEC + _LAB_MODEL + "stages:\n  - id: play\n    uses: play.games\n    with:\n"
        "      game: {uses: slot_machine, with: {components: [G]}}\n"
        "      parser: {uses: $part}\n",
        "measure": _SPEC + _LAB_MODEL + "stages:\n  - id: play\n    uses: play.games\n"
        "    with: {game: {uses: slot_machine, with: {components: [G]}}, reps: 4}\n"
        "  - {id: own, uses: $part, needs: [play]}\n",
        "compare": _SPEC
        + _TOY_PARTS
        + _TOY_SAMPLES
        + _EXTRACT
        + "  - {id: own, uses: $part, needs: [features]}\n",
        "patch": _SPEC
        + _TOY_PARTS
        + _TOY_SAMPLES
        + _EXTRACT
        + "  - {id: own, uses: $part, needs: [features]}\n",
        "words": _SPEC
        + _TOY_PARTS
        + _TOY_SAMPLES
        + _EXTRACT
        + "  - {id: own, uses: $part, needs: [features]}\n",
        "sink": _SPEC
        + _TOY_PARTS
        + _TOY_SAMPLES
        + _EXTRACT
        + "  - {id: means, uses: compare.means, needs: [features]}\n"
        "sinks:\n"
        "  - {uses: $part, with: {path: out}}\n",
    }
)
"""Specs that run the new part with the toy parts, for the kinds that can run alone."""

PLAIN_KINDS = ("model", "sae", "source", "environment", "parser", "sink", "executor", "report")
STAGE_KINDS = tuple(
    prefix for prefix in STAGE_PREFIXES if prefix != "examine"
)  # one examination serves every adapter
KINDS = (*PLAIN_KINDS, *STAGE_KINDS)


def write_plugin(name: str, kind: str, out: Path) -> Path:
    """Write the package `toolkit-NAME` into the folder `out`; returns the package's folder. An
    existing one is not touched.
    """
    _check(name, kind)
    folder = out / f"toolkit-{name}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(
            f"{folder} exists and is not empty. Choose another name, or another folder with --out."
        )
    for path, text in package_files(name, kind).items():
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise BadInput(
                f"{target} cannot be written: {error.strerror}. Choose another folder with --out."
            ) from error
    return folder


def package_files(name: str, kind: str) -> dict[str, str]:
    """The files of a new package, by their path inside it."""
    module = name.replace("-", "_")
    words = {
        "name": name,
        "kind": kind,
        "module": module,
        "part": f"{kind}.{name}" if kind in STAGE_KINDS else name,
    }
    usage = "A spec that uses it: `toolkit run example.yaml`.\n" if kind in EXAMPLES else ""
    written = {
        "pyproject.toml": _filled("pyproject.toml", words),
        "README.md": _filled("README.md", {**words, "usage": usage}),
        f"toolkit_{module}/__init__.py": _filled(f"parts/{kind}.py", words),
        "tests/test_contract.py": _filled("test_contract.py", words),
    }
    return {
        **written,
        **(
            {"example.yaml": Template(EXAMPLES[kind]).substitute(words)} if kind in EXAMPLES else {}
        ),
    }


def _check(name: str, kind: str) -> None:
    if kind not in KINDS:
        raise BadInput(f"There is no kind '{kind}'.{nearest(kind, KINDS)} Kinds: {choices(KINDS)}.")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise BadInput(
            f"'{name}' is not a plugin name. Use lower-case letters, digits and single '-', "
            "beginning with a letter."
        )
    if name in plugin_names():
        raise BadInput(
            f"A plugin named '{name}' is installed already. Choose another name. See: toolkit "
            "plugins"
        )


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (
        files("toolkit")
        .joinpath("_plugins", "templates", f"{template}.tmpl")
        .read_text(encoding="utf-8")
    )
    return Template(text).substitute(words)
