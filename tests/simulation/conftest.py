"""Small zones with made-up availability."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agent.simulate.long_job.trace import ZoneTrace


@pytest.fixture
def trace() -> Callable[..., ZoneTrace]:
    """`trace("110", spot=1.0)`: a zone whose n-th sample is the n-th digit, one sample an hour."""

    def make(
        up: str, *, spot: float = 1.0, on_demand: float = 3.0, zone: str = "us-east-1a", tick_s: float = 3600.0
    ) -> ZoneTrace:
        return ZoneTrace(
            zone=zone,
            region=zone[:-1],
            tick_s=tick_s,
            available=np.array([c == "1" for c in up]),
            spot_usd_h=np.full(len(up), spot),
            on_demand_usd_h=on_demand,
        )

    return make
