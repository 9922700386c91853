"""What the page under the Dask dashboard shows of a governor, as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable

from agent.model.holds import Hold
from agent.state.cluster import ClusterState
from agent.state.snapshot import pools

#: holds that are shown, the oldest first
SHOWN = 200


def figures(state: ClusterState, holds: Iterable[Hold], *, mode: str, spooled: int, now_ms: int) -> dict[str, object]:
    """Pools, holds and spending as they stand."""
    tally = state.tally
    taken = {pool: 0 for pool, _ in tally.outcomes}
    for (pool, result), count in tally.outcomes.items():
        taken[pool] += count if result in ("preempted", "lost") else 0
    return {
        "at": time.time(),
        "mode": mode,
        "pools": [
            {
                "pool": shown.pool.name,
                "kind": shown.pool.shown_kind,
                "usd_per_hour": shown.usd_micros_per_hour / 1e6,
                "workers": len(shown.workers),
                "starting": len(shown.starting),
                "max": shown.pool.max_workers,
                "bound": sum(worker.bound for worker in shown.workers),
                "placed": tally.placements[shown.pool.name],
                "taken": taken.get(shown.pool.name, 0),
            }
            for shown in pools(state, now_ms)
        ],
        "held": [
            {
                "task": hold.name,
                "flow_run": hold.flow_run,
                "tasks": hold.count,
                "reason": hold.reason,
                "why": hold.why,
                "release": hold.release,
                "seconds": (now_ms - hold.since_ms) / 1000,
            }
            for hold in sorted(holds, key=lambda hold: hold.since_ms)[:SHOWN]
        ],
        "running": len(state.bound),
        "moves": sum(tally.moves.values()),
        "spent_usd": (sum(tally.lease_usd_micros.values()) + state.fleet.leases.open_usd_micros(now_ms)) / 1e6,
        "runtimes_ms": state.statistics.short_ms(),
        "spooled": spooled,
    }
