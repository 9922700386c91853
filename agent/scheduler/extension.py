"""The extension: holds tasks before they run, binds them to workers when told, reports what became of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import SchedulerPlugin, Status

from agent.model.capacity import PoolSpec, WorkerCapacity
from agent.model.pools import pool_of
from agent.scheduler import compatibility, dashboard
from agent.scheduler import protocol as p
from agent.scheduler.batched_release import BatchedRelease
from agent.scheduler.binding import Binding
from agent.scheduler.demand import Demand
from agent.scheduler.departures import Departures
from agent.scheduler.lending import SOONER, Lending
from agent.scheduler.nested_tasks import NestedTasks
from agent.scheduler.replication import Replication
from agent.scheduler.unrunnable import Unrunnable
from agent.scheduler.worker_watch import WorkerWatch

logger = logging.getLogger("orc.extension")

#: deltas kept for a governor that is away
KEPT = 500_000
#: what to do about Adaptive
ADAPTIVE = "give its limits to a pool instead (workers.min and workers.max in pools.yaml), and end the Adaptive"
#: largest priority that is told, either way; whole numbers up to it are the same for everybody who reads them
MOST_PRIORITY = 2**53
#: dependencies of a task that are told
MOST_UPSTREAM = 50
#: what Dask calls the removal of a worker that did not leave by itself → why
_WHY_LEFT = (
    ("check-worker-ttl", "it was not heard for too long"),
    ("handle-worker-cleanup", "its connection to the scheduler broke"),
)
#: shared by all tasks that ask for nothing themselves; Dask only reads it
_HELD = {p.HOLD: 1}


@dataclass(slots=True)
class Task:
    """A task the extension holds or has bound."""

    key: Any
    spec: int
    #: resources its author asked for; given back at bind
    asked: dict[str, float] | None
    since_ms: int
    ready: bool = False
    #: address of the worker it is bound to
    on: str | None = None
    withdrawing: bool = False
    #: the restriction its bind gave it; another object there means Dask pinned it (a shuffle's partition)
    ours: set[str] | None = None
    #: when its inputs were ready, seconds of the performance counter
    ready_at: float = 0.0
    #: its body has checkpoints, so it can leave; when the last one was written, ms, and its bytes
    checkpoint: tuple[int, int] | None = None
    #: why its body left its worker by itself, as a result
    left: str = ""


def _dask_priority(ts: Any) -> int:
    """What the author said by Dask's `priority=`, in thousandths; the higher, the sooner."""
    # Dask turns it round, so that its smallest is first; a number of any kind may be there
    said = -1000 * ts.priority[0]
    return round(max(-MOST_PRIORITY, min(MOST_PRIORITY, said))) if said == said else 0


