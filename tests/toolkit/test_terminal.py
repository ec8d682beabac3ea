"""What is printed for people holds no character that a terminal obeys."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toolkit.terminal
from toolkit._run.event_log import EventLog
from toolkit._run.events import StoreWaiting
from toolkit.terminal import cell, echo, echo_data, printable
from toolkit_store import locks

ATTACKS = {
    "\x1b[31mred": r"\x1b[31mred",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31m": r"\x9b31m",
    "a\u202egnp.exe": r"a\u202egnp.exe",
    "a\u2066b\u2069": r"a\u2066b\u2069",
    "\udc9b lone": r"\udc9b lone",
    "over\rwritten": r"over\x0dwritten",
    "back\x08space": r"back\x08space",
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize(("text", "shown"), ATTACKS.items())
def test_what_a_terminal_obeys_is_written_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_words_of_any_script_newlines_and_tabs_stay() -> None:
    text = "naïve\t\u05e9\u05dc 日本語 👩\u200d🔬 \u0645\u06cc\u200c\u062e\n"
    assert printable(text) == text


def test_a_cell_is_one_line() -> None:
    assert cell("a\r\nb\nc\td\re") == "a b c d e"


@given(st.text(st.characters()))
def test_no_text_leaves_a_control_character(text: str) -> None:
    left = {char for char in printable(text) if unicodedata.category(char) in ("Cc", "Cs")}
    assert left <= {"\n", "\t"}
    assert "\n" not in cell(text)
    printable(text).encode()


def test_echo_prints_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    echo("\x1b[2J and \udcff")
    echo("\x1b]0;x\x07", err=True)
    shown = capsys.readouterr()
    assert shown.out == "\\x1b[2J and \\udcff\n"
    assert shown.err == "\\x1b]0;x\\x07\n"


def test_data_are_unchanged_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    echo_data("a,\u202eb\udcff")
    assert stream.getvalue() == "a,\u202eb\\udcff\n"


def test_data_are_escaped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, os.fdopen(master, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stdout", stream)
        echo_data("a,\x1b[31mb")
        stream.flush()
        assert screen.read(100) == b"a,\\x1b[31mb\r\n"


def test_a_holder_and_the_log_of_a_run_are_printed_as_escapes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    locks.log_wait("Waiting for \x1b[31mprocess\u202e\udcff")
    assert caplog.messages == ["Waiting for \\x1b[31mprocess\\u202e\\udcff"]
    with EventLog(tmp_path, ()) as log:
        log.emit(StoreWaiting(text="\x1b]0;a\x07\udcff"))
    assert "\\x1b]0;a\\x07\\udcff" in (tmp_path / "log.txt").read_text()


def test_commands_print_through_the_terminal_module() -> None:
    package = Path(toolkit.terminal.__file__).parent
    printing = re.compile(
        r"click\.(s?echo|secho|echo_via_pager)\(|(?<![\w.])print\(|sys\.std\w+\.write"
    )
    results = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted((package / "_cli").rglob("*.py"))
        for line in path.read_text().splitlines()
        if printing.search(line) and "json.dumps(facts)" not in line
    ]
    assert results == []


INTERRUPTED = """
import atexit, threading, time
from unittest.mock import patch
import toolkit._cli as command_line

atexit.register(print, "exit handlers ran")
threading.Thread(target=time.sleep, args=(300,)).start()
with patch.object(command_line.cli, "main", side_effect=KeyboardInterrupt):
    command_line.main()
"""


def test_an_interrupted_command_ends_at_once_and_without_a_traceback() -> None:
    """Exit handlers run; a thread that is still at work is not waited for."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 130
    assert ended.stdout == "exit handlers ran\n"
    assert ended.stderr == "Interrupted.\n"
