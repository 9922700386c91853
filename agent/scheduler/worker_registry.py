"""The scheduler's workers: who is there, of which pool, who takes work, who left and why."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from distributed import Status

from agent.model.capacity import PoolSpec, WorkerCapacity
from agent.model.events import WorkerJoined, WorkerLeft, WorkerPaused
from agent.model.pools import pool_of
from agent.scheduler.departures import Departures
from agent.scheduler.host import Host
from agent.scheduler.nested_tasks import NestedTasks
from agent.scheduler.worker_watch import WorkerWatch

#: what Dask calls the removal of a worker that did not leave by itself → why
_WHY_LEFT = (
    ("check-worker-ttl", "it was not heard for too long"),
    ("handle-worker-cleanup", "its connection to the scheduler broke"),
)
#: memory of a worker without a limit, MiB: more than anybody asks for
_UNLIMITED_MIB = 2**40


class WorkerRegistry:
    """Keeps the workers by their addresses, and tells of those that come, go, pause and go on."""

    def __init__(self, host: Host, watch: WorkerWatch, departures: Departures, nested: NestedTasks) -> None:
        self.host, self.watch, self.departures, self.nested = host, watch, departures, nested
        #: workers that are registered and do not run yet, as the governor will see them
        self._beginning: dict[str, dict[str, Any]] = {}
        #: names of the workers that left, and when, wall ms
        self.departed: deque[tuple[str, int]] = deque(maxlen=1000)
        #: workers that were lost, and did not leave by themselves
        self.broken = 0

    def wrap(self) -> None:
        """Hear of every change of a worker's status, as the worker tells it and as Dask itself makes it."""
        scheduler = self.host.scheduler
        self.host.between("worker-status-change", self._changed)
        theirs = scheduler.handle_worker_status_change

        def changed(status: Any, worker: Any, stimulus_id: str) -> None:
            """As Dask calls it when it retires a worker."""
            theirs(status, worker, stimulus_id)
            self._tell_status(worker if isinstance(worker, str) else worker.address)

        scheduler.handle_worker_status_change = changed

    def joined(self, address: str) -> None:
        """A worker is there."""
        ws = self.host.scheduler.workers[address]
        self.departures.joined(address, ws)
        pools = tuple((pool.name, pool.selector) for pool in self.host.pools.values())
        name = pool_of(pools, name=str(ws.name), host=ws.host, resources=ws.resources, nthreads=ws.nthreads)
        pool = self.host.pools.get(name)
        self.host.workers[address] = WorkerCapacity(
            address=address,
            name=str(ws.name),
            pool=name,
            slots=ws.nthreads,
            cpus=pool.cpus if pool else ws.nthreads,
            memory_mib=pool.memory_mib if pool else _memory_mib(ws) or _UNLIMITED_MIB,
            gpus=pool.gpus if pool else 0,
            paused=ws not in self.host.scheduler.running,
        )
        # for some milliseconds it is registered and takes nothing yet: told of then, it would look lost
        if ws.status == Status.init:
            self._beginning[address] = self._described(address)
        else:
            self._tell_joined(address)

    def left(self, address: str, stimulus_id: str) -> None:
        """A worker is gone; its tasks have come back already."""
        self.departures.left(address)
        if (never_ran := self._beginning.pop(address, None)) is not None:
            self.host.tell(WorkerJoined(never_ran))
        if (worker := self.host.workers.pop(address, None)) is not None:
            self.departed.append((worker.name, round(time.time() * 1000)))
            why = next((why for name, why in _WHY_LEFT if stimulus_id.startswith(name)), "")
            self.broken += bool(why)
            self.host.tell(WorkerLeft(address, why))
            self.nested.left()

    def configure(self, pools: Iterable[PoolSpec]) -> None:
        """The governor's pools from now on; each worker is told apart anew."""
        self.host.pools = {pool.name: pool for pool in pools}
        for address, old in list(self.host.workers.items()):
            self.joined(address)
            new = self.host.workers[address]
            new.bound, new.seceded, new.nested, new.draining = old.bound, old.seceded, old.nested, old.draining
            self.watch.look(new)

    def restarted(self) -> None:
        """Dask has forgotten every task."""
        for worker in self.host.workers.values():
            worker.bound.clear()
            worker.seceded.clear()
            worker.nested = 0
            self.watch.look(worker)

    def known(self, addresses: Iterable[str]) -> list[WorkerCapacity]:
        """Those of them that are still there."""
        return [self.host.workers[address] for address in addresses if address in self.host.workers]

    def all_described(self) -> list[dict[str, Any]]:
        """The workers that take work, or did, as the governor sees them."""
        return [self._described(address) for address in self.host.workers if address not in self._beginning]

    def _described(self, address: str) -> dict[str, Any]:
        ws, worker = self.host.scheduler.workers[address], self.host.workers[address]
        return {
            "address": address,
            "name": worker.name,
            "host": ws.host,
            "pool": worker.pool,
            "slots": worker.slots,
            "memory_mib": _memory_mib(ws),
            "resources": dict(ws.resources),
            "draining": worker.draining,
            "paused": worker.paused,
            "others": worker.others,
            "other_slots": worker.other_slots,
        }

    def _tell_joined(self, address: str) -> None:
        self._beginning.pop(address, None)
        self.host.tell(WorkerJoined(self._described(address)))

    def _changed(self, theirs: Any, **message: Any) -> None:
        """A worker paused or goes on."""
        theirs(**message)
        self._tell_status(message["worker"])

    def _tell_status(self, address: str) -> None:
        worker, ws = self.host.workers.get(address), self.host.scheduler.workers.get(address)
        if worker is None or ws is None or worker.paused == (ws not in self.host.scheduler.running):
            return
        worker.paused = not worker.paused
        if address in self._beginning:
            self._tell_joined(address)
        else:
            self.host.tell(WorkerPaused(address, worker.paused))
        if not worker.paused:
            self.nested.pump()


def _memory_mib(ws: Any) -> int:
    """0: not limited."""
    return (ws.memory_limit or 0) // 2**20
