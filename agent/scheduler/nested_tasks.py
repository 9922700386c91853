"""Inner work: the graph a governed task's body submits. It is part of its parent's decision and takes no slot."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from dataclasses import dataclass, field
from typing import Any

import dask

from agent.scheduler.host import Host
from agent.scheduler.protocol import HOLD


@dataclass(slots=True)
class _NestedTask:
    parent: Any
    pool: str
    #: the restriction we gave it; another object there means Dask pinned it (a shuffle's partitions)
    ours: set[str] = field(default_factory=set)
    on: str | None = None


class NestedTasks:
    """Holds inner tasks and releases them to the parent's pool, in Dask's order, at most saturation x threads a worker.

    Dask's own root queue, which keeps larger-than-memory work going, is off for restricted tasks; this is its stand-in.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.tasks: dict[Any, _NestedTask] = {}
        self.queues: dict[str, list[tuple[Any, int, Any]]] = {}
        self.no = 0
        self.pumping = False
        self.saturation = float(dask.config.get("distributed.scheduler.worker-saturation", 1.1))

    def adopt(self, ts: Any, parent: Any) -> bool:
        """Hold a task for its parent's pool; False when the parent is not bound by us."""
        pool = self._pool(parent)
        if pool is None:
            return False
        entry = _NestedTask(parent, pool, self._addresses(pool))
        self.tasks[ts.key] = entry
        self._hold(ts, entry)
        return True

    def _pool(self, parent: Any) -> str | None:
        if (above := self.tasks.get(parent)) is not None:
            return above.pool
        task = self.host.tasks.get(parent)
        worker = self.host.workers.get(task.on or "") if task is not None else None
        return worker.pool if worker is not None else None

    def _addresses(self, pool: str) -> set[str]:
        return {worker.address for worker in self.host.members(pool)}

    def _pinned(self, ts: Any, entry: _NestedTask) -> bool:
        """Whether Dask itself chose the worker, and it lives."""
        where = ts.worker_restrictions
        return bool(where) and where is not entry.ours and not where.isdisjoint(self.host.scheduler.workers)

    @staticmethod
    def _hold(ts: Any, entry: _NestedTask) -> None:
        # a shuffle's barrier carries these workers on to its output partitions, so the shuffle stays in the pool
        ts.worker_restrictions = entry.ours or None
        ts.resource_restrictions = {**(ts.resource_restrictions or {}), HOLD: 1}

    def transition(self, key: Any, start: str, finish: str) -> None:
        """Follow a task of ours, if it is one."""
        entry = self.tasks.get(key)
        if entry is None:
            return
        if finish == "no-worker":
            ts = self.host.scheduler.tasks[key]
            if ts.resource_restrictions and HOLD in ts.resource_restrictions:
                self.no += 1
                heapq.heappush(self.queues.setdefault(entry.pool, []), (ts.priority, self.no, key))
                self._soon()
            return
        if start == "processing":
            self._freed(entry)
            if finish == "released":
                self._again(key, entry)
        elif start == "memory" and finish == "released":
            self._again(key, entry)
        if finish == "forgotten":
            del self.tasks[key]

    def _freed(self, entry: _NestedTask) -> None:
        worker = self.host.workers.get(entry.on or "")
        entry.on = None
        if worker is not None:
            worker.nested -= 1
        self._soon()

    def _again(self, key: Any, entry: _NestedTask) -> None:
        ts = self.host.scheduler.tasks.get(key)
        if ts is not None:
            ts.suspicious = 0
            self._keep(ts, entry)

    def _keep(self, ts: Any, entry: _NestedTask) -> None:
        """Hold it again; where Dask pinned it, it stays pinned."""
        if self._pinned(ts, entry):
            # an output partition of a shuffle runs once to be pinned to the worker that has it, and is sent again
            ts.resource_restrictions = {**(ts.resource_restrictions or {}), HOLD: 1}
            return
        entry.ours = self._addresses(entry.pool)
        self._hold(ts, entry)

    def _soon(self) -> None:
        if not self.pumping:
            self.pumping = True
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        """Release what the workers have room for."""
        self.pumping = False
        begin = time.thread_time()
        for pool, queue in self.queues.items():
            if queue:
                self._pump(pool, queue)
        self.host.took("release", begin)

    def _pump(self, pool: str, queue: list[tuple[Any, int, Any]]) -> None:
        scheduler = self.host.scheduler
        workers = [c for c in self.host.members(pool) if c.address in scheduler.workers]
        workers = [c for c in workers if not c.draining] or workers
        later = []
        while queue:
            entry_of = queue[0]
            key = entry_of[2]
            entry, ts = self.tasks.get(key), scheduler.tasks.get(key)
            if entry is None or ts is None or ts.state != "no-worker":
                heapq.heappop(queue)
                continue
            pinned = self._pinned(ts, entry)
            room = {
                c.address for c in workers if not c.paused and c.nested < max(1, math.ceil(self.saturation * c.slots))
            }
            if not pinned and not room:
                break
            heapq.heappop(queue)
            if not pinned:
                # ours before it is sent: where no worker takes it (all paused), it must not look pinned by Dask
                ts.worker_restrictions = entry.ours = room
            asked = {k: v for k, v in (ts.resource_restrictions or {}).items() if k != HOLD}
            ts.resource_restrictions = asked or None
            scheduler.transitions({key: "processing"}, stimulus_id="orc-inner")
            if ts.state != "processing":
                self._keep(ts, entry)
                later.append(entry_of)
                continue
            entry.on = ts.processing_on.address
            if (worker := self.host.workers.get(entry.on)) is not None:
                worker.nested += 1
        for entry_of in later:
            heapq.heappush(queue, entry_of)

    def left(self) -> None:
        """A worker left; its inner tasks have come back already."""
        self._soon()

    def clear(self) -> None:
        """Dask has forgotten every task."""
        self.tasks.clear()
        self.queues.clear()
