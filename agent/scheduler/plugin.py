"""The extension: Dask's scheduler plugin, whose parts hold tasks, bind them when told, and report their ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from distributed import SchedulerPlugin

from agent.model.events import Restarted, TaskCancelled, TaskEnded
from agent.scheduler import compatibility, instructions, protocol
from agent.scheduler.batched_release import BatchedRelease
from agent.scheduler.binding import Binding
from agent.scheduler.dashboard import page
from agent.scheduler.demand import Demand
from agent.scheduler.departures import Departures
from agent.scheduler.endings import Endings
from agent.scheduler.fence import Fence
from agent.scheduler.holding import Holding, hold
from agent.scheduler.host import GovernedTask, Host
from agent.scheduler.instructions import Instructions
from agent.scheduler.lending import Lending
from agent.scheduler.nested_tasks import NestedTasks
from agent.scheduler.replication import Replication
from agent.scheduler.restart import Restart
from agent.scheduler.status import SchedulerStatus
from agent.scheduler.unrunnable import Unrunnable
from agent.scheduler.worker_registry import WorkerRegistry
from agent.scheduler.worker_watch import WorkerWatch

logger = logging.getLogger("orc.extension")


class Extension(SchedulerPlugin):
    """Mechanism only. What it does is told by the governor of the newest epoch, in batches."""

    name = "orc"
    idempotent = True

    def __init__(self, mode: str = "govern", allow_untested: bool = False) -> None:
        # it may travel to a scheduler that runs: its parts are made there
        self.mode, self.allow_untested = mode, allow_untested

    # ------------------------------------------------------------------ taking a scheduler over
    async def start(self, scheduler: Any) -> None:
        """Look at the scheduler; take it over, or say why not and leave everything as it is.

        Dask calls it again for a plugin that was there before the scheduler started; it is taken over once.
        """
        if getattr(self, "scheduler", None) is scheduler:
            return
        self.scheduler = scheduler
        self._make_parts()
        scheduler.handlers.update(
            {
                protocol.FOLLOW: self.follow,
                protocol.INSTRUCT: self.instruct,
                protocol.SNAPSHOT: self.snapshot,
                protocol.STATE: self.state,
            }
        )
        scheduler.set_metadata([protocol.PRESENT], True)
        self.degraded = self.status.degraded = compatibility.problems(scheduler, self.allow_untested)
        if self.degraded:
            self.host.mode = "off"
            logger.warning("ORC does not govern this scheduler: %s", "; ".join(self.degraded))
            return
        for warning in compatibility.warnings():
            logger.warning("ORC: %s", warning)
        self._wrap()
        page.serve(scheduler, self.status)
        for address in scheduler.workers:
            self.registry.joined(address)

    def _make_parts(self) -> None:
        """Each is given what it may ask of the others."""
        self.host, self.fence = Host(self.scheduler, self.mode), Fence()
        self.restarts, self.copies, self.demand = Restart(self.host), Replication(self.host), Demand(self.host)
        self.nested = NestedTasks(self.host)
        self.watch = WorkerWatch(self.host, self.nested)
        self.lending = Lending(self.host, self.watch)
        self.holding = Holding(self.host, self.nested, self.lending)
        self.binding = Binding(self.host, self.fence)
        self.departures = Departures(self.host, self.binding)
        self.endings = Endings(self.host, self.watch, self.departures, self.copies, self.restarts)
        self.registry = WorkerRegistry(self.host, self.watch, self.departures, self.nested)
        self.status = SchedulerStatus(self.host, self.fence, self.binding, self.nested, self.demand, self.registry)

    def _wrap(self) -> None:
        """Go between the scheduler and what it hears."""
        scheduler = self.scheduler
        scheduler.unrunnable = Unrunnable(scheduler.unrunnable)
        self.slices = BatchedRelease(scheduler)
        self.lending.wrap(scheduler.stream_handlers)
        self.demand.wrap(scheduler.handlers)
        self.binding.wrap()
        self.registry.wrap()
        self.restarts.wrap(scheduler.handlers)

    # ------------------------------------------------------------------ Dask's hooks
    def update_graph(self, scheduler: Any, *, tasks: Sequence[Any], stimulus_id: str = "", **_: Any) -> None:
        """Before the new tasks' first transitions."""
        self.lending.submitted(stimulus_id, tasks)
        if self.host.mode != "off":
            self.holding.take_in(tasks)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """After each transition, before its consequences: report it, and hold again what comes back."""
        if key in self.lending.parents:
            self.lending.moved(key, finish)
        task = self.host.tasks.get(key)
        if task is not None:
            self._follow_task(task, start, finish, kwargs)
            return
        self.nested.transition(key, start, finish)
        self.watch.moved(key, start, finish)
        if finish in ("no-worker", "queued"):
            self.demand.waits()

    def _follow_task(self, task: GovernedTask, start: str, finish: str, kwargs: Mapping[str, Any]) -> None:
        if finish == "no-worker":
            self.holding.ready(task)
        elif finish == "processing" and task.on is None:
            self._runs_unbound(task)
        elif start == "processing":
            self.endings.left(task, finish, kwargs)
        elif start == "memory" and finish == "released":
            # its result was lost with a worker: its last bind names that worker, so it is held again
            ts = self.scheduler.tasks.get(task.key)
            if ts is not None and self.host.governs(task):
                hold(ts, task.asked)
        elif finish in ("forgotten", "erred") and task.ready:
            task.ready = False
            self.host.tell(TaskCancelled(task.key))
        if finish == "forgotten":
            self.host.tasks.pop(task.key, None)

    def _runs_unbound(self, task: GovernedTask) -> None:
        """Dask sent it to a worker by itself."""
        ts = self.scheduler.tasks[task.key]
        task.on = address = ts.processing_on.address
        if self.host.governs(task):
            self.watch.moved(task.key, "", "processing")
        else:
            self.holding.placed_by_dask(task, ts, address)

    def log_event(self, topic: str, msg: Any) -> None:
        """What bodies and workers say of themselves."""
        self.departures.said(topic, msg)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker joined."""
        if not self.degraded:
            self.registry.joined(worker)
            self.nested.pump()

    def remove_worker(self, scheduler: Any, worker: str, stimulus_id: str = "", **_: Any) -> None:
        """A worker left; its tasks have come back already."""
        self.registry.left(worker, stimulus_id)

    def restart(self, scheduler: Any) -> None:
        """`client.restart`: Dask has forgotten every task, and its metadata."""
        scheduler.set_metadata([protocol.PRESENT], True)
        self.host.tasks.clear()
        self.copies.wanted.clear()
        self.nested.clear()
        self.lending.clear()
        self.registry.restarted()
        self.host.tell(Restarted(self.restarts.over()))

    # ------------------------------------------------------------------ what governors and people ask
    async def follow(
        self, comm: Any = None, *, epoch: int, ack: int, wait: float = 1.0, gather: float = 0.001, most: int = 4000
    ) -> dict[str, Any]:
        """Deltas after `ack`, which the governor has on record.

        Waits up to `wait` seconds for one, then `gather` for company.
        """
        if fenced := self.fence.refusal(epoch):
            return fenced
        await self.host.log.news(ack, wait, gather)
        return self.fence.refusal(epoch) or self.host.log.after(ack, most)

    async def snapshot(self, comm: Any = None, *, epoch: int) -> dict[str, Any]:
        """Everything, for a governor that begins: workers, held and bound tasks, and outcomes nobody has on record."""
        if fenced := self.fence.refusal(epoch):
            return fenced
        host = self.host
        return {
            "ack": host.log.seq,
            "mode": host.mode,
            "degraded": self.degraded,
            "warnings": compatibility.warnings(),
            "specs": list(host.specs.told),
            "wanted": (self.demand.wanted, self.demand.why),
            "workers": self.registry.all_described(),
            "ready": self.holding.all_ready(round(time.time() * 1000)),
            "submitted": self.holding.submitted(),
            "bound": [
                (task.key, task.spec, task.on, task.bound_ms, task.checkpoint)
                for task in host.tasks.values()
                if task.on is not None
            ],
            "ended": host.log.unrecorded(TaskEnded),
            "departed": list(self.registry.departed),
        }

    async def state(
        self, comm: Any = None, *, epoch: int = 0, flow_run: str = "", most: int = 200, keys: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """Figures for people, and why tasks of theirs wait."""
        return self.status.answer(flow_run, most, keys)

    # ------------------------------------------------------------------ doing what the governor says
    async def instruct(self, comm: Any = None, *, epoch: int, **told: Any) -> dict[str, Any]:
        """Apply instructions that are still true; see `agent.scheduler.instructions` for what may be told.

        Answers with the worker of each bound key, None where it could not be bound, and what is drained and busy with
        other work.

        Raises:
            InstructionError: one of them is not in its form; then none has an effect.
        """
        if self.fence.overtaken(epoch):
            return {"fenced": self.fence.epoch}
        said = instructions.read(told)
        self.fence.refusal(epoch)
        self._carry_out(said)
        workers = self.host.workers
        busy = [address for address in said.drain if address in workers and self.watch.look(workers[address])]
        return {"bound": await self.binding.bind(epoch, said.binds), "busy": busy}

    def _carry_out(self, said: Instructions) -> None:
        """Everything but the binds, which take their time."""
        if said.pools is not None and not self.degraded:
            self.registry.configure(said.pools)
        if said.mode is not None and not self.degraded:
            self.host.mode = said.mode
        if said.figures is not None:
            self.status.figures = said.figures
        for worker in self.registry.known(said.drain):
            self.departures.drain(worker)
        for worker in self.registry.known(said.withdraw):
            self.binding.withdraw(worker)
        for worker in self.registry.known(said.undrain):
            worker.draining = False
        for leave in said.leave:
            if (task := self.host.tasks.get(leave.key)) is not None:
                self.departures.ask(task, leave.why)
        for refusal in said.refuse:
            self.binding.refuse(refusal)
