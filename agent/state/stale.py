"""Whether time alone may change the plan. Pure."""

from __future__ import annotations

from agent.state.cluster import ClusterState

#: what waits, or is idle, is planned again so often, ms
AGAIN_MS = 1_000


def plan_is_stale(state: ClusterState, now_ms: int, planned_ms: int, replan_at_ms: int | None) -> bool:
    """Whether the plan of an instant may no longer be the plan of now, though nothing happened since.

    Args:
        replan_at_ms: when time alone changes it, as the plan itself says; None: it does not say.
    """
    if replan_at_ms is not None and planned_ms < replan_at_ms <= now_ms and (state.waiting or state.bound):
        return True
    if state.waiting and any(status.retry_ms and status.retry_ms <= now_ms for status in state.fleet.pools.values()):
        return True
    if now_ms - planned_ms <= AGAIN_MS:
        return False
    return (
        bool(state.waiting)
        or bool(state.fleet.wanted)
        or any(
            now_ms - live.idle_since_ms >= state.fleet.pools[live.counts.pool].pool.idle_ms
            for live in state.fleet.live.values()
            if live.idle_since_ms is not None and not live.counts.draining and live.counts.pool in state.fleet.pools
        )
    )
