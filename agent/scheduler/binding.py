"""Binding: held tasks go to workers with room, come back from those that have not started them, or are refused."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from agent.model.capacity import Load, WorkerCapacity
from agent.scheduler.batched_release import SLICE
from agent.scheduler.fence import Fence
from agent.scheduler.holding import hold
from agent.scheduler.host import Host
from agent.scheduler.instructions import BindOrder, RefuseOrder

_WITHDRAW = "orc-withdraw-"


class Binding:
    """Does what the governor says of single tasks, where it is still true."""

    def __init__(self, host: Host, fence: Fence) -> None:
        self.host, self.fence, self.scheduler = host, fence, host.scheduler
        #: tasks bound, and asked back
        self.bound = self.withdrawals = 0
        #: ready → bound of the newest tasks, ms
        self.waits_ms: deque[float] = deque(maxlen=10_000)

    async def bind(self, epoch: int, binds: Sequence[BindOrder]) -> list[list[str | None]]:
        """The worker of each key, None where it could not be bound; fewer when another governor has taken over."""
        out: list[list[str | None]] = []
        begin, slice_ = time.thread_time(), time.perf_counter()
        client_msgs: dict[str, Any] = {}
        worker_msgs: dict[str, Any] = {}
        for bind in binds:
            where: list[str | None] = []
            workers = self.host.members(bind.pool)
            for key in bind.keys:
                where.append(self._bind_one(key, workers, bind.load, bind.ahead, client_msgs, worker_msgs))
                if time.perf_counter() - slice_ > SLICE:
                    self.scheduler.send_all(client_msgs, worker_msgs)
                    client_msgs, worker_msgs = {}, {}
                    self.host.took("bind", begin)
                    await asyncio.sleep(0)
                    if self.fence.overtaken(epoch):
                        return out
                    begin, slice_ = time.thread_time(), time.perf_counter()
            out.append(where)
        self.scheduler.send_all(client_msgs, worker_msgs)
        self.host.took("bind", begin)
        return out

    def _bind_one(
        self,
        key: Any,
        workers: Sequence[WorkerCapacity],
        load: Load,
        ahead: int,
        client_msgs: dict[str, Any],
        worker_msgs: dict[str, Any],
    ) -> str | None:
        """Send one held task to a worker with room; Dask picks among them by locality."""
        task, ts = self.host.tasks.get(key), self.scheduler.tasks.get(key)
        if task is None or ts is None or ts.state != "no-worker" or not task.ready:
            return None
        if not (load.memory_mib or load.gpus) and ahead and len(workers) == 1:
            one = workers[0]
            room = workers if one.fits(load, ahead) and not (one.draining or one.paused) else ()
        else:
            room = [
                c
                for c in workers
                if not (c.draining or c.paused) and c.address in self.scheduler.workers and c.fits(load, ahead)
            ]
        if not room:
            return None
        if ahead:
            # the least loaded, or the first worker would be filled to the brim
            least = min(len(c.bound) for c in room)
            room = [c for c in room if len(c.bound) == least]
        old = ts.priority
        self.bound += 1
        ts.resource_restrictions = task.asked
        ts.worker_restrictions = {c.address for c in room}
        ts.priority = (old[0], 1 << 40, self.bound)
        task.on = "sending"
        self.scheduler._transitions({key: "processing"}, client_msgs, worker_msgs, "orc-bind")
        if ts.state != "processing":
            ts.priority = old
            task.on = None
            hold(ts, task.asked)
            return None
        address: str = ts.processing_on.address
        # narrowed, so that nothing is stolen past the count
        ts.worker_restrictions = task.ours = {address}
        task.on, task.ready, task.bound_ms = address, False, round(time.time() * 1000)
        self.waits_ms.append((time.perf_counter() - task.ready_at) * 1000)
        self.host.workers[address].bound[key] = load
        return address

    def withdraw(self, worker: WorkerCapacity) -> None:
        """Ask the worker for what it has not started, by Dask's own steal request."""
        for key in worker.bound:
            self.withdrawals += 1
            message = {"op": "steal-request", "key": key, "stimulus_id": f"{_WITHDRAW}{self.withdrawals}"}
            self.scheduler.stream_comms[worker.address].send(message)

    def wrap(self) -> None:
        """Hear what workers answer that are asked for a task."""
        self.host.between("steal-response", self._answered)

    def _answered(self, theirs: Any, **message: Any) -> Any:
        """The worker's answer: it gave the task back only if it had not started it."""
        if not str(message.get("stimulus_id", "")).startswith(_WITHDRAW):
            return theirs(**message)
        task, ts = self.host.tasks.get(message["key"]), self.scheduler.tasks.get(message["key"])
        given = message.get("state") in ("ready", "constrained", "waiting")
        if (
            given
            and task is not None
            and ts is not None
            and ts.state == "processing"
            and ts.processing_on.address == message.get("worker")
        ):
            task.withdrawing = True
            self.scheduler.transitions({message["key"]: "released"}, stimulus_id=message["stimulus_id"])
        return None

    def refuse(self, order: RefuseOrder) -> None:
        """Fail a held task with the reason; its dependents fail with it."""
        key = order.key
        ts = self.scheduler.tasks.get(key)
        if ts is None or ts.state != "no-worker" or key not in self.host.tasks:
            return
        error = pickle.dumps(order.error(order.why))
        found = self.scheduler.transition(key, "erred", exception=error, cause=key, stimulus_id="orc-refuse")
        self.scheduler.transitions(found, stimulus_id="orc-refuse")
