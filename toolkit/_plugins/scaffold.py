"""Write a new plugin package from `toolkit/_plugins/templates`, with one working part of the
requested kind. For kinds that can run alone, `templates/examples` has a spec that runs the part.

The package installs and passes its contract test unchanged; a test does both for every kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from toolkit._plugins.loading import plugin_names
from toolkit._plugins.part_checks import STAGE_PREFIXES
from toolkit.errors import BadInput, choices, nearest

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
    example = _template(f"examples/{kind}.yaml")
    usage = "A spec that uses it: `toolkit run example.yaml`.\n" if example.is_file() else ""
    written = {
        "pyproject.toml": _filled("pyproject.toml", words),
        "README.md": _filled("README.md", {**words, "usage": usage}),
        f"toolkit_{module}/__init__.py": _filled(f"parts/{kind}.py", words),
        "tests/test_contract.py": _filled("test_contract.py", words),
    }
    if example.is_file():
        written["example.yaml"] = _filled(f"examples/{kind}.yaml", words)
    return written


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
    return Template(_template(template).read_text(encoding="utf-8")).substitute(words)


def _template(name: str) -> Traversable:
    return files("toolkit").joinpath("_plugins", "templates", f"{name}.tmpl")
