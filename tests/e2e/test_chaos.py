"""The short form of `bench/chaos.py`: everything is killed once, nothing is lost, done twice or left over."""

from __future__ import annotations

import pytest

from bench import chaos

pytestmark = pytest.mark.real


@pytest.mark.timeout(900)
def test_nothing_is_lost_repeated_or_left_while_workers_and_services_are_killed(tmp_path):
    rows = chaos.run(tmp_path / "chaos", tasks=400, every=4.0, seconds=0.2, seed=1, patience=300, lease_percent=5.0)
    said = {row["what"]: row["measured"] for row in rows}
    assert [row for row in rows if not row["good"]] == [], said
