"""What became of a task that was on a worker; where it is still wanted, it is held again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.model.capacity import WorkerCapacity
from agent.model.events import TaskEnded
from agent.model.outcomes import Result
from agent.scheduler import protocol
from agent.scheduler.departures import Departures
from agent.scheduler.holding import hold
from agent.scheduler.host import GovernedTask, Host
from agent.scheduler.replication import Replication
from agent.scheduler.restart import Restart
from agent.scheduler.worker_watch import WorkerWatch

_FINISHED = {"memory": Result.DONE, "erred": Result.FAILED}
#: what a body may say of its end
_RESULTS: dict[str, Result] = {result.value: result for result in Result}


class Endings:
    """Tells the end of every task that was on a worker, as far as the scheduler can see why."""

    def __init__(
        self, host: Host, watch: WorkerWatch, departures: Departures, copies: Replication, restart: Restart
    ) -> None:
        self.host, self.watch, self.departures, self.copies, self.restart = host, watch, departures, copies, restart

    def left(self, task: GovernedTask, finish: str, kwargs: Mapping[str, Any]) -> None:
        """The task is no longer processing: done, failed, lost, withdrawn or cancelled."""
        where, task.on = task.on, None
        worker, ts = self.host.workers.get(where or ""), self.host.scheduler.tasks.get(task.key)
        result = self._result(task, ts, finish, where, worker)
        if worker is not None:
            if worker.bound.pop(task.key, None) is None:
                self.watch.moved(task.key, "processing", finish)
            worker.seceded.discard(task.key)
        if finish == "released" and ts is not None:
            self._hold_again(task, ts, where not in self.host.scheduler.workers)
        task.withdrawing = task.ready = False
        start_ms = stop_ms = 0
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                start_ms, stop_ms = round(span["start"] * 1000), round(span["stop"] * 1000)
        # a Prefect task that failed, or found its result stored, is a State in Dask's memory; its metadata says so
        said = _said(ts) if result is Result.DONE and ts is not None else {}
        where, nbytes = kwargs.get("worker") or where, kwargs.get("nbytes") or 0
        checkpoint, task.checkpoint, task.left = task.checkpoint or (), None, None
        if said:
            result = _RESULTS.get(str(said.get(protocol.RESULT)), result)
        named = _lineage(said.get(protocol.LINEAGE)) if said else ()
        self.host.tell(TaskEnded(task.key, result, where, start_ms, stop_ms, nbytes, named, checkpoint))
        if finish == "memory" and where is not None:
            self.copies.stored(task.key, where)

    def _result(
        self, task: GovernedTask, ts: Any, finish: str, where: str | None, worker: WorkerCapacity | None
    ) -> Result:
        if finish != "released":
            return _FINISHED.get(finish, Result.CANCELLED)
        if where not in self.host.scheduler.workers:
            full = worker is not None and self.departures.out_of_memory(worker, task.key)
            return Result.OUT_OF_MEMORY if full else Result.LOST
        if task.withdrawing:
            return Result.WITHDRAWN
        if ts is not None and (ts.who_wants or ts.waiters):
            # somebody still wants it: its body asked to run elsewhere
            return task.left or Result.RESCHEDULED
        return Result.CANCELLED_BY_RESTART if self.restart.going else Result.CANCELLED

    def _hold_again(self, task: GovernedTask, ts: Any, lost: bool) -> None:
        if lost:
            # the governor counts losses; a death under queued work is not the task's failure
            ts.suspicious = 0
        if self.host.governs(task):
            pinned = ts.worker_restrictions if not lost and ts.worker_restrictions is not task.ours else None
            hold(ts, task.asked)
            # an output partition of a shuffle, pinned to the worker that has it: it is let through when it is ready
            ts.worker_restrictions = pinned or None


def _said(ts: Any) -> Mapping[str, Any]:
    """What a body says of itself, in its task's metadata."""
    said = ts.metadata.get(protocol.ANNOTATION) if ts.metadata else None
    return said if isinstance(said, Mapping) else {}


def _lineage(named: Any) -> tuple[tuple[str, str, str], ...]:
    """What a body says that it read and wrote; () where it says it in another form."""
    try:
        return tuple((str(verb), str(kind), str(address)) for verb, kind, address in named or ())
    except (TypeError, ValueError):
        return ()