class Extension(SchedulerPlugin):
    """Mechanism only. What it does is told by the governor of the newest epoch, in batches."""

    name = "orc"
    idempotent = True

    def __init__(self, mode: str = "govern", allow_untested: bool = False) -> None:
        self.mode, self.allow_untested = mode, allow_untested
        self.degraded: list[str] = []

    async def start(self, scheduler: Any) -> None:
        """Look at the scheduler; take it over, or say why not and leave everything as it is.

        Dask calls it again for a plugin that was there before the scheduler started; it is taken over once.
        """
        if getattr(self, "scheduler", None) is scheduler:
            return
        self.scheduler = scheduler
        self.epoch = 0
        self.tasks: dict[Any, Task] = {}
        self.counts: dict[str, WorkerCapacity] = {}
        #: workers that are registered and do not run yet, as the governor will see them
        self.beginning: dict[str, dict[str, Any]] = {}
        self.sizes: dict[str, PoolSpec] = {}
        self.specs: dict[str, int] = {}
        self.spec_says: list[dict[str, Any]] = []
        self.deltas: deque[p.Delta] = deque(maxlen=KEPT)
        self.seq = 0
        self.wake = asyncio.Event()
        #: longest stretch of the scheduler's loop by ORC, ms, by what it did
        self.longest: dict[str, float] = {"hold": 0.0, "bind": 0.0, "release": 0.0, "copy": 0.0, "watch": 0.0}
        self.binding, self.copies, self.leaving = Binding(self), Replication(self), Departures(self)
        #: workers that were lost, and did not leave by themselves
        self.broken = 0
        #: names of the workers that left, and when, wall ms
        self.departed: deque[tuple[str, int]] = deque(maxlen=1000)
        #: held tasks as a restart began, and whether one goes on
        self.restarting = 0, False
        #: what the governor shows on the dashboard
        self.figures: Mapping[str, Any] | None = None
        #: an Adaptive has asked for its target
        self.adaptive = False
        self.inner, self.watch, self.lending, self.demand = (
            NestedTasks(self),
            WorkerWatch(self),
            Lending(self),
            Demand(self),
        )
        scheduler.handlers.update(
            {p.FOLLOW: self.follow, p.INSTRUCT: self.instruct, p.SNAPSHOT: self.snapshot, p.STATE: self.state}
        )
        scheduler.set_metadata([p.PRESENT], True)
        self.degraded = compatibility.problems(scheduler, self.allow_untested)
        if self.degraded:
            self.mode = "off"
            logger.warning("ORC does not govern this scheduler: %s", "; ".join(self.degraded))
            return
        for warning in compatibility.warnings():
            logger.warning("ORC: %s", warning)
        scheduler.unrunnable = Unrunnable(scheduler.unrunnable)
        self.slices = BatchedRelease(scheduler)
        self.lending.wrap(scheduler.stream_handlers)
        self.demand.wrap(scheduler.handlers)
        self._wrap("steal-response", self.binding.answered)
        self._wrap("long-running", self._lent)
        self._wrap("worker-status-change", self._status_changed)
        theirs = scheduler.handle_worker_status_change

        def changed(status: Any, worker: Any, stimulus_id: str) -> None:
            """As Dask itself calls it when it retires a worker."""
            theirs(status, worker, stimulus_id)
            self._told_status(worker if isinstance(worker, str) else worker.address)

        scheduler.handle_worker_status_change = changed
        scheduler.handlers["adaptive_target"] = self._adaptive
        restart = scheduler.handlers["restart"]

        async def restarting(*args: Any, **kwargs: Any) -> Any:
            """Dask releases every task before its plugins hear of the restart: what ends from here on ends by it."""
            self.restarting = sum(1 for task in self.tasks.values() if task.on is None), True
            return await restart(*args, **kwargs)

        scheduler.handlers["restart"] = restarting
        dashboard.serve(self)
        for address in scheduler.workers:
            self._joined(address)

    def _adaptive(self, *args: Any, **kwargs: Any) -> Any:
        """Dask's `Adaptive` asks how many workers there should be; it takes held tasks for demand."""
        if not self.adaptive:
            self.adaptive = True
            logger.warning("ORC: an Adaptive scales this cluster and takes held tasks for demand; %s", ADAPTIVE)
        return self.scheduler.adaptive_target(*args, **kwargs)

    def _wrap(self, name: str, ours: Any) -> None:
        theirs = self.scheduler.stream_handlers[name]

        def handle(**message: Any) -> Any:
            return ours(theirs, **message)

        self.scheduler.stream_handlers[name] = handle

    # ------------------------------------------------------------------ holding
    def update_graph(self, scheduler: Any, *, tasks: Sequence[Any], stimulus_id: str = "", **_: Any) -> None:  # noqa: C901
        """Before the new tasks' first transitions: hold them."""
        self.lending.submitted(stimulus_id, tasks)
        if self.mode == "off":
            return
        begin = time.thread_time()
        table, now = scheduler.tasks, round(time.time() * 1000)
        known: dict[Any, int] = {}
        timed: list[Any] = []
        for key in tasks:
            ts = table.get(key)
            if ts is None or ts.state != "released" or ts.run_spec is None or key in self.tasks:
                continue
            says = ts.annotations.get(p.ANNOTATION) if ts.annotations else None
            if says is not None and (not isinstance(says, Mapping) or says.get(p.MODE) == "off"):
                continue
            if ts.actor or ts.worker_restrictions or ts.host_restrictions:
                self.tell((p.THROUGH, key, "an actor" if ts.actor else "pinned to workers or hosts by its author"))
                continue
            if says is not None and p.INNER in says and self.inner.adopt(ts, says[p.INNER]):
                continue
            if self._mode_of(says) == "govern":
                asked = ts.resource_restrictions or None
                # a graph of many tasks says few different things: the loop is not held for longer than it must
                same = (ts.prefix.name, id(says)) if asked is None else None
                number = known.get(same) if same is not None else None
                if number is None:
                    number = self._spec(ts, says, asked)
                    if same is not None:
                        known[same] = number
                self.tasks[key] = Task(key, number, asked, now)
                if self._timed(number):
                    timed.append(key)
                ts.resource_restrictions = {**asked, p.HOLD: 1} if asked else _HELD
            else:
                self.tasks[key] = Task(key, self._spec(ts, says, ts.resource_restrictions), None, now)
        if timed:
            self.tell((p.SUBMITTED, self._graph(timed)))
        self.took("hold", begin)

    def _timed(self, spec: int) -> bool:
        """Whether tasks of a spec belong to a run with a deadline, for which it matters what comes behind them."""
        return (self.spec_says[spec]["says"].get(p.RUN) or {}).get("deadline_ms") is not None

    def _graph(self, keys: Sequence[Any]) -> list[tuple[Any, int, list[Any]]]:
        """Tasks and what they depend on, inputs first."""
        table, new = self.scheduler.tasks, dict.fromkeys(keys)
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
                out.setdefault(key, (key, self.tasks[key].spec, above))
        return list(out.values())

    def _mode_of(self, says: Mapping[str, Any] | None) -> str:
        """A flow's own word, else the scheduler's mode."""
        return (says.get(p.MODE) if says else None) or self.mode

    def hold(self, ts: Any, asked: dict[str, float] | None) -> None:
        """Keep a task from running until it is bound; `asked` are the resources that its author asked for."""
        ts.worker_restrictions = None
        ts.resource_restrictions = {**asked, p.HOLD: 1} if asked else _HELD

    def _spec(self, ts: Any, says: Mapping[str, Any] | None, asked: Mapping[str, float] | None) -> int:
        """Number of what the task says; each distinct saying travels once."""
        named = says.get(p.SPEC) if says else ""
        key = f"{ts.prefix.name}\0{named if named is not None else json.dumps(says, sort_keys=True, default=str)}\0{sorted(asked.items()) if asked else ''}"
        number = self.specs.get(key)
        if number is None:
            number = self.specs[key] = len(self.spec_says)
            self.spec_says.append(
                {
                    "prefix": ts.prefix.name,
                    "says": dict(says) if says else {},
                    "resources": dict(asked) if asked else {},
                }
            )
            self.tell((p.SPECIFIED, number, self.spec_says[number]))
        return number

    # ------------------------------------------------------------------ what happens to tasks
    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: C901
        """After each transition, before its consequences: report it, and hold again what comes back."""
        if key in self.lending.parents:
            self.lending.moved(key, finish)
        task = self.tasks.get(key)
        if task is None:
            self.inner.transition(key, start, finish)
            self.watch.moved(key, start, finish)
            if finish in ("no-worker", "queued"):
                self.demand.waits()
            return
        if finish == "no-worker":
            self._ready(task)
        elif finish == "processing" and task.on is None:
            self._ran_unheld(task)
        elif start == "processing":
            self._left(task, finish, kwargs)
        elif start == "memory" and finish == "released":
            # its result was lost with a worker: its last bind names that worker, so it is held again
            ts = self.scheduler.tasks.get(key)
            if ts is not None and self.governs(task):
                self.hold(ts, task.asked)
        elif finish in ("forgotten", "erred") and task.ready:
            task.ready = False
            self.tell((p.GONE, key))
        if finish == "forgotten":
            self.tasks.pop(key, None)

    def governs(self, task: Task) -> bool:
        """Whether a governor decides where it runs."""
        return self.mode != "off" and self._mode_of(self.spec_says[task.spec]["says"]) == "govern"

    def _ready(self, task: Task) -> None:
        ts = self.scheduler.tasks[task.key]
        if not (ts.resource_restrictions and p.HOLD in ts.resource_restrictions):
            return
        if ts.worker_restrictions or ts.host_restrictions:
            # pinned by Dask itself while it was held (the partitions of a shuffle): not ours to place
            self._soon(self._let_through, task.key)
            return
        task.ready = True
        task.on = None
        task.ready_at = time.perf_counter()
        self.tell((p.READY, *self._as_ready(task, ts, round(time.time() * 1000))))

    def _as_ready(self, task: Task, ts: Any, now_ms: int) -> tuple[Any, ...]:
        """A ready task as the governor is told of it."""
        priority = _dask_priority(ts) + SOONER * self.lending.depth(task.key)
        return task.key, task.spec, self._input_bytes(ts), now_ms, *self._upstream(ts), priority

    def _ran_unheld(self, task: Task) -> None:
        ts = self.scheduler.tasks[task.key]
        task.on = ts.processing_on.address
        if self.governs(task):
            self.watch.moved(task.key, "", "processing")
        else:
            self.tell(
                (p.BOUND_ELSEWHERE, task.key, task.spec, self._input_bytes(ts), round(time.time() * 1000), task.on)
            )

    @staticmethod
    def _input_bytes(ts: Any) -> int:
        total = 0
        for at, dts in enumerate(ts.dependencies):
            if at == 1000:
                return total * len(ts.dependencies) // 1000
            total += max(0, dts.nbytes)
        return total

    def _upstream(self, ts: Any) -> tuple[list[Any], int]:
        """Keys of governed tasks whose results it takes in, at most 50, and how many dependencies were left out."""
        keys = [d.key for d in itertools.islice(ts.dependencies, MOST_UPSTREAM) if d.key in self.tasks]
        return keys, max(0, len(ts.dependencies) - MOST_UPSTREAM)

    def _left(self, task: Task, finish: str, kwargs: Mapping[str, Any]) -> None:  # noqa: C901
        """The task is no longer processing: done, failed, lost, withdrawn or cancelled."""
        where, task.on = task.on, None
        counts = self.counts.get(where or "")
        lost = where not in self.scheduler.workers
        starved = finish == "released" and lost and counts is not None and self.leaving.starved(counts, task.key)
        if counts is not None:
            if counts.bound.pop(task.key, None) is None:
                self.watch.moved(task.key, "processing", finish)
            counts.seceded.discard(task.key)
        result = {"memory": "done", "erred": "failed"}.get(finish, "cancelled")
        ts = self.scheduler.tasks.get(task.key)
        if finish == "released":
            # somebody still wants it: its body asked to run elsewhere
            again = ts is not None and bool(ts.who_wants or ts.waiters)
            result = "lost" if lost else "withdrawn" if task.withdrawing else "rescheduled" if again else "cancelled"
            if result == "cancelled" and self.restarting[1]:
                result = "cancelled by restart"
            if starved:
                result = p.STARVED
            elif result == "rescheduled" and task.left:
                result = task.left
            if ts is not None:
                if lost:
                    # the governor counts losses; a death under queued work is not the task's failure
                    ts.suspicious = 0
                if self.governs(task):
                    pinned = ts.worker_restrictions if not lost and ts.worker_restrictions is not task.ours else None
                    self.hold(ts, task.asked)
                    # an output partition of a shuffle, pinned to the worker that has it: it is let through when it is ready
                    ts.worker_restrictions = pinned or None
        task.withdrawing = task.ready = False
        begin = stop = 0
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                begin, stop = round(span["start"] * 1000), round(span["stop"] * 1000)
        # a Prefect task that failed, or found its result stored, is a State in Dask's memory; the body says so in the metadata
        said = ((ts.metadata or {}).get(p.ANNOTATION) or {}) if result == "done" and ts is not None else {}
        where, nbytes = kwargs.get("worker") or where, kwargs.get("nbytes") or 0
        kept, task.checkpoint, task.left = task.checkpoint, None, ""
        self.tell(
            (
                p.ENDED,
                task.key,
                said.get(p.RESULT, result),
                where,
                begin,
                stop,
                nbytes,
                said.get(p.LINEAGE, ()),
                kept or (),
            )
        )
        if finish == "memory" and where is not None:
            self.copies.stored(task.key, where)

    def log_event(self, topic: str, msg: Any) -> None:
        """Dask's hook for what bodies and workers say of themselves."""
        self.leaving.said(topic, msg)

    def _let_through(self, key: Any) -> None:
        task, ts = self.tasks.get(key), self.scheduler.tasks.get(key)
        if task is None or ts is None or ts.state != "no-worker":
            return
        del self.tasks[key]
        ts.resource_restrictions = task.asked
        self.tell((p.THROUGH, key, "pinned by Dask to the workers of a shuffle"))
        self.scheduler.transitions({key: "processing"}, stimulus_id="orc-through")
        if ts.state == "no-worker":
            self.scheduler.unrunnable.reveal(ts)

    def _soon(self, call: Any, *args: Any) -> None:
        asyncio.get_running_loop().call_soon(call, *args)

    # ------------------------------------------------------------------ workers
    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker joined."""
        if not self.degraded:
            self._joined(worker)
            self.inner.pump()

    def _joined(self, address: str) -> None:
        ws = self.scheduler.workers[address]
        self.leaving.joined(address, ws)
        pools = tuple((size.name, size.selector) for size in self.sizes.values())
        pool = pool_of(pools, name=str(ws.name), host=ws.host, resources=ws.resources, nthreads=ws.nthreads)
        size = self.sizes.get(pool)
        memory = (ws.memory_limit or 0) // 2**20
        self.counts[address] = WorkerCapacity(
            address=address,
            name=str(ws.name),
            pool=pool,
            slots=ws.nthreads,
            cpus=size.cpus if size else ws.nthreads,
            memory_mib=size.memory_mib if size else memory or 2**40,
            gpus=size.gpus if size else 0,
            paused=ws not in self.scheduler.running,
        )
        # for some milliseconds it is registered and takes nothing yet: told then, it would look like a worker that is lost
        if ws.status == Status.init:
            self.beginning[address] = self.worker(address)
        else:
            self._tell_joined(address)

    def _tell_joined(self, address: str) -> None:
        self.beginning.pop(address, None)
        self.tell((p.JOINED, self.worker(address)))

    def _status_changed(self, theirs: Any, **message: Any) -> None:
        """A worker paused or goes on."""
        theirs(**message)
        self._told_status(message["worker"])

    def _told_status(self, address: str) -> None:
        counts, ws = self.counts.get(address), self.scheduler.workers.get(address)
        if counts is None or ws is None or counts.paused == (ws not in self.scheduler.running):
            return
        counts.paused = not counts.paused
        if address in self.beginning:
            self._tell_joined(address)
        else:
            self.tell((p.PAUSED, address, counts.paused))
        if not counts.paused:
            self.inner.pump()

    def remove_worker(self, scheduler: Any, worker: str, stimulus_id: str = "", **_: Any) -> None:
        """A worker left; its tasks have come back already."""
        self.leaving.left(worker)
        if (never_ran := self.beginning.pop(worker, None)) is not None:
            self.tell((p.JOINED, never_ran))
        if (counts := self.counts.pop(worker, None)) is not None:
            self.departed.append((counts.name, round(time.time() * 1000)))
            why = next((why for name, why in _WHY_LEFT if stimulus_id.startswith(name)), "")
            self.broken += bool(why)
            self.tell((p.LEFT, worker, why))
            self.inner.left(worker)

    def worker(self, address: str) -> dict[str, Any]:
        """A worker as the governor sees it."""
        ws, counts = self.scheduler.workers[address], self.counts[address]
        return {
            "address": address,
            "name": counts.name,
            "host": ws.host,
            "pool": counts.pool,
            "slots": counts.slots,
            "memory_mib": (ws.memory_limit or 0) // 2**20,
            "resources": dict(ws.resources),
            "draining": counts.draining,
            "paused": counts.paused,
            "others": counts.others,
            "other_slots": counts.other_slots,
        }

    def restart(self, scheduler: Any) -> None:
        """`client.restart`: Dask has forgotten every task, and its metadata."""
        scheduler.set_metadata([p.PRESENT], True)
        self.tasks.clear()
        self.copies.wanted.clear()
        self.inner.clear()
        self.lending.clear()
        for counts in self.counts.values():
            counts.bound.clear()
            counts.seceded.clear()
            counts.nested = 0
            self.watch.look(counts)
        self.tell((p.RESTARTED, self.restarting[0]))
        self.restarting = 0, False

    def _lent(self, theirs: Any, **message: Any) -> Any:
        """A task left its thread to wait for work of its own: its slot is lent to that work."""
        answer = theirs(**message)
        task = self.tasks.get(message.get("key"))
        if (
            task is not None
            and task.on is not None
            and (counts := self.counts.get(task.on)) is not None
            and task.key in counts.bound
        ):
            counts.seceded.add(task.key)
            self.tell((p.LENT, task.key))
        elif (counts := self.counts.get(str(message.get("worker")))) is not None:
            self.watch.look(counts)
        return answer

    # ------------------------------------------------------------------ reporting
    def tell(self, delta: p.Delta) -> None:
        """Number a delta and wake the governor."""
        self.seq += 1
        self.deltas.append(delta)
        self.wake.set()

    def took(self, what: str, begin: float) -> None:
        """Note how long the loop was held, in the loop's own time: on a busy machine the clock would count other processes."""
        self.longest[what] = max(self.longest[what], (time.thread_time() - begin) * 1000)

    def _fenced(self, epoch: int) -> dict[str, Any] | None:
        if epoch < self.epoch:
            return {"fenced": self.epoch}
        self.epoch = epoch
        return None

    async def follow(
        self, comm: Any = None, *, epoch: int, ack: int, wait: float = 1.0, gather: float = 0.001, most: int = 4000
    ) -> dict[str, Any]:
        """Deltas after `ack`, which the governor has on record; waits up to `wait` seconds for one, then `gather` for company."""
        if fenced := self._fenced(epoch):
            return fenced
        if ack == self.seq:
            self.wake.clear()
            try:
                await asyncio.wait_for(self.wake.wait(), wait)
                await asyncio.sleep(gather)
            except TimeoutError:
                pass
            if fenced := self._fenced(epoch):
                return fenced
        first = self.seq - len(self.deltas)
        if not first <= ack <= self.seq:
            return {"gap": True}
        for _ in range(ack - first):
            self.deltas.popleft()
        out = (
            [self.deltas[at] for at in range(min(most, len(self.deltas)))]
            if len(self.deltas) > most
            else list(self.deltas)
        )
        return {"ack": ack + len(out), "deltas": out}

    async def snapshot(self, comm: Any = None, *, epoch: int) -> dict[str, Any]:
        """Everything, for a governor that begins: workers, held and bound tasks, and outcomes nobody has on record yet."""
        if fenced := self._fenced(epoch):
            return fenced
        now = round(time.time() * 1000)
        ready, bound = [], []
        for task in self.tasks.values():
            if task.on is not None:
                bound.append((task.key, task.spec, task.on))
            elif task.ready and (ts := self.scheduler.tasks.get(task.key)) is not None and ts.state == "no-worker":
                ready.append(self._as_ready(task, ts, now))
        return {
            "ack": self.seq,
            "mode": self.mode,
            "degraded": self.degraded,
            "warnings": compatibility.warnings(),
            "specs": list(self.spec_says),
            "wanted": (self.demand.wanted, self.demand.why),
            "workers": [self.worker(address) for address in self.counts if address not in self.beginning],
            "ready": ready,
            "submitted": self._graph(
                [key for key, task in self.tasks.items() if self._timed(task.spec) and self._unended(key)]
            ),
            "bound": bound,
            "ended": [delta for delta in self.deltas if delta[0] == p.ENDED],
            "departed": list(self.departed),
        }

    def _unended(self, key: Any) -> bool:
        ts = self.scheduler.tasks.get(key)
        return ts is not None and ts.state in ("waiting", "no-worker", "processing", "queued")

    async def state(
        self, comm: Any = None, *, epoch: int = 0, flow_run: str = "", most: int = 200, keys: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """Figures for people, the tasks of a run that wait for their inputs, and why those of some keys are held."""
        waiting: list[tuple[str, int, list[str], int]] = []
        for task in () if keys else self.tasks.values():
            if task.on is None and not task.ready and len(waiting) < most:
                ts = self.scheduler.tasks.get(task.key)
                if (
                    ts is not None
                    and ts.state == "waiting"
                    and self.spec_says[task.spec]["says"].get(p.RUN, {}).get("flow_run", "") == flow_run
                ):
                    waiting.append(
                        (
                            str(task.key),
                            task.since_ms,
                            [str(d.key) for d in list(ts.waiting_on or ())[:3]],
                            len(ts.waiting_on or ()),
                        )
                    )
        return {
            "mode": self.mode,
            "degraded": self.degraded,
            "epoch": self.epoch,
            "longest_ms": self.longest,
            "bound": self.binding.bound,
            "waits_ms": list(self.binding.waits_ms)[-most:],
            "tasks": len(self.tasks),
            "adaptive": self.adaptive,
            "broken": self.broken,
            "waiting": waiting,
            "held": self._why_held(keys) if keys else {},
            "runtimes_ms": (self.figures or {}).get("runtimes_ms", {}),
        }

    def _why_held(self, keys: Sequence[Any]) -> dict[Any, tuple[str, str]]:
        """Key → reason and text, of those that are ready and wait, as the governor has said last."""
        holds = {(h["flow_run"], h["task"]): h for h in (self.figures or {}).get("held", ())}
        out: dict[Any, tuple[str, str]] = {}
        for key in keys:
            task = self.tasks.get(key)
            if task is None or not task.ready:
                continue
            says = self.spec_says[task.spec]["says"]
            name = says.get(p.NAME) or self.spec_says[task.spec]["prefix"]
            if (hold := holds.get(((says.get(p.RUN) or {}).get("flow_run", ""), name))) is not None:
                out[key] = hold["reason"], f"held for {hold['reason']}: {hold['why']}; goes on with {hold['release']}"
        return out

    # ------------------------------------------------------------------ doing what the governor says
    async def instruct(  # noqa: C901, PLR0913
        self,
        comm: Any = None,
        *,
        epoch: int,
        pools: Iterable[Mapping[str, Any]] | None = None,
        mode: str | None = None,
        binds: Sequence[Mapping[str, Any]] = (),
        drain: Sequence[str] = (),
        undrain: Sequence[str] = (),
        withdraw: Sequence[str] = (),
        refuse: Sequence[tuple[Any, str, str]] = (),
        leave: Sequence[tuple[Any, str]] = (),
        figures: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Apply instructions that are still true. Answers with the worker of each bound key, None where it could not be bound, and what is drained and busy with other work."""
        if fenced := self._fenced(epoch):
            return fenced
        if pools is not None and not self.degraded:
            self._configure(pools)
        if mode is not None and not self.degraded:
            self.mode = mode
        if figures is not None:
            self.figures = figures
        for address in drain:
            if (counts := self.counts.get(address)) is not None:
                self.leaving.drain(counts)
        for address in withdraw:
            if (counts := self.counts.get(address)) is not None:
                self.binding.withdraw(counts)
        for address in undrain:
            if (counts := self.counts.get(address)) is not None:
                counts.draining = False
        for key, why in leave:
            if (task := self.tasks.get(key)) is not None:
                self.leaving.ask(task, why)
        for key, kind, why in refuse:
            self.binding.refuse(key, kind, why)
        busy = [address for address in drain if (c := self.counts.get(address)) is not None and self.watch.look(c)]
        return {"bound": await self.binding.bind(epoch, binds), "busy": busy}

    def _configure(self, pools: Iterable[Mapping[str, Any]]) -> None:
        self.sizes = {said["name"]: PoolSpec.read(said) for said in pools}
        for address, old in list(self.counts.items()):
            self._joined(address)
            new = self.counts[address]
            new.bound, new.seceded, new.nested, new.draining = old.bound, old.seceded, old.nested, old.draining
            self.watch.look(new)
