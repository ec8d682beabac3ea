"""What the code imports is what `pip install` brings: every third-party import is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = ("toolkit", "plugins", "store")
PART_OF = {
    "pydantic_core": "pydantic",
    "mlflow": "mlflow-skinny",
    "vl_convert": "vl-convert-python",
}
"""Modules whose declared distribution has another name, or pins theirs to exactly one version."""


def declared() -> set[str]:
    """Distributions that the project or one of its extras asks for."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return {normal(re.split(r"[\s\[<>=!~;]", line)[0]) for line in lines}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def third_party() -> dict[str, Path]:
    """Each module that is neither ours nor Python's, with a file that imports it."""
    result: dict[str, Path] = {}
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            for name in imported(path):
                if name not in sys.stdlib_module_names and not name.startswith("toolkit"):
                    result.setdefault(name, path)
    return result


def test_every_third_party_import_is_declared() -> None:
    provides = metadata.packages_distributions()
    result = third_party()
    assert {"torch", "yaml", "click", "huggingface_hub"} <= result.keys()
    undeclared = {
        name: str(path.relative_to(ROOT))
        for name, path in result.items()
        if not declared()
        & {normal(PART_OF.get(package, package)) for package in [name, *provides.get(name, ())]}
    }
    assert undeclared == {}
