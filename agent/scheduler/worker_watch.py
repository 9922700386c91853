"""What keeps workers busy beside the tasks that were bound to them: what Dask runs there, whoever sent it, is work."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from agent.model.capacity import WorkerCapacity
from agent.model.events import WorkerBusy
from agent.scheduler.host import Host
from agent.scheduler.nested_tasks import NestedTasks

#: seconds in which changes are gathered: a graph that Dask runs by itself changes the figures with each task
GATHER = 0.1
#: tasks of a worker that are looked at, at most
MOST = 1000


class WorkerWatch:
    """Counts, for each worker, the tasks and actors that no governor placed, and tells when the count changes."""

    def __init__(self, host: Host, nested: NestedTasks) -> None:
        self.host, self.nested = host, nested
        #: addresses of workers to look at
        self._changed: set[str] = set()
        #: and of those that had something
        self._busy: set[str] = set()
        self._looking = False

    def moved(self, key: Any, start: str, finish: str) -> None:
        """A task that was not bound by a governor went through a transition."""
        if finish == "processing":
            self._changed.add(self.host.scheduler.tasks[key].processing_on.address)
        elif start not in ("processing", "memory") or not (self._busy or self._changed):
            return
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(GATHER, self._look)

    def _look(self) -> None:
        self._looking = False
        begin = time.thread_time()
        changed, self._changed = self._changed | self._busy, set()
        for address in changed:
            if (worker := self.host.workers.get(address)) is None:
                self._busy.discard(address)
            else:
                self.look(worker)
        self.host.took("watch", begin)

    def look(self, worker: WorkerCapacity) -> bool:
        """Count one worker's now; whether it has any."""
        others, slots = self._others(worker)
        if (others, slots) != (worker.others, worker.other_slots):
            worker.others, worker.other_slots = others, slots
            self.host.tell(WorkerBusy(worker.address, others, slots))
        (self._busy.add if others else self._busy.discard)(worker.address)
        return others > 0

    def _others(self, worker: WorkerCapacity) -> tuple[int, int]:
        """Tasks and actors that no governor placed, and those of them that hold a thread of their own.

        What a task of the governor's submitted takes no slot (its parent has it), what has seceded neither.
        """
        host = self.host
        ws = host.scheduler.workers.get(worker.address)
        if ws is None:
            return 0, 0
        others, slots = len(ws.actors), 0
        if len(ws.processing) > len(worker.bound):
            for ts in itertools.islice(ws.processing, MOST):
                task = host.tasks.get(ts.key)
                if ts.key in worker.bound or (task is not None and not host.governs(task)):
                    # those that a governor only looks at are told one by one
                    continue
                others += 1
                slots += ts.key not in self.nested.tasks and ts not in ws.long_running
        return others, slots
