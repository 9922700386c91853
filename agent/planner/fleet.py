"""Workers to end, to keep and to launch that no waiting task is the cause of."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.plans import Drain, Withdraw
from agent.model.snapshot import PoolState, Snapshot
from agent.model.units import show_ms
from agent.planner.draft import Draft


def fleet(draft: Draft) -> None:
    """End workers that have been idle too long, keep each pool's least number, withdraw from those that are going."""
    now, taken = draft.snapshot.now_ms, {bind.pool for bind in draft.binds}
    coming = _Coming.of(draft.snapshot)
    spare = _workers(draft) - draft.snapshot.wanted_workers
    for name, room in draft.rooms.items():
        state, pool = room.state, room.state.pool
        if len(room.free) < len(state.workers):
            _withdraw(draft, state)
        if pool.provider is None:
            continue
        alive = len(room.free) + len(state.starting)
        if alive > pool.min_workers and name not in taken and not room.claimed:
            most = min(alive - pool.min_workers, max(0, spare))
            for since, idle, why in _idle(state, coming.unneeded(state, now), now)[:most]:
                draft.drains.append(Drain(pool=name, worker=idle, why=f"idle for {show_ms(now - since)}{why}"))
                alive, spare = alive - 1, spare - 1
        if alive + room.launching < pool.min_workers and (may := room.may_launch(now)):
            room.launching += min(pool.min_workers - alive - room.launching, may)
            draft.launch_why.setdefault(name, f"the pool keeps {pool.min_workers}")


def wanted(draft: Draft) -> None:
    """Launch what somebody waits for and no task is the cause of, where a worker costs least."""
    missing = draft.snapshot.wanted_workers - _workers(draft)
    for room in sorted(draft.rooms.values(), key=lambda room: (room.state.usd_micros_per_hour, room.state.pool.name)):
        count = min(missing, room.may_launch(draft.snapshot.now_ms))
        if count > 0:
            room.launching += count
            missing -= count
            draft.launch_why.setdefault(room.state.pool.name, draft.snapshot.wanted_why)


def _workers(draft: Draft) -> int:
    """Workers that take work or soon will, of all pools."""
    return sum(room.workers for room in draft.rooms.values())


def _withdraw(draft: Draft, state: PoolState) -> None:
    draft.withdraws += [
        Withdraw(worker=worker.name, why="the worker is going away")
        for worker in state.workers
        if worker.draining and worker.bound > worker.slots
    ]


def _idle(state: PoolState, unneeded: str, now_ms: int) -> list[tuple[int, str, str]]:
    """Workers to end: idle for the pool's time, or at once when nothing is to come that they could be kept for."""
    keep_ms, least_ms = state.pool.idle_ms, state.pool.min_billing_ms
    return sorted(
        (since, worker.name, unneeded)
        for worker in state.workers
        if (since := worker.idle_since_ms) is not None
        and (unneeded or now_ms >= since + keep_ms)
        # its paid minimum is used up, and it is not the keeper of a result
        and now_ms >= worker.launched_ms + least_ms
        and not (worker.draining or worker.only_copy)
    )


@dataclass(frozen=True, slots=True)
class _Coming:
    """What the graphs of the runs say of tasks to come."""

    known: bool
    #: whether any is to come, and when the first can be ready, where that is known
    any: bool
    soonest_ms: int | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> _Coming:
        waiting = [run for run in snapshot.runs if run.ahead]
        soonest = min((run.next_ms for run in waiting if run.next_ms is not None), default=None)
        return cls(snapshot.graphs, bool(waiting), soonest)

    def unneeded(self, state: PoolState, now_ms: int) -> str:
        """Why no task will want an idle worker of the pool before another could be started; ""."""
        if not self.known:
            return ""
        if not self.any:
            return ", and no task is to come"
        if self.soonest_ms is not None and self.soonest_ms - now_ms > max(state.startup_ms, 1):
            return f", and no task is ready before {show_ms(self.soonest_ms - now_ms)}"
        return ""
