"""Places that are lent: a task that waits for tasks of its own holds a thread for nothing, maybe the one they want."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Any

import cloudpickle

from agent.model.events import TaskSeceded
from agent.scheduler.host import Host
from agent.scheduler.worker_watch import WorkerWatch

#: the first look at a task that has submitted others, seconds; then each time twice as long after the one before
FIRST = 0.5
#: and at most so long
LONGEST = 8.0
#: a task that another has submitted is more urgent than that, in thousandths of Dask's priority, as Dask itself has it
SOONER = 10


def lend_if_waiting(key: Any, dask_worker: Any) -> bool:
    """Runs on a worker: where a task waits for Dask, its thread no longer counts. Whether it waits.

    It is as if it had called `distributed.secede`. A task that computes meanwhile keeps its place; so does one that
    has left it, or is not there.
    """
    import sys
    import time

    from distributed.worker_state_machine import SecedeEvent

    task = dask_worker.state.tasks.get(key)
    if task is None or task.state != "executing":
        return False
    with dask_worker.active_threads_lock:
        thread = next((ident for ident, active in dask_worker.active_threads.items() if active == key), None)
    # a coroutine holds no thread: only its place
    if thread is not None:
        frame = sys._current_frames().get(thread)
        while frame is not None:
            at = frame.f_globals.get("__name__"), frame.f_code.co_name
            if at in (("distributed.utils", "sync"), ("distributed.client", "__next__")):
                break
            frame = frame.f_back
        if frame is None:
            return False
        executor = dask_worker.executors["default"]
        executor._max_workers += 1
        executor._adjust_thread_count()
    started = getattr(task, "start_time", None) or time.time()
    dask_worker.handle_stimulus(
        SecedeEvent(key=key, compute_duration=time.time() - started, stimulus_id=f"orc-lend-{time.time()}")
    )
    return True


class Lending:
    """Knows which tasks were submitted by a running one, and has its worker lend its place while it waits for them.

    Dask's clients say which task submits a graph. Who waits and keeps its thread (`get_client` without `secede`) would
    wait for ever where all threads are held like that, or where a task of its own was sent to stand behind it.
    """

    def __init__(self, host: Host, watch: WorkerWatch) -> None:
        self.host, self.watch = host, watch
        #: graphs on their way in: stimulus → the task that submits it
        self._coming: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        #: task → those that submitted it, and how deep it stands
        self.parents: dict[Any, tuple[list[Any], int]] = {}
        #: running task → those of its tasks that have not ended
        self._open: dict[Any, set[Any]] = {}
        self._jobs: set[asyncio.Future[None]] = set()
        self._ask: bytes = b""

    def wrap(self, handlers: dict[str, Any]) -> None:
        """Hear of every graph which task submits it, and of tasks that leave their threads."""
        self.host.between("long-running", self._seceded)
        theirs = handlers["update-graph"]

        async def handle(submitting_task: Any = None, stimulus_id: str | None = None, **message: Any) -> Any:
            if submitting_task is not None and stimulus_id is None:
                stimulus_id = f"update-graph-{time.time()}-{next(self._numbers)}"
                self._coming[stimulus_id] = submitting_task
            try:
                answer = theirs(submitting_task=submitting_task, stimulus_id=stimulus_id, **message)
                return await answer if asyncio.iscoroutine(answer) else answer
            finally:
                self._coming.pop(stimulus_id or "", None)

        handlers["update-graph"] = handle

    def submitted(self, stimulus_id: str, keys: Any) -> None:
        """A graph is in; where a task submitted it, its tasks are followed."""
        parent, table = self._coming.pop(stimulus_id, None), self.host.scheduler.tasks
        if parent is None or parent not in table:
            return
        depth = self.depth(parent) + 1
        for key in keys:
            above = self.parents.setdefault(key, ([], depth))[0]
            if parent not in above:
                above.append(parent)
        some = (key for key in keys if (ts := table.get(key)) is not None and ts.state not in ("memory", "erred"))
        if parent in self._open:
            self._open[parent].update(some)
            return
        self._open[parent] = set(some)
        job = asyncio.ensure_future(self._watch(parent))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def depth(self, key: Any) -> int:
        """How many tasks stand above one that was submitted by a task."""
        return self.parents[key][1] if key in self.parents else 0

    def moved(self, key: Any, finish: str) -> None:
        """A task that a task submitted went through a transition."""
        for parent in self.parents[key][0]:
            if (waiting := self._open.get(parent)) is not None:
                (waiting.discard if finish in ("memory", "erred", "forgotten") else waiting.add)(key)
        if finish == "forgotten":
            del self.parents[key]

    def _seceded(self, theirs: Any, **message: Any) -> Any:
        """A task left its thread to wait for work of its own: its slot is lent to that work."""
        answer = theirs(**message)
        task = self.host.tasks.get(message.get("key"))
        on = self.host.workers.get(task.on or "") if task is not None else None
        if task is not None and on is not None and task.key in on.bound:
            on.seceded.add(task.key)
            self.host.tell(TaskSeceded(task.key))
        elif (worker := self.host.workers.get(str(message.get("worker")))) is not None:
            self.watch.look(worker)
        return answer

    async def _watch(self, parent: Any) -> None:
        """Until it has lent its place or is over."""
        wait, scheduler = FIRST, self.host.scheduler
        try:
            while True:
                await asyncio.sleep(wait)
                ts = scheduler.tasks.get(parent)
                if ts is None or ts.state != "processing" or ts in ts.processing_on.long_running:
                    return
                if self._open[parent] and await self._lend(parent, ts.processing_on.address):
                    return
                wait = min(LONGEST, 2 * wait)
        finally:
            del self._open[parent]

    async def _lend(self, key: Any, address: str) -> bool:
        if not self._ask:
            # by value: the worker may have no ORC, or another
            cloudpickle.register_pickle_by_value(sys.modules[__name__])
            try:
                self._ask = cloudpickle.dumps(lend_if_waiting)
            finally:
                cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        message = {"op": "run", "function": self._ask, "args": cloudpickle.dumps((key,)), "wait": True}
        answers = await self.host.scheduler.broadcast(msg=message, workers=[address], on_error="ignore")
        answer = answers.get(address) or {}
        return answer.get("status") == "OK" and bool(answer.get("result"))

    def clear(self) -> None:
        """Dask has forgotten every task."""
        self.parents.clear()
