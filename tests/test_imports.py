"""Light commands stay light: none brings in torch, transformers, lancedb or a web server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOY, QUICKSTART = (str(ROOT / "specs" / name) for name in ("toy.yaml", "quickstart.yaml"))
ALLOWED = (0, 2)
"""Without a store, `status` and `runs` say so and exit with 2. Any other code is a crash."""
PROGRAM = """
import sys
from toolkit._cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    code = done.code or 0
else:
    code = 0
heavy = {"torch", "transformers", "lancedb", "starlette", "uvicorn"} & set(sys.modules)
print("HEAVY", *sorted(heavy), file=sys.stderr)
sys.exit(code)
"""


def heavy_after(*args: str, cwd: Path) -> list[str]:
    """Run the command in a fresh interpreter and say which of the heavy modules it imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in ALLOWED, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("HEAVY")]
    return line.split()[1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["--help"], id="help"),
        pytest.param(["--version"], id="version"),
        pytest.param(["run", "--help"], id="run-help"),
        pytest.param(["check", TOY], id="check"),
        pytest.param(["plan", TOY], id="plan"),
        pytest.param(["status"], id="status"),
        pytest.param(["runs"], id="runs"),
        pytest.param(["plugins"], id="plugins"),
        pytest.param(["plugins", "--json"], id="plugins-json"),
        pytest.param(["schema"], id="schema"),
        pytest.param(["query", "--help"], id="query-help"),
        pytest.param(["check", QUICKSTART], id="check-quickstart"),
        pytest.param(["view", "--help"], id="view-help"),
    ],
)
def test_nothing_heavy_is_imported_on_an_empty_store(args: list[str], tmp_path: Path) -> None:
    assert heavy_after(*args, cwd=tmp_path) == []


def test_help_imports_no_validation_and_no_arrow(tmp_path: Path) -> None:
    """`--help` answers in 0.3 s only while these stay away too."""
    program = (
        "import sys; from toolkit._cli import cli; cli.main(['--help'], standalone_mode=False);"
        + (
            "sys.exit(' '.join(sorted({'pyarrow', 'numpy', 'pydantic', 'yaml', 'rich'} & "
            "set(sys.modules))) or 0)"
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
