"""The names of specs in a folder: an overlay changes single specs by their names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from toolkit._spec.overlay import ONLY, label
from toolkit._spec.yaml import Node, load_yaml
from toolkit.errors import SpecError, nearest


def shipped_folder() -> Path:
    """The folder of the shipped specs: inside the installed package, in a checkout next to it."""
    package = Path(__file__).parents[1]
    inside = package / "specs"
    return inside if inside.is_dir() else package.parent / "specs"


def check_only(overlay: Node, root: Node, folders: Iterable[Path]) -> None:
    """Refuse changes of a spec that is neither this one, nor in one of the folders, nor shipped:
    its name is misspelt, and the changes would never be made.
    """
    if not isinstance(overlay.value, dict) or ONLY not in overlay.value:
        return
    this, single = label(root, "name"), overlay.value[ONLY].value
    if not isinstance(single, dict) or set(single) <= {this}:
        return
    known = {this, *_names_in({*folders, shipped_folder()})}
    for name, change in single.items():
        if name not in known:
            raise SpecError(
                f"{change.location}: {ONLY}.{name}: There is no spec of this name."
                f"{nearest(name, known)} Specs here: {', '.join(sorted(known))}."
            )


def _names_in(folders: Iterable[Path]) -> set[str]:
    files = {file for folder in folders for file in folder.glob("*.y*ml")}
    return {name for file in sorted(files) if (name := _name_in(file))}


def _name_in(file: Path) -> str:
    """The name of the spec in a file; empty for other files, also for broken ones."""
    try:
        return label(load_yaml(file).root, "name")
    except SpecError:
        return ""
