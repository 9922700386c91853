"""Holding: new tasks are kept from running, and told of when their inputs are ready."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agent.model.events import GraphSubmitted, TaskPassedThrough, TaskPlacedByDask, TaskReady
from agent.scheduler import protocol
from agent.scheduler.host import GovernedTask, Host
from agent.scheduler.lending import SOONER, Lending
from agent.scheduler.nested_tasks import NestedTasks

#: dependencies of a task that are told
MOST_UPSTREAM = 50
#: dependencies whose bytes are added up; of more, the sum is taken from these
MOST_SUMMED = 1000
#: largest priority that is told, either way; whole numbers up to it are the same for everybody who reads them
MOST_PRIORITY = 2**53
#: shared by all tasks that ask for nothing themselves; Dask only reads it
_HELD = {protocol.HOLD: 1}


class Holding:
    """Holds tasks on a resource that nobody has."""

    def __init__(self, host: Host, nested: NestedTasks, lending: Lending) -> None:
        self.host, self.nested, self.lending = host, nested, lending

    # ------------------------------------------------------------------ new tasks
    def take_in(self, keys: Sequence[Any]) -> None:
        """Before the new tasks' first transitions: hold those that are governed."""
        begin = time.thread_time()
        host, table, now = self.host, self.host.scheduler.tasks, round(time.time() * 1000)
        known: dict[Any, int] = {}
        timed: list[Any] = []
        for key in keys:
            ts = table.get(key)
            if ts is None or ts.state != "released" or ts.run_spec is None or key in host.tasks:
                continue
            says = ts.annotations.get(protocol.ANNOTATION) if ts.annotations else None
            if self._lets_through(ts, says):
                continue
            if host.mode_of(says) != "govern":
                host.tasks[key] = GovernedTask(key, host.specs.number(ts, says, ts.resource_restrictions), None, now)
                continue
            asked = ts.resource_restrictions or None
            # a graph of many tasks says few different things: the loop is not held for longer than it must
            same = (ts.prefix.name, id(says)) if asked is None else None
            number = known.get(same) if same is not None else None
            if number is None:
                number = host.specs.number(ts, says, asked)
                if same is not None:
                    known[same] = number
            host.tasks[key] = GovernedTask(key, number, asked, now)
            if host.specs.has_deadline(number):
                timed.append(key)
            ts.resource_restrictions = {**asked, protocol.HOLD: 1} if asked else _HELD
        if timed:
            host.tell(GraphSubmitted(self._graph(timed)))
        host.took("hold", begin)

    def _lets_through(self, ts: Any, says: Any) -> bool:
        """Whether a new task is not ours: by its flow's word, by restrictions of its author's, or as inner work."""
        if says is not None and (not isinstance(says, Mapping) or says.get(protocol.MODE) == "off"):
            return True
        if ts.actor or ts.worker_restrictions or ts.host_restrictions:
            why = "an actor" if ts.actor else "pinned to workers or hosts by its author"
            self.host.tell(TaskPassedThrough(ts.key, why))
            return True
        return says is not None and protocol.INNER in says and self.nested.adopt(ts, says[protocol.INNER])

    def submitted(self) -> list[tuple[Any, int, list[Any]]]:
        """The tasks of runs with a deadline that have not ended, as they were told when they were submitted."""
        return self._graph([key for key, task in self.host.tasks.items() if self._is_ahead(task)])

    def _is_ahead(self, task: GovernedTask) -> bool:
        if not self.host.specs.has_deadline(task.spec):
            return False
        ts = self.host.scheduler.tasks.get(task.key)
        return ts is not None and ts.state in ("waiting", "no-worker", "processing", "queued")

    def _graph(self, keys: Sequence[Any]) -> list[tuple[Any, int, list[Any]]]:
        """Tasks and what they depend on, inputs first."""
        table, new = self.host.scheduler.tasks, dict.fromkeys(keys)
        out: dict[Any, tuple[Any, int, list[Any]]] = {}
        for first in keys:
            stack = [first]
            while stack:
                key = stack[-1]
                above = [dts.key for dts in itertools.islice(table[key].dependencies, MOST_UPSTREAM)]
                missing = [parent for parent in above if parent in new and parent not in out]
                if missing and key not in out:
                    stack += missing
                    continue
                stack.pop()
                out.setdefault(key, (key, self.host.tasks[key].spec, above))
        return list(out.values())

    # ------------------------------------------------------------------ ready ones
    def ready(self, task: GovernedTask) -> None:
        """A task's inputs are ready, and it has no worker because it is held."""
        ts = self.host.scheduler.tasks[task.key]
        if not is_held(ts):
            return
        if ts.worker_restrictions or ts.host_restrictions:
            # pinned by Dask itself while it was held (the partitions of a shuffle): not ours to place
            asyncio.get_running_loop().call_soon(self._let_through, task.key)
            return
        task.ready = True
        task.on = None
        task.ready_at = time.perf_counter()
        self.host.tell(self._as_ready(task, ts, round(time.time() * 1000)))

    def all_ready(self, now_ms: int) -> list[TaskReady]:
        """Every task that is ready and held."""
        table = self.host.scheduler.tasks
        return [
            self._as_ready(task, ts, now_ms)
            for task in self.host.tasks.values()
            if task.on is None and task.ready and (ts := table.get(task.key)) is not None and ts.state == "no-worker"
        ]

    def _as_ready(self, task: GovernedTask, ts: Any, now_ms: int) -> TaskReady:
        # of its inputs, those that are governed: what it takes in
        upstream = [d.key for d in itertools.islice(ts.dependencies, MOST_UPSTREAM) if d.key in self.host.tasks]
        more = max(0, len(ts.dependencies) - MOST_UPSTREAM)
        priority = dask_priority(ts) + SOONER * self.lending.depth(task.key)
        return TaskReady(task.key, task.spec, input_bytes(ts), now_ms, upstream, more, priority)

    def placed_by_dask(self, task: GovernedTask, ts: Any, address: str) -> None:
        """Dask chose the worker of a task that is only looked at."""
        self.host.tell(TaskPlacedByDask(task.key, task.spec, input_bytes(ts), round(time.time() * 1000), address))

    def _let_through(self, key: Any) -> None:
        scheduler = self.host.scheduler
        task, ts = self.host.tasks.get(key), scheduler.tasks.get(key)
        if task is None or ts is None or ts.state != "no-worker":
            return
        del self.host.tasks[key]
        ts.resource_restrictions = task.asked
        self.host.tell(TaskPassedThrough(key, "pinned by Dask to the workers of a shuffle"))
        scheduler.transitions({key: "processing"}, stimulus_id="orc-through")
        if ts.state == "no-worker":
            scheduler.unrunnable.reveal(ts)


def hold(ts: Any, asked: dict[str, float] | None) -> None:
    """Keep a task from running until it is bound; `asked` are the resources that its author asked for."""
    ts.worker_restrictions = None
    ts.resource_restrictions = {**asked, protocol.HOLD: 1} if asked else _HELD


def is_held(ts: Any) -> bool:
    """Whether a task waits for the resource that nobody has."""
    return bool(ts.resource_restrictions) and protocol.HOLD in ts.resource_restrictions


def input_bytes(ts: Any) -> int:
    """Bytes of what a task takes in."""
    total = 0
    for at, dts in enumerate(ts.dependencies):
        if at == MOST_SUMMED:
            return total * len(ts.dependencies) // MOST_SUMMED
        total += max(0, dts.nbytes)
    return total


def dask_priority(ts: Any) -> int:
    """What the author said by Dask's `priority=`, in thousandths; the higher, the sooner."""
    # Dask turns it round, so that its smallest is first; a number of any kind may be there
    said = -1000 * ts.priority[0]
    return round(max(-MOST_PRIORITY, min(MOST_PRIORITY, said))) if said == said else 0
