"""The true future of each pool's capacity, for schedules that are built in hindsight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent.model.snapshot import PoolState
from agent.simulate.workflows.world import World

#: the simulation's time 0 as Unix time, ms, so that no instant is 0
EPOCH_MS = 1_000_000_000_000


def foretold_states(states: tuple[PoolState, ...], world: World) -> tuple[PoolState, ...]:
    """The pools with the true future of their capacity."""
    return tuple(
        state
        if (trace := world.supplies[state.pool.name].trace) is None
        else replace(state, **foretold(trace.capacity, trace.step_ms, world.now_ms, len(world.alive[state.pool.name])))
        for state in states
    )


def foretold(capacity: Sequence[int], step_ms: int, now_ms: int, alive: int) -> dict[str, Any]:
    """When a pool will have less than it has workers now, and when it will have room for one more."""
    step = now_ms // step_ms
    room = next((at for at in range(step, len(capacity)) if capacity[at] > alive), None)
    least = alive if room != step else alive + 1
    gone = next((at for at in range(step, len(capacity)) if capacity[at] < least), len(capacity))
    out: dict[str, Any] = {"lasts_until_ms": gone * step_ms + EPOCH_MS}
    out["back_ms"] = (room if room is not None else len(capacity)) * step_ms + EPOCH_MS
    return out
