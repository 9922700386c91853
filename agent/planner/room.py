"""Room in a pool while a plan is being made: what is free, what is promised, what would be launched."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from heapq import heapreplace

from agent.model.capacity import FreeCapacity, Load
from agent.model.pools import Pool
from agent.model.snapshot import Group, PoolState
from agent.planner.feasible import gpus_taken


@dataclass(slots=True)
class FreeWorker(FreeCapacity):
    """One live worker's free capacity, counted down as the plan binds."""

    #: time until the last of its tasks ends, ms
    busy_ms: int = 0


@dataclass(slots=True)
class Room:
    """A pool during planning."""

    state: PoolState
    free: list[FreeWorker] = field(default_factory=list)
    #: tasks that wait for this pool by groups planned before
    claimed: int = 0
    #: ms of work those tasks are
    claimed_ms: int = 0
    #: workers to launch, decided so far
    launching: int = 0
    #: earliest instant a busy worker frees a slot, ms
    frees_ms: int | None = None
    now_ms: int = 0
    #: see `lanes`; None until somebody asks, as most pools of most plans are never queued at
    _lanes: list[int] | None = None

    @classmethod
    def of(cls, state: PoolState, now_ms: int = 0) -> Room:
        """The room of a pool at the start of a plan."""
        live = [worker for worker in state.workers if not worker.draining]
        # by position: every worker of every plan comes through here
        free = [
            FreeWorker(
                w.slots - w.bound, w.slots, w.cpus_free, w.memory_free_mib, w.gpus_free,
                max(0, w.ends_ms[-1] - now_ms) if w.ends_ms else 0,
            )
            for w in live
        ]  # fmt: skip
        frees = [worker.frees_ms for worker in live if worker.frees_ms is not None]
        return cls(state, free, now_ms=now_ms, frees_ms=min(frees) if frees else None)

    @property
    def lanes(self) -> list[int]:
        """When each slot, live, starting or to be launched, is free for the next task, ms from now, ascending."""
        if self._lanes is None:
            self._lanes = _lanes(self.state, self.now_ms)
        return self._lanes

    @property
    def workers(self) -> int:
        """Workers that take work or soon will."""
        return len(self.free) + len(self.state.starting) + self.launching

    def may_launch(self, now_ms: int) -> int:
        """Workers that may be asked for now."""
        pool = self.state.pool
        if pool.provider is None or self.state.retry_ms > now_ms:
            return 0
        return max(0, pool.max_workers - len(self.state.workers) - len(self.state.starting) - self.launching)

    @property
    def may_grow(self) -> bool:
        """Whether it could have more workers than it has, if they were granted."""
        pool = self.state.pool
        there = len(self.state.workers) + len(self.state.starting) + self.launching
        return pool.provider is not None and there < pool.max_workers

    @property
    def may_take(self) -> bool:
        """Whether it has workers, or could have."""
        return bool(self.free or self.state.starting or self.launching or self.may_grow)

    def tasks(self, group: Group, ahead: int, limit: int) -> int:
        """How many tasks of the group fit on live workers now, at most `limit`."""
        total, (load, sent) = 0, self._load(group, ahead)
        for worker in self.free:
            total += worker.fits(load, sent)
            if total >= limit:
                return limit
        return total

    def occupied(self, group: Group, ahead: int, run_ms: int, count: int) -> float:
        """The part of a worker's price that a task of `run_ms` is the cause of, where `count` of them come at once.

        A worker that is busy for longer anyway costs nothing more; one that would end without them is paid for by them
        alone.
        """
        least, (load, sent) = 1.0, self._load(group, ahead)
        for worker in self.free:
            if not (fits := worker.fits(load, sent)):
                continue
            if worker.busy_ms >= run_ms:
                return 0.0
            least = min(least, (run_ms - worker.busy_ms) / run_ms / min(fits, count))
        return least

    def take(self, group: Group, ahead: int, count: int, run_ms: int = 0) -> None:
        """Count `count` tasks of the group, of `run_ms` each, as bound."""
        load, sent = self._load(group, ahead)
        for worker in self.free:
            k = min(count, worker.fits(load, sent))
            worker.take(load, k)
            if k:
                worker.busy_ms = max(worker.busy_ms, run_ms)
            count -= k
            if not count:
                return

    def _load(self, group: Group, ahead: int) -> tuple[Load, int]:
        """Of one task, and how many a slot may be sent ahead."""
        return load_of(group, self.state.pool), ahead if ahead and small(group, self.state) else 0

    def claim(self, count: int, run_ms: int, step: int, launch: int) -> None:
        """Give the slots that are free first, `step` of them a task, to tasks that wait or are bound; launched workers
        add theirs.
        """
        startup = self.state.startup_ms
        if launch:
            self.lanes.extend([startup] * (launch * self.state.pool.slots))
            self.lanes.sort()
        if step > 1:
            for _ in range(count):
                taken = self.lanes[:step]
                del self.lanes[:step]
                for lane in [(taken[-1] if taken else startup) + run_ms] * len(taken):
                    insort(self.lanes, lane)
            return
        if not self.lanes:
            return
        if count <= 8:
            for _ in range(count):
                insort(self.lanes, self.lanes.pop(0) + run_ms)
            return
        for _ in range(count):
            heapreplace(self.lanes, self.lanes[0] + run_ms)
        self.lanes.sort()


def load_of(group: Group, pool: Pool) -> Load:
    """What one task of the group takes on a worker of the pool."""
    memory = group.needs.memory_mib or pool.memory_mib // pool.slots
    return Load(cpus=group.needs.cpus, memory_mib=memory, gpus=gpus_taken(group, pool))


def _lanes(state: PoolState, now_ms: int) -> list[int]:
    out: list[int] = []
    for worker in state.workers:
        if worker.draining:
            continue
        ends = worker.ends_ms or ((worker.frees_ms,) * worker.bound if worker.frees_ms is not None else ())
        out += [0] * max(0, worker.slots - len(ends))
        out += [max(0, end - now_ms) for end in ends]
    for starting in state.starting:
        out += [max(0, starting.asked_ms + state.startup_ms - now_ms)] * state.pool.slots
    out.sort()
    return out


def small(group: Group, state: PoolState) -> bool:
    """Whether a worker's every slot may run a task of the group at the same time, so that it may be sent ahead."""
    pool = state.pool
    return (
        group.needs.cpus * pool.slots <= pool.cpus
        and (group.needs.memory_mib or 0) * pool.slots <= pool.memory_mib
        and not gpus_taken(group, pool)
    )


def share(group: Group, state: PoolState) -> float:
    """The part of a worker one task takes, 0 < share ≤ 1: the largest of its parts of slots, cpus, memory and GPUs."""
    pool = state.pool
    parts = [1 / pool.slots, group.needs.cpus / pool.cpus, (group.needs.memory_mib or 0) / pool.memory_mib]
    if pool.gpus:
        parts.append(gpus_taken(group, pool) / pool.gpus)
    return min(1.0, max(parts))


def slots_of(group: Group, room: Room) -> tuple[int, int]:
    """Tasks of the group one worker runs at a time, and the slots each of them takes from others."""
    each = max(1, int(1 / share(group, room.state) + 1e-9))
    return each, max(1, room.state.pool.slots // each)
