"""The benchmark of charts in a browser: every way draws, under a policy without `unsafe-eval`."""

from __future__ import annotations

import re

import pytest

from tests.browsing import CHROMIUM, IN_A_BROWSER
from tests.test_benchmarks import printed_by

pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(300)]


def test_every_way_draws_and_only_ours_needs_nothing_more() -> None:
    printed = printed_by("charts", "--tiny", "--browser", str(CHROMIUM))
    timed = re.findall(r"^(?:volcano|histogram|heatmap) .*x\)$", printed, re.MULTILINE)
    assert len(timed) == 9
    assert "ours: drawn: yes; refused by the policy: nothing\n" in printed
    assert "vega canvas: drawn: yes; refused by the policy: 2 style-src-elem inline\n" in printed
    assert re.search(r"vega, compiled: drawn: no: .*script-src eval", printed)
