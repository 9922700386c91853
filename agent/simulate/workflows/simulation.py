"""One simulation: jobs arrive, a policy plans from what the governor would see, the world does what it says.

The policy is any function from a snapshot to a plan: `agent.planner.plan.plan` itself, or a peer. The snapshot is made
by the governor's own view and statistics, from the same deltas and answers as live.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from agent.errors import SimulationError
from agent.governor import round as rounds
from agent.governor.round import Round
from agent.model.capacity import Load
from agent.model.events import SpecAdded, TaskEnded, TaskReady, WorkerJoined, WorkerLeft
from agent.model.leases import EndCause
from agent.model.needs import Needs
from agent.model.outcomes import Result
from agent.model.plans import Plan
from agent.model.records import Entry
from agent.model.snapshot import Running, Snapshot
from agent.scheduler import protocol
from agent.simulate.workflows.foretelling import EPOCH_MS, foretold_states
from agent.simulate.workflows.setting import SimulationResult, SimulationSetting, Span
from agent.simulate.workflows.workflow import Job, WorkflowTask
from agent.simulate.workflows.world import Doing, Happened, Machine, Supply, World, check_horizon
from agent.state import snapshot as snapshots
from agent.state.cluster import ClusterState
from agent.state.events import apply
from agent.state.recorder import Recorder
from agent.state.statistics import Statistics
from agent.state.tasks import BoundTask

#: exact runtimes are told in steps of this factor, rounded up, so that tasks of the same length are one group
EXACT_STEP = 1.05

#: without any worker for so long after the last trace's end, a policy is taken to have given up, ms
IDLE_END_MS = 24 * 3_600_000

Planner = Callable[[Snapshot], Plan]


def simulate(
    jobs: Sequence[Job], supplies: Sequence[Supply], planner: Planner, setting: SimulationSetting
) -> SimulationResult:
    """Run jobs through a policy until all have ended or nothing can happen any more.

    Raises TraceError when a trace ends before the last deadline.
    """
    return _Simulation(tuple(jobs), tuple(supplies), planner, setting).run()


class _Simulation:
    """The governor's place between a view and a world."""

    def __init__(
        self, jobs: tuple[Job, ...], supplies: tuple[Supply, ...], planner: Planner, setting: SimulationSetting
    ) -> None:
        check_horizon(supplies, max((job.deadline_ms or job.arrives_ms for job in jobs), default=0))
        self.jobs = {job.name: job for job in jobs}
        self.planner, self.setting = planner, setting
        self.world = World(supplies, setting.seed, setting.refusal_ms, setting.egress_usd_micros_per_gib)
        self.state = ClusterState([supply.pool for supply in supplies], lambda facts: (), frozenset())
        self.state.fleet.leases.retry_most_ms = setting.retry_ms
        self.policy = setting.policy
        if setting.exact:
            self.state.graphs.sigmas, self.state.learns_runtimes = 0.0, False
            self.policy = replace(setting.policy, deadline_sigmas=0.0)
        self.recorder = Recorder()
        self.random = Random(setting.seed + 1)
        self.left: dict[str, int] = {}
        self.children: dict[str, list[str]] = {}
        self.waits: dict[str, int] = {}
        self.spec_of: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.executions: list[tuple[str, str, str, int, int, str]] = []
        self.rounds = self.moves = 0
        #: some tasks have checkpoints
        self._keeps = any(task.needs.checkpoint_ms for job in jobs for task in job.workflow.tasks)
        self._looked_ms = -1
        self._specs: dict[tuple[object, ...], int] = {}
        self._leases: dict[str, int] = {}
        #: pool → workers with room, by number of their lease
        self._free: dict[str, list[tuple[int, str]]] = {supply.pool.name: [] for supply in supplies}
        self._next_round_ms = self._woken_ms = -1
        self._remember()
        for job in jobs:
            self.world.at(job.arrives_ms, "arrives", job.name)

    # ------------------------------------------------------------------ what is known at the start
    def _remember(self) -> None:
        """Fill the history: exact runtimes, or earlier executions of the same workflows."""
        statistics, models = self.state.statistics, {s.pool.name: s.pool for s in self.world.supplies.values()}
        workflows = {job.workflow.name: job.workflow for job in self.jobs.values()}
        for workflow in workflows.values():
            for task in workflow.tasks:
                name = self._class(workflow.name, task)
                # what no pool does faster is as long in all of them
                places = (
                    [(pool.name, task.run_on(pool.gpu_model if pool.gpus else None)) for pool in models.values()]
                    if task.faster
                    else [("", task.run_ms)]
                )
                for where, ms in places:
                    for _ in range(1 if self.setting.exact else self.setting.history):
                        told = _step(ms) if self.setting.exact else self._noisy(ms)
                        _seen(statistics, name, where, told, self.setting.exact)

    def _noisy(self, ms: int) -> int:
        return max(1, round(ms * self.random.lognormvariate(0.0, self.setting.noise)))

    def _class(self, workflow: str, task: WorkflowTask) -> str:
        return f"{workflow}/{task.task_class}" + (f"@{_step(task.run_ms)}" if self.setting.exact else "")

    # ------------------------------------------------------------------ the loop
    def run(self) -> SimulationResult:
        """Until all jobs have ended or nothing happens any more."""
        world = self.world
        # from then on no job arrives and no trace says anything: what stands still stays so
        traces = [s.trace.length_ms for s in world.supplies.values() if s.trace is not None]
        over = max([*traces, *(job.arrives_ms for job in self.jobs.values())], default=0)
        lively = 0
        while len(self.ends) < len(self.jobs) and world.next_ms is not None:
            if world.machines or world.now_ms < over:
                lively = world.now_ms
            elif world.now_ms - lively > IDLE_END_MS:
                # the policy wants nothing else: tasks that it has no pool for would be waited for without end
                break
            for happened in world.advance():
                self._hear(happened)
            if self.state.dirty and world.now_ms >= self._next_round_ms:
                self._round()
            elif self.state.dirty:
                self._wake(self._next_round_ms)
        return self._result()

    def _wake(self, at_ms: int) -> None:
        if self._woken_ms <= self.world.now_ms or at_ms < self._woken_ms:
            self._woken_ms = at_ms
            self.world.at(at_ms, "look")

    def _hear(self, happened: Happened) -> None:  # noqa: C901
        view, now, machine = self.state, happened.at_ms + EPOCH_MS, happened.machine
        if happened.kind == "done" and machine is not None:
            apply(view, TaskEnded(happened.task, Result.DONE, machine.name, happened.start_ms + EPOCH_MS, now, 0), now)
            heapq.heappush(self._free[machine.pool.name], (self._leases[machine.name], machine.name))
            self._keep(happened, machine, "done")
            self._done(happened.task, now)
        elif happened.kind == "leaves" and machine is not None:
            self._checkpointed(happened.task)
            apply(view, TaskEnded(happened.task, Result.MOVED, machine.name, happened.start_ms + EPOCH_MS, now, 0), now)
            heapq.heappush(self._free[machine.pool.name], (self._leases[machine.name], machine.name))
            self._keep(happened, machine, Result.MOVED)
            self.moves += 1
            apply(view, TaskReady(happened.task, self.spec_of[happened.task], 0, now), now)
        elif happened.kind == "joined" and machine is not None:
            apply(view, WorkerJoined(_worker(machine)), now)
            heapq.heappush(self._free[machine.pool.name], (self._leases[machine.name], machine.name))
        elif happened.kind == "left" and machine is not None:
            view.fleet.leases.end(self._leases.pop(machine.name), now, EndCause.INTERRUPTED)
            apply(view, WorkerLeft(machine.name), now)
        elif happened.kind == "lost" and machine is not None:
            self._checkpointed(happened.task)
            apply(view, TaskReady(happened.task, self.spec_of[happened.task], 0, now), now)
        elif happened.kind == "refused":
            if (lease := self._leases.pop(happened.task, None)) is not None:
                view.fleet.leases.refused(lease, now, "no capacity")
                view.dirty = True
        elif happened.kind == "price":
            view.fleet.pools[happened.pool].price = self.world.price(happened.pool)
            view.dirty = view.dirty or bool(view.waiting)
        elif happened.kind == "arrives":
            self._arrive(self.jobs[happened.task], now)
        elif happened.kind == "look":
            view.dirty = True

    def _checkpointed(self, task: str) -> None:
        doing = self.world.doing[task]
        if doing.done_ms:
            self.state.checkpointed(task, doing.done_ms, doing.kept_in, doing.task.checkpoint_mib)

    def _keep(self, happened: Happened, machine: Machine, result: str) -> None:
        if self.setting.keep_executions:
            job = self.world.doing[happened.task].job
            self.executions.append((job, happened.task, machine.name, happened.start_ms, happened.at_ms, result))

    def _arrive(self, job: Job, now: int) -> None:
        tasks: list[tuple[str, int, list[str]]] = []
        for task in job.workflow.tasks:
            key = f"{job.name}/{task.id}"
            luck = 1.0 if self.setting.exact else self.random.lognormvariate(0.0, self.setting.noise)
            self.world.doing[key] = Doing(task, job.name, luck=luck)
            parents = [f"{job.name}/{parent}" for parent in task.parents]
            self.spec_of[key], self.waits[key] = self._spec(job, task), len(parents)
            for parent in parents:
                self.children.setdefault(parent, []).append(key)
            tasks.append((key, self.spec_of[key], parents))
        self.left[job.name] = len(tasks)
        self.state.submitted(tasks)
        for key, spec, parents in tasks:
            if not parents:
                apply(self.state, TaskReady(key, spec, 0, now), now)

    def _spec(self, job: Job, task: WorkflowTask) -> int:
        name = self._class(job.workflow.name, task)
        key = (job.name, name, task.needs)
        if key not in self._specs:
            self._specs[key] = number = len(self._specs)
            run = {"flow_run": job.name, "root_run": job.name}
            if job.deadline_ms is not None:
                run["deadline_ms"] = job.deadline_ms + EPOCH_MS  # type: ignore[assignment]
            needs = {field: getattr(task.needs, field) for field in Needs.__dataclass_fields__ if field != "resources"}
            says = {
                "prefix": name,
                "says": {protocol.NEEDS: {**needs, "task_class": name}, protocol.RUN: run},
                "resources": {},
            }
            apply(self.state, SpecAdded(number, says), EPOCH_MS)
        return self._specs[key]

    def _done(self, task: str, now: int) -> None:
        doing = self.world.doing.pop(task)
        for child in self.children.pop(task, ()):
            self.waits[child] -= 1
            if not self.waits[child]:
                apply(self.state, TaskReady(child, self.spec_of[child], 0, now), now)
        self.left[doing.job] -= 1
        if not self.left[doing.job]:
            self.ends[doing.job] = self.world.now_ms
            self.state.graphs.forget(doing.job)

    # ------------------------------------------------------------------ one round
    def _round(self) -> None:
        world, view = self.world, self.state
        now = world.now_ms + EPOCH_MS
        view.dirty = False
        self.rounds += 1
        self._next_round_ms = world.now_ms + self.setting.round_ms
        snapshot = snapshots.take(
            view, now, self.policy, view.live_groups(), running=self._running(now), graphs=self.setting.graphs,
            seed=self.setting.seed
        )  # fmt: skip
        if self.setting.clairvoyant:
            snapshot = replace(snapshot, pools=foretold_states(snapshot.pools, world))
        entry = Entry(kind="round", at_ms=now, outcomes=list(view.ended), leases=view.fleet.leases.unrecorded())
        drawn = rounds.draw_up(view, self.recorder, snapshot, self.planner(snapshot), entry)
        # there is nobody who could refuse the entry
        rounds.take_in(view, self.recorder, drawn)
        self._carry_out(drawn, now)
        retries = [status.retry_ms - EPOCH_MS for status in view.fleet.pools.values() if status.retry_ms > now]
        if view.waiting or self._could_move():
            self._wake(min([world.now_ms + self.setting.tick_ms, *retries]))
        elif any(machine.joined and not machine.running for machine in world.machines.values()):
            # an idle worker may be ended by time alone
            pauses = [ms for s in view.fleet.pools.values() for ms in (s.pool.idle_ms, s.pool.min_billing_ms) if ms]
            self._wake(world.now_ms + min(pauses, default=self.setting.tick_ms) + 1)

    def _could_move(self) -> bool:
        """A task runs on demand, or in a market of zones, with checkpoints to leave at."""
        return self._keeps and any(self._leavable(bound) for bound in self.state.bound.values())

    def _leavable(self, bound: BoundTask) -> bool:
        needs = self.world.doing[str(bound.task.key)].task.needs
        fleet = self.state.fleet
        return bool(needs.checkpoint_ms) and (
            fleet.pools[bound.pool].pool.market == "on-demand" or bool(fleet.markets.all)
        )

    def _running(self, now: int) -> tuple[Running, ...]:
        """Tasks on demand that may be worth moving: looked for once a tick, and when a spot worker joined."""
        view, world = self.state, self.world
        look = self._keeps and (view.fleet.came or now - self._looked_ms >= self.setting.tick_ms)
        if look:
            self._looked_ms = now
        if look or (self._keeps and view.fleet.markets.all):
            for bound in view.bound.values():
                if self._leavable(bound) and (saved := world.saved(str(bound.task.key), bound.address)) >= 0:
                    bound.saved = (saved + EPOCH_MS, 0)
        return view.running(now, look)

    def _carry_out(self, drawn: Round, now: int) -> None:  # noqa: C901
        view, world, made = self.state, self.world, drawn.plan
        if made.replan_at_ms is not None:
            self._wake(max(self._next_round_ms, made.replan_at_ms - EPOCH_MS))
        orders = rounds.orders_of(view, drawn)
        for sending in drawn.sendings:
            # one by one: where the next goes depends on where the last went
            for task, placement in zip(sending.tasks, sending.placements, strict=True):
                name = self._place(sending.pool.pool.name, sending.load, sending.ahead)
                if name is None:
                    view.wait(task, now)
                    continue
                one = replace(sending, tasks=[task], placements=[placement])
                rounds.sent(view, one, [name], now)
                world.start(str(task.key), name)
        for drain in made.drains:
            machine = world.machines.get(drain.worker)
            if machine is not None and machine.joined and not machine.running and not machine.queued:
                world.end(drain.worker, "idle")
                view.fleet.leases.end(self._leases.pop(drain.worker), now, EndCause.DRAINED)
                apply(view, WorkerLeft(drain.worker), now)
        for order in drawn.launches:
            name = order.lease.worker
            self._leases[name] = order.lease.id
            if world.launch(order.pool.name, name):
                view.fleet.leases.granted(order.lease.id, now)
        for key, pool, _ in orders.leave:
            address = view.bound[key].address
            view.told_to_leave(key, pool, now)
            world.leave(str(key), address)
        for refusal in made.refusals:
            raise SimulationError(f"a task was refused: {refusal.why}")

    def _place(self, pool: str, load: Load, ahead: int) -> str | None:
        """A worker with room, the oldest first, so that the younger may become idle and end."""
        free = self._free[pool]
        skipped: list[tuple[int, str]] = []
        found: str | None = None
        while free:
            _, name = free[0]
            live = self.state.fleet.live.get(name)
            if live is None or live.counts.draining or (not ahead and len(live.counts.bound) >= live.counts.slots):
                heapq.heappop(free)
                continue
            if live.counts.fits(load, ahead):
                found = name
                break
            skipped.append(heapq.heappop(free))
        for one in skipped:
            heapq.heappush(free, one)
        return found

    def _result(self) -> SimulationResult:
        world = self.world
        unfinished = list(world.machines)
        for name in unfinished:
            world.end(name, "the end")
        by_pool: dict[str, int] = {}
        by_job: dict[str, int] = {}
        loose = 0
        for machine in world.ended:
            by_pool[machine.pool.name] = by_pool.get(machine.pool.name, 0) + machine.usd_micros
            served = sum(machine.served.values())
            if not served:
                loose += machine.usd_micros
            for job, ms in machine.served.items():
                by_job[job] = by_job.get(job, 0) + round(machine.usd_micros * ms / served)
        spans = tuple(
            Span(
                pool=m.pool.name, name=m.name, granted_ms=m.granted_ms, ready_ms=m.ready_ms,
                ended_ms=m.ended_ms or world.now_ms, cause=m.cause, usd_micros=m.usd_micros, busy_ms=m.busy_ms,
                lost_ms=m.lost_ms, slots=m.pool.slots,
            )
            for m in sorted(world.ended, key=lambda m: m.number)
        )  # fmt: skip
        return SimulationResult(
            usd_micros=sum(by_pool.values()) + world.egress_usd_micros,
            egress_usd_micros=world.egress_usd_micros,
            by_pool=by_pool,
            ends=self.ends,
            deadlines={job.name: job.deadline_ms for job in self.jobs.values()},
            by_job=by_job,
            spans=spans,
            executions=tuple(self.executions),
            preemptions=world.preemptions,
            moves=self.moves,
            refusals=world.refusals,
            events=world.events,
            rounds=self.rounds,
        )


def _worker(machine: Machine) -> dict[str, object]:
    return {
        "address": machine.name, "name": machine.name, "host": "", "pool": machine.pool.name,
        "slots": machine.pool.slots, "memory_mib": machine.pool.memory_mib, "resources": {}, "draining": False,
        "paused": False,
    }  # fmt: skip


def _step(ms: int) -> int:
    return ms if ms < 2 else math.ceil(EXACT_STEP ** math.ceil(math.log(ms, EXACT_STEP) - 1e-9))


def _seen(statistics: Statistics, task_class: str, pool: str, ms: int, exact: bool) -> None:
    keys = {(task_class, pool), (task_class, "")}
    for key in sorted(keys):
        known = statistics.runtimes[key]
        known.add(math.log(ms))
        if exact:
            # the mean of many equal executions
            known.n = 200.0
