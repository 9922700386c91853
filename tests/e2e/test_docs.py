"""What the reference says of a running ORC."""

from __future__ import annotations

import re

import pytest

from harness.processes import ROOT

pytestmark = pytest.mark.real


def test_every_figure_of_the_status_is_in_the_reference(orc):
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs/reference/metrics.md").read_text()))
    status = orc.governor("/status")
    assert set(status) | set(status["rules"]) | set(status["pools"][0]) <= named
