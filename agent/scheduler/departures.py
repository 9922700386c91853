"""Workers that go away and tasks that leave them: by a notice, a drain, a checkpoint, or for more memory."""

from __future__ import annotations

import itertools
from typing import Any

from distributed import Status

from agent.model.capacity import WorkerCapacity
from agent.model.events import TaskCheckpointed, WorkerNoticed
from agent.model.outcomes import Result
from agent.scheduler import protocol
from agent.scheduler.binding import Binding
from agent.scheduler.host import GovernedTask, Host

#: a worker that died with so much of its memory taken died of that; Dask pauses it at 0.8 and kills at 0.95
FULL = 0.75


class Departures:
    """Hears what workers and bodies say of their going, and asks bodies to go."""

    def __init__(self, host: Host, binding: Binding) -> None:
        self.host, self.binding = host, binding
        #: address → Dask's own state of the worker, to look at when it is gone
        self._states: dict[str, Any] = {}
        #: address → tasks that are to blame for its end
        self._blamed: dict[str, frozenset[Any]] = {}

    def joined(self, address: str, state: Any) -> None:
        """A worker is there."""
        self._states[address] = state

    def left(self, address: str) -> None:
        """It is gone, and its tasks have come back."""
        self._states.pop(address, None)
        self._blamed.pop(address, None)

    def out_of_memory(self, worker: WorkerCapacity, key: Any) -> bool:
        """Whether a worker that died had too little memory for this task.

        It was paused for that, or nearly full when last seen. Only the tasks on its threads are to blame, the first of
        those it was sent.
        """
        if worker.address not in self._blamed:
            ws = self._states[worker.address]
            full = ws.status == Status.paused or (
                ws.memory_limit and ws.metrics.get("memory", 0) > FULL * ws.memory_limit
            )
            self._blamed[worker.address] = (
                frozenset(itertools.islice(worker.bound, worker.slots)) if full else frozenset()
            )
        return key in self._blamed[worker.address]

    def said(self, topic: str, said: Any) -> None:
        """What bodies and workers say of themselves."""
        host = self.host
        if topic == protocol.MOVED_TOPIC:
            if (task := host.tasks.get(said["key"])) is not None:
                task.left = Result(said["result"])
        elif topic == protocol.CHECKPOINT_TOPIC:
            if (task := host.tasks.get(said["key"])) is not None and task.on is not None:
                at_ms, nbytes = int(said["at_ms"]), int(said["bytes"])
                task.checkpoint = (at_ms or (task.checkpoint or (0, 0))[0], nbytes)
                host.tell(TaskCheckpointed(task.key, *task.checkpoint))
                if (worker := host.workers.get(task.on)) is not None and worker.draining:
                    self.ask(task, f"{worker.name} is going away")
        elif topic == protocol.NOTICE_TOPIC:
            worker = host.workers.get(said["worker"])
            left_ms, why = int(said["left_ms"]), str(said["why"])
            if worker is not None and not worker.draining:
                self.drain(worker)
                host.tell(WorkerNoticed(worker.address, left_ms, why))

    def drain(self, worker: WorkerCapacity) -> None:
        """Nothing new to it; what has not started comes back, and what has checkpoints leaves at the next."""
        worker.draining = True
        self.binding.withdraw(worker)
        for key in worker.bound:
            if (task := self.host.tasks.get(key)) is not None:
                self.ask(task, f"{worker.name} is going away")

    def ask(self, task: GovernedTask, why: str) -> None:
        """Ask a body that has checkpoints to leave at the next."""
        comms = self.host.scheduler.stream_comms
        if task.checkpoint is not None and task.on is not None and task.on in comms and self.host.governs(task):
            comms[task.on].send({"op": protocol.LEAVE, "key": task.key, "why": why})
