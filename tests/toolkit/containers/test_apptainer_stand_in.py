"""The executor `apptainer` through a stand-in for the program: it mounts what the command line
binds, in a mount namespace of its own, sets the environment, and starts the worker. A real
Apptainer is not run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit_store import open_store

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root"),
    pytest.mark.timeout(300),
]

STAND_IN = """#!/bin/bash
# apptainer exec [--contain --cleanenv --no-home --nv] [--pwd D] [--env K=V]... [--bind S:T:M]...
set -euo pipefail
[ "$1" = exec ] && shift
binds=() variables=(PATH=/usr/bin:/bin PYTHONPATH={path})
while [[ $1 == --* ]]; do
    case $1 in
        --bind) binds+=("$2"); shift 2 ;;
        --env) variables+=("$2"); shift 2 ;;
        --pwd) shift 2 ;;
        *) shift ;;
    esac
done
[ -f "$1" ] || exit 9
shift 2 # the image, and `python`
export BINDS="${{binds[*]}}"
exec unshare --mount bash -c '
    mount -t tmpfs tmpfs {root}
    for bind in $BINDS; do
        IFS=: read -r source target mode <<<"$bind"
        if [ -d "$source" ]; then mkdir -p "$target"; else
            mkdir -p "$(dirname "$target")"; touch "$target"; fi
        mount --bind "$source" "$target"
        [ "$mode" = rw ] || mount -o remount,bind,ro "$target"
    done
    variables=$1; shift
    IFS=$'"'"'\\x1f'"'"' read -r -a set <<<"$variables"
    exec env -i "${{set[@]}}" {python} "$@"
' stand-in "$(IFS=$'\\x1f'; echo "${{variables[*]}}")" "$@"
"""


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in on the PATH, and a file in the place of an image."""
    tools = tmp_path / "bin"
    tools.mkdir()
    Path("/toolkit").mkdir(exist_ok=True)
    program = tools / "apptainer"
    path = ":".join(entry for entry in sys.path if entry)
    program.write_text(STAND_IN.format(path=path, python=sys.executable, root="/toolkit"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    sif = tmp_path / "cpu.sif"
    sif.write_bytes(b"in the place of an image")
    return sif


def test_workers_through_apptainer_leave_the_tables_of_a_local_run(
    apptainer: Path, toolkit: Any, toy: Any, local_tables: Any
) -> None:
    spec = toy()
    expected = local_tables(spec).fingerprint
    spec.write_text(spec.read_text() + f"executors: {{apptainer: {{sif: {apptainer}}}}}\n")
    result = toolkit.run("run", spec, "--on", "apptainer")
    assert result.returncode == 0, result.stderr
    store = open_store(toolkit.store)
    assert store.fingerprint(store.run_states()[-1].steps) == expected
