"""What leases of a ledger cost, priced anew: by their pools' prices, or by the traces that these play."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.model.pools import Pool
from agent.model.units import MICROS
from agent.pools.spot_trace import SpotTrace
from agent.simulate.workflows.trace import CapacityTrace


def trace_of(market: SpotTrace, name: str, workers: int = 1, length_ms: int = 0) -> CapacityTrace:
    """A spot trace as capacity in the wall clock's time, repeated for as long as it takes."""
    step = round(market.seconds_per_sample * 1000)
    times = -(-(length_ms + 600_000) // (step * len(market.available)))
    return CapacityTrace(
        name=name, step_ms=step, capacity=tuple(x * workers for x in market.available) * times,
        usd_micros_per_hour=tuple(round(usd * MICROS) for usd in market.spot_usd_per_hour) * times,
    )  # fmt: skip


def usd(
    leases: Iterable[Any],
    end_ms: int,
    pools: Mapping[str, Pool],
    traces: Mapping[str, CapacityTrace],
    begins_ms: Callable[[str], int],
) -> float:
    """Dollars of granted leases until an instant.

    Args:
        begins_ms: when the trace of a pool began.
    """
    total = 0.0
    for lease in leases:
        stop = min(lease.ended_ms or end_ms, end_ms)
        if lease.granted_ms >= stop:
            continue
        if (trace := traces.get(lease.pool)) is None:
            total += pools[lease.pool].cost(lease.granted_ms, stop) / MICROS
        else:
            first = begins_ms(lease.pool)
            total += trace.cost(max(0, lease.granted_ms - first), max(0, stop - first)) / MICROS
    return total


def startup_ms(leases: Iterable[Any]) -> float | None:
    """From the grant to the join, in the mean; None where none joined."""
    seen = [lease.ready_ms - lease.granted_ms for lease in leases if lease.ready_ms is not None]
    return sum(seen) / len(seen) if seen else None
