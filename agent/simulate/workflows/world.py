"""The simulated world: pools whose capacity follows traces, workers that are billed, tasks that run and are lost.

It knows the future, and tells nobody: what a policy may see leaves it as the extension's deltas and the providers'
answers, into the governor's own view (`agent.state.cluster`).

Billing: a worker is billed from its grant to its end, start-up and idle time included, at the price of each moment, and
for the pool's minimum at least. A launch that is refused costs nothing but the time until the answer. When capacity
falls below use, that many workers are taken without notice, drawn by the seed. A lost task loses what its last
checkpoint does not hold; to go on in another pool its checkpoint is moved at the egress price.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from random import Random

from agent.errors import TraceError
from agent.model.pools import Pool
from agent.model.units import cost_micros
from agent.simulate.workflows.trace import CapacityTrace
from agent.simulate.workflows.workflow import WorkflowTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """A pool and what stands behind it."""

    pool: Pool
    #: capacity and price over the simulation's time; None: always granted at the pool's price
    trace: CapacityTrace | None = None


@dataclass(slots=True)
class Machine:
    """One worker, from its grant to its end."""

    number: int
    name: str
    pool: Pool
    granted_ms: int
    ready_ms: int
    joined: bool = False
    ended_ms: int | None = None
    cause: str = ""
    usd_micros: int = 0
    #: slot-ms of work that counted, and of work that was lost
    busy_ms: int = 0
    lost_ms: int = 0
    running: dict[str, WorkflowExecution] = field(default_factory=dict)
    queued: deque[str] = field(default_factory=deque)
    #: jobs served: slot-ms by name
    served: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class WorkflowExecution:
    """A task on a machine."""

    task: str
    machine: Machine
    start_ms: int
    stop_ms: int


@dataclass(slots=True)
class Doing:
    """A task's state in the world."""

    task: WorkflowTask
    job: str
    #: checkpointed work, ms of a worker without a GPU, and where it lies
    done_ms: int = 0
    kept_in: str = ""
    #: runtime of this very execution over the workflow's, so that estimates err
    luck: float = 1.0


@dataclass(frozen=True, slots=True)
class Happened:
    """Something the policy's side hears of."""

    kind: str
    at_ms: int
    #: machine, task, pool, as the kind has them
    machine: Machine | None = None
    task: str = ""
    pool: str = ""
    start_ms: int = 0


