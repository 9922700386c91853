"""`orc up` with nothing to do."""

from __future__ import annotations

import pytest

from bench.idle import Usage, measure
from harness.wait import until

pytestmark = pytest.mark.real

#: a process that spins takes all of a core; one that waits takes 1 to 4 % of it
MOST_PERCENT = 20.0


def test_no_process_of_orc_up_spins_at_rest(orc):
    family = {"supervisor": orc.supervisor(), **orc.services()}
    used: list[Usage] = []

    def at_rest() -> bool:
        """no process takes more than a fifth of a core over 20 s"""
        # what tests before this one left to be recorded is dealt with first; what spins never ends
        used[:] = measure(family, 20)
        return all(usage.percent <= MOST_PERCENT for usage in used)

    until(at_rest, 90)
    assert {usage.service for usage in used} >= {"supervisor", "prefect-server", "dask-scheduler", "governor", "mind"}
