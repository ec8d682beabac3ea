"""The shipped specs, and new experiment folders made from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit._spec.load import load_spec
from toolkit._spec.spec_names import shipped_folder
from toolkit._spec.yaml import Node, load_yaml
from toolkit.errors import BadInput, choices, nearest
from toolkit.files.local import PACKAGE

DEFAULT = "two_groups"
"""The spec that `toolkit init NAME` copies by default."""
LAB_OVERLAY = "lab.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Shipped:
    """A spec that comes with the toolkit."""

    name: str
    path: Path
    summary: str

    @property
    def needs_overlay(self) -> bool:
        """Whether the spec names a large model and not files of an installed package. If so, the
        README suggests the overlay with the small packaged model.
        """
        return not any(text.startswith(PACKAGE) for text in _texts(load_yaml(self.path).root))


def shipped_specs() -> list[Shipped]:
    """The shipped specs by name, without overlays and the specs of the toolkit's own tests."""
    paths = sorted(shipped_folder().glob("*.yaml"))
    named = ((path, load_yaml(path).data) for path in paths)
    return [
        Shipped(path.stem, path, data.get("question") or _summary(path))
        for path, data in named
        if "name" in data and path.stem != "toy"
    ]


def _summary(path: Path) -> str:
    """The first sentence of a spec's opening comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("# ")]
    text = " ".join(line for line in comments if not line.startswith("yaml-language-server"))
    return re.split(r"(?<=[.?])\s|\s{2,}toolkit", text, maxsplit=1)[0].strip()


def begin(name: str, source: str, out: Path) -> Path:
    """Write the folder `out/NAME` with the spec `source`, the files it reads and a README; return
    the folder.
    """
    shipped = _find(source)
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"'{name}' cannot name an experiment. Use letters, digits, dots, dashes and "
            "underscores, a letter or digit first, at most 64."
        )
    folder = out / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(
            f"{folder} exists and is not empty. Choose another name, or another folder with --out."
        )
    files = {f"{name}.yaml": _renamed(shipped, name)}
    for path in _read_by(shipped.path):
        relative = path.relative_to(shipped_folder())
        files[str(relative)] = path.read_text(encoding="utf-8").replace("../out/", "out/")
    if shipped.needs_overlay:
        overlay = shipped_folder() / LAB_OVERLAY
        text = overlay.read_text(encoding="utf-8")
        files[LAB_OVERLAY] = re.sub(rf"(?m)^  {re.escape(source)}:", f"  {name}:", text)
    files["README.md"] = _readme(name, shipped, files)
    try:
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{folder} cannot be written: {error.strerror or error}.") from error
    load_spec(folder / f"{name}.yaml")
    return folder


def run_command(name: str, source: str) -> str:
    """The command that runs an experiment made from `source`, in its folder."""
    overlay = f" --overlay {LAB_OVERLAY}" if _find(source).needs_overlay else ""
    return f"toolkit run {name}.yaml{overlay}"


def _find(source: str) -> Shipped:
    known = {shipped.name: shipped for shipped in shipped_specs()}
    if source not in known:
        raise BadInput(
            f"There is no shipped spec '{source}'.{nearest(source, known)} Shipped: "
            f"{choices(known)}. `toolkit init --list` says what each does."
        )
    return known[source]


def _renamed(shipped: Shipped, name: str) -> str:
    """The spec's text under its new name, its commands and exports relative to its own folder."""
    text = shipped.path.read_text(encoding="utf-8")
    text = re.sub(rf"(?m)^name: {re.escape(shipped.name)}$", f"name: {name}", text)
    text = text.replace(f"specs/{shipped.path.name}", f"{name}.yaml").replace("specs/", "")
    return text.replace("../out/", "out/")


def _read_by(spec: Path) -> Iterator[Path]:
    """The files that a spec reads: its data, and specs that its samples come from."""
    for text in _texts(load_yaml(spec).root):
        path = spec.parent / text
        if re.fullmatch(r"[\w./-]+\.(csv|jsonl|yaml)", text) and path.is_file():
            yield path
            if path.suffix == ".yaml":
                yield from _read_by(path)


def _texts(node: Node) -> Iterator[str]:
    if isinstance(node.value, dict):
        for child in node.value.values():
            yield from _texts(child)
    elif isinstance(node.value, list):
        for child in node.value:
            yield from _texts(child)
    elif isinstance(node.value, str):
        yield node.value


def _readme(name: str, shipped: Shipped, files: dict[str, str]) -> str:
    overlay = f" --overlay {LAB_OVERLAY}" if shipped.needs_overlay else ""
    listed = "\n".join(f"- `{file}`" for file in sorted(files))
    real = (
        "\n"
        f"Without `--overlay {LAB_OVERLAY}` it runs on the models that the spec names; they need a "
        "GPU and a download:\n"
        "\n"
        "```bash\n"
        f"toolkit fetch {name}.yaml\n"
        f"toolkit run {name}.yaml\n"
        "```\n"
        if shipped.needs_overlay
        else ""
    )
    return f"""# {name}

{shipped.summary}

Next, in this folder:

```bash
toolkit check {name}.yaml{overlay}
toolkit plan {name}.yaml{overlay}
toolkit run {name}.yaml{overlay}
```

The last command runs offline on a CPU, with the small model that comes with the toolkit, and ends
with the path of a report. Stop it at any time: the same command continues.
{real}
Files:

{listed}

To make it your own, edit `{name}.yaml`: its comments say what each entry does. `toolkit plugins`
lists the parts that `uses` can name. Editors with a YAML language server complete and check the
spec by `spec.schema.json`; `toolkit schema --out spec.schema.json` renews it.
"""
