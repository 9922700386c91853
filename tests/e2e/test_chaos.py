"""`bench/chaos.py`, short: a spot worker is killed every four seconds, nothing is lost, done twice or left over.

With `ORC_CHAOS=1` every other fault happens once as well: SIGTERM, SIGSTOP, the governor, the server, the scheduler.
"""

from __future__ import annotations

import os

import pytest

from bench import chaos

pytestmark = pytest.mark.real


@pytest.mark.timeout(900)
def test_nothing_is_lost_repeated_or_left_while_workers_are_killed(tmp_path):
    rounds = 1 if os.environ.get("ORC_CHAOS") else 0
    rows = chaos.run(
        tmp_path / "chaos", tasks=300, every=4.0, seconds=0.2, seed=1, rounds=rounds, patience=300, lease_percent=5.0
    )
    said = {row["what"]: row["measured"] for row in rows}
    assert [row for row in rows if not row["good"]] == [], said
