"""How many spoilt inputs the long fuzz tests give to each kind of reader.

There are five: specs, imports, SAE files, queries, and lines of workers. `nox -s fuzz` runs them
and prints the counts; TOOLKIT_FUZZ_COUNT says how many inputs each gets.
"""

from __future__ import annotations

import os

import pytest

FUZZ_COUNT = int(os.environ.get("TOOLKIT_FUZZ_COUNT", "2000"))
LONG = [pytest.mark.slow, pytest.mark.fuzz, pytest.mark.timeout(7200)]
"""The marks of a long fuzz test."""
