"""Execute a notebook without Jupyter: `python docs/notebooks/execute.py NOTEBOOK...` runs the code
cells in order, in one namespace, and writes what they print and show into the file.

That is all that these notebooks need, so neither nbclient nor a kernel is installed for them. They
are plain `.ipynb` files, which Jupyter opens and runs as well.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def execute(path: Path) -> dict[str, Any]:
    """The notebook with the outputs of its cells; an error in a cell is raised as it is."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        count += 1
        cell["execution_count"] = count
        cell["outputs"] = outputs("".join(cell["source"]), names, f"{path.name}[{number}]", count)
    return notebook


def outputs(source: str, names: dict[str, Any], where: str, count: int) -> list[dict[str, Any]]:
    """Run one cell: what it printed, and its last expression as HTML and text."""
    body = ast.parse(source, where).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), where, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    out: list[dict[str, Any]] = []
    if text := printed.getvalue():
        out.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(True)
        kind = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
        out.append({**kind, "data": data})
    return out


def write(path: Path) -> None:
    """Execute a notebook and keep its outputs in the file."""
    text = json.dumps(execute(path), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