class World:
    """Events in order of time; `advance` lets the next instant happen."""

    def __init__(
        self, supplies: tuple[Supply, ...], seed: int, refusal_ms: int = 30_000, egress_usd_micros_per_gib: int = 0
    ) -> None:
        self.supplies = {supply.pool.name: supply for supply in supplies}
        self.random = Random(seed)
        self.refusal_ms, self.egress = refusal_ms, egress_usd_micros_per_gib
        self.now_ms = 0
        self.machines: dict[str, Machine] = {}
        self.ended: list[Machine] = []
        self.alive: dict[str, list[Machine]] = {name: [] for name in self.supplies}
        self.doing: dict[str, Doing] = {}
        self.events = 0
        self.egress_usd_micros = 0
        self.preemptions = self.refusals = 0
        self._heap: list[tuple[int, int, str, object]] = []
        self._number = 0
        self._changes: dict[str, list[tuple[int, int, int]]] = {}
        for name, supply in self.supplies.items():
            if supply.trace is not None:
                self._changes[name] = supply.trace.changes()[::-1]
                self._next_change(name)

    def at(self, at_ms: int, kind: str, what: object = None) -> None:
        """Something happens at an instant; things of one instant in the order they were said."""
        self._number += 1
        heapq.heappush(self._heap, (at_ms, self._number, kind, what))

    @property
    def next_ms(self) -> int | None:
        """The next instant at which something happens."""
        return self._heap[0][0] if self._heap else None

    def advance(self) -> list[Happened]:
        """Let the next instant happen."""
        out: list[Happened] = []
        if not self._heap:
            return out
        self.now_ms = self._heap[0][0]
        while self._heap and self._heap[0][0] == self.now_ms:
            _, _, kind, what = heapq.heappop(self._heap)
            self.events += 1
            if isinstance(what, WorkflowExecution):
                self._finish(what, kind, out)
            elif kind == "ready" and isinstance(what, Machine):
                if what.ended_ms is None:
                    what.joined = True
                    out.append(Happened("joined", self.now_ms, what))
            elif kind == "capacity":
                self._capacity(str(what), out)
            else:
                out.append(Happened(kind, self.now_ms, task=str(what), pool=str(what)))
        return out

    # ------------------------------------------------------------------ workers
    def capacity(self, pool: str) -> int:
        """Workers the pool would have now."""
        supply = self.supplies[pool]
        limit = supply.pool.max_workers
        return limit if supply.trace is None else min(limit, supply.trace.at(self.now_ms))

    def launch(self, pool: str, name: str) -> bool:
        """Ask for a worker; whether it was granted. A refusal is heard of `refusal_ms` later."""
        self.events += 1
        if len(self.alive[pool]) >= self.capacity(pool):
            self.refusals += 1
            self.at(self.now_ms + self.refusal_ms, "refused", name)
            return False
        self._number += 1
        of = self.supplies[pool].pool
        machine = Machine(self._number, name, of, self.now_ms, self.now_ms + of.startup_ms)
        self.machines[name] = machine
        self.alive[pool].append(machine)
        self.at(machine.ready_ms, "ready", machine)
        return True

    def end(self, name: str, cause: str) -> None:
        """A machine ends; what runs on it is lost."""
        machine = self.machines.pop(name)
        machine.ended_ms, machine.cause = self.now_ms, cause
        self.alive[machine.pool.name].remove(machine)
        machine.usd_micros = self.bill(machine, self.now_ms)
        self.ended.append(machine)

    def bill(self, machine: Machine, stop_ms: int) -> int:
        """Micro-dollars of a machine until an instant."""
        trace, start = self.supplies[machine.pool.name].trace, machine.granted_ms
        stop = max(stop_ms, start + machine.pool.min_billing_ms)
        return machine.pool.cost(start, stop) if trace is None else trace.cost(start, stop)

    def price(self, pool: str) -> int:
        """Micro-dollars an hour of a worker now, which is published."""
        supply = self.supplies[pool]
        return supply.pool.price_at(self.now_ms) if supply.trace is None else supply.trace.price_at(self.now_ms)

    def _capacity(self, pool: str, out: list[Happened]) -> None:
        alive, capacity = self.alive[pool], self.capacity(pool)
        while len(alive) > capacity:
            machine = alive[self.random.randrange(len(alive))]
            self.preemptions += 1
            self._lose(machine, out)
        out.append(Happened("price", self.now_ms, pool=pool))
        self._next_change(pool)

    def _next_change(self, pool: str) -> None:
        if self._changes[pool]:
            self.at(self._changes[pool].pop()[0], "capacity", pool)

    def _lose(self, machine: Machine, out: list[Happened]) -> None:
        for execution in machine.running.values():
            doing, ran = self.doing[execution.task], self.now_ms - execution.start_ms
            kept = self._saved_ms(execution)
            if kept:
                self._checkpoint(doing, machine.pool, kept)
            machine.busy_ms += kept
            machine.lost_ms += ran - kept
            machine.served[doing.job] = machine.served.get(doing.job, 0) + ran
        lost = [*machine.running, *machine.queued]
        machine.running.clear()
        machine.queued.clear()
        self.end(machine.name, "taken")
        out.append(Happened("left", self.now_ms, machine))
        out += [Happened("lost", self.now_ms, machine, task) for task in lost]

    # ------------------------------------------------------------------ tasks
    def _saved_ms(self, execution: WorkflowExecution) -> int:
        """How much of what it ran its last checkpoint holds."""
        every = self.doing[execution.task].task.needs.checkpoint_ms
        return (self.now_ms - execution.start_ms) // every * every if every else 0

    def _checkpoint(self, doing: Doing, pool: Pool, ran_ms: int) -> None:
        doing.done_ms += round(ran_ms * self._speed(doing, pool))
        doing.kept_in = pool.name

    def saved(self, task: str, name: str) -> int:
        """The instant of a running task's last checkpoint; that of its start before the first,
        -1 when it does not run.
        """
        execution = self.machines[name].running.get(task)
        return -1 if execution is None else execution.start_ms + self._saved_ms(execution)

    def leave(self, task: str, name: str) -> None:
        """A running task leaves its machine at its next checkpoint, should it not have ended by then."""
        execution, every = self.machines[name].running[task], self.doing[task].task.needs.checkpoint_ms or 0
        self.at(execution.start_ms + self._saved_ms(execution) + every, "leaves", execution)

    @staticmethod
    def _speed(doing: Doing, pool: Pool) -> float:
        return doing.task.run_ms / doing.task.run_on(pool.gpu_model if pool.gpus else None)

    def left_ms(self, task: str, pool: Pool) -> int:
        """What a task still takes on a worker of the pool, as it will turn out."""
        doing = self.doing[task]
        return max(1, round((doing.task.run_ms * doing.luck - doing.done_ms) / self._speed(doing, pool)))

    def start(self, task: str, name: str) -> None:
        """A task is sent to a machine; it runs at once when a slot is free, else behind what was sent before."""
        machine = self.machines[name]
        if len(machine.running) >= machine.pool.slots:
            machine.queued.append(task)
        else:
            self._run(task, machine)

    def _run(self, task: str, machine: Machine) -> None:
        doing = self.doing[task]
        if doing.kept_in and doing.kept_in != machine.pool.name and self.egress:
            self.egress_usd_micros += math.ceil(doing.task.checkpoint_mib / 1024 * self.egress)
            doing.kept_in = machine.pool.name
        execution = WorkflowExecution(task, machine, self.now_ms, self.now_ms + self.left_ms(task, machine.pool))
        machine.running[task] = execution
        self.at(execution.stop_ms, "done", execution)

    def _finish(self, execution: WorkflowExecution, kind: str, out: list[Happened]) -> None:
        """An execution is done, or leaves with its checkpoint; the next in line has its slot.

        Nothing, when it was lost before.
        """
        machine = execution.machine
        if machine.running.get(execution.task) is not execution:
            return
        del machine.running[execution.task]
        doing, ran = self.doing[execution.task], self.now_ms - execution.start_ms
        if kind == "leaves":
            self._checkpoint(doing, machine.pool, ran)
        machine.busy_ms += ran
        machine.served[doing.job] = machine.served.get(doing.job, 0) + ran
        out.append(Happened(kind, self.now_ms, machine, execution.task, start_ms=execution.start_ms))
        if machine.queued:
            self._run(machine.queued.popleft(), machine)


def check_horizon(supplies: tuple[Supply, ...], until_ms: int) -> None:
    """Raises TraceError when a trace ends before the last deadline: after it nothing would be known."""
    for supply in supplies:
        if supply.trace is not None and supply.trace.length_ms < until_ms:
            raise TraceError(
                f"trace {supply.trace.name} ends after {supply.trace.length_ms / 3_600_000:.1f} h "
                f"and the last deadline is at {until_ms / 3_600_000:.1f} h"
            )


def work_cost(usd_micros_per_hour: int, ms: int, slots: int) -> int:
    """Micro-dollars of one slot's part of a worker for a time."""
    return cost_micros(usd_micros_per_hour, ms / slots)
