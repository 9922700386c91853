"""What the governor knows: a state machine over the extension's deltas and the providers' observations. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from agent.governor import specs
from agent.governor.learning import Learning
from agent.governor.metrics import Tally
from agent.governor.specs import Facts, Spec
from agent.ledger.records import Ended, Lease
from agent.model.codec import digest, encode
from agent.model.needs import Needs
from agent.model.plans import Bind
from agent.model.pools import DEFAULT, Pool, PriceStep
from agent.model.snapshot import Group, PoolState, Run, Running, Starting, Usage, Worker
from agent.model.units import cost_micros
from agent.model.verdicts import Verdict
from agent.planner.dag import Graph
from agent.planner.estimate import PRIOR_LOG_MS
from agent.planner.feasible import gpus_taken
from agent.planner.room import share
from agent.scheduler import protocol as p
from agent.scheduler.counts import Counts

Judge = Callable[[Facts], tuple[Verdict, ...]]

#: a root run without a task for so long has ended, as far as can be seen from here
QUIET_MS = 60_000
#: groups kept in memory before those of no task are forgotten
GROUPS_KEPT = 20_000
#: keys whose placement is remembered, to say what a task takes in
PLACED_KEPT = 200_000
#: longest pause between launch attempts in a pool that refuses, ms
RETRY_MOST_MS = 60_000
#: paths behind tasks are told apart by this factor, so that tasks of nearly the same urgency are one group
PATH_STEP = 1.05
#: a class's expected time moves the graphs it is in when it changed by more than this factor
NEWS = 1.15


#: a task is slow when it has run for so many times what was expected, and for so long, ms
SLOW_TIMES = 2
SLOW_MS = 10_000
#: a slot is kept at least so long for a task that was told to leave for it, ms
KEPT_MS = 60_000
#: shortest time between two looks at whether a task on demand should go back to spot, ms
BACK_MS = 30_000
#: results after which a task runs again
_UNDONE = ("preempted", "lost", p.LEFT_EARLY, p.STARVED)


@dataclass(slots=True)
class Task:
    """A task that is ready and not bound."""

    key: Any
    spec: int
    input_mib: int
    since_ms: int
    #: placements whose results it takes in, as the ledger stores them
    upstream: str = ""


@dataclass(slots=True)
class Bound:
    """A task that was sent to a worker."""

    task: Task
    placement: int
    group: str
    pool: str
    address: str
    at_ms: int
    expected_ms: int
    usd_micros_per_hour: int
    load: tuple[int, int, int] = (0, 0, 0)
    #: its last checkpoint, ms and bytes; None: it has none to leave at
    saved: tuple[int, int] | None = None
    #: it is slow when it has run for so long, ms
    slow_ms: int = 0
    #: whether spot would do the rest for less is looked at again when it has run for so long, ms
    back_ms: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What a checkpoint keeps of a task that was interrupted."""

    done_ms: int
    pool: str
    mib: int


@dataclass(slots=True)
class PoolView:
    """A declared pool, what was asked of its provider, and what it answered."""

    pool: Pool
    starting: dict[str, int] = field(default_factory=dict)
    refused_since_ms: int | None = None
    refusals: int = 0
    retry_ms: int = 0
    price: int | None = None


@dataclass(slots=True)
class Live:
    """A worker that joined."""

    counts: Counts
    joined_ms: int
    idle_since_ms: int | None
    lease: int | None = None
    #: it was told that it is taken away
    noticed: bool = False


@dataclass(slots=True)
class Word:
    """What people said about a group: approvals and overrides."""

    approved: tuple[str, ...] = ()
    approved_pools: tuple[str, ...] = ()
    approved_by: str | None = None
    approved_usd_micros: int | None = None
    rejected_by: str | None = None
    override: str | None = None


class View:
    """Ready and bound tasks by group, workers by pool, leases, and what was learned."""

    def __init__(self, pools: Iterable[Pool], judge: Judge, rules_facts: frozenset[str]) -> None:
        self.pools = {pool.name: PoolView(pool) for pool in pools}
        self.judge, self.rules_facts = judge, rules_facts
        self.learning = Learning()
        self.retry_most_ms = RETRY_MOST_MS
        #: runtimes that end are learned from; not where they are known beforehand
        self.learns_runtimes = True
        #: standard deviations of a runtime's logarithm that paths are reckoned with
        self.path_sigmas = 1.282
        #: root run → its graph, as far as it was submitted
        self.graphs: dict[str, Graph] = {}
        self.graph_of: dict[Hashable, Graph] = {}
        self.kept: dict[Hashable, Kept] = {}
        self.deadlines: dict[str, int | None] = {}
        self._expected: dict[str, int] = {}
        #: task class → root run → its tasks
        self._of_class: dict[str, dict[str, list[Hashable]]] = {}
        self.specs: list[Spec] = []
        self.tally = Tally()
        self.live: dict[str, Live] = {}
        self.ready: dict[str, dict[Any, Task]] = {}
        self.group_of: dict[Any, str] = {}
        self.groups: dict[str, Group] = {}
        self.bound: dict[Any, Bound] = {}
        #: bound tasks that were told to leave, where they can go on, and until when a slot is kept for them there, ms
        self.moving: dict[Any, tuple[str, int]] = {}
        #: a spot worker joined since running tasks were looked at
        self.came = False
        #: key → its newest placement, of the newest keys
        self.placed: dict[Any, int] = {}
        #: key → preemptions, other losses
        self.losses: dict[Any, tuple[int, int]] = {}
        self.words: dict[str, Word] = {}
        self.leases: dict[int, Lease] = {}
        self.lease_of: dict[str, int] = {}
        self.next_lease = 1
        self.ended: list[Ended] = []
        self.changed_leases: set[int] = set()
        #: launched workers that left the scheduler, and why; their processes may still be there
        self.left: list[tuple[Lease, str]] = []
        self.through = 0
        self.root_seen_ms: dict[str, int] = {}
        self.shadow: dict[Any, tuple[Task, str]] = {}
        #: tasks whose needs cannot be read, to be refused
        self.wrong: list[tuple[Any, str]] = []
        #: what happened that is neither a decision nor an outcome, to be put on record
        self.news: list[dict[str, Any]] = []
        #: addresses of workers that said that they will be taken away
        self.leaving: list[str] = []
        self._starved_anew = False
        self.dirty = True
        self._cache: dict[Any, str] = {}
        self._judged_hour = 0

    # ------------------------------------------------------------------ deltas
    def begin(self, snapshot: Mapping[str, Any], now_ms: int) -> None:
        """Start from the extension's full snapshot."""
        self.specs = [specs.read(number, says, now_ms) for number, says in enumerate(snapshot["specs"])]
        self.live.clear()
        self.ready.clear()
        self.group_of.clear()
        for worker in snapshot["workers"]:
            self._joined(worker, now_ms)
        self.submitted(snapshot.get("submitted", ()))
        for key, spec, input_bytes, since, upstream, more in snapshot["ready"]:
            self._ready(key, spec, input_bytes, since, now_ms, upstream, more)
        self.dirty = True

    def apply(self, delta: p.Delta, now_ms: int) -> None:
        """Take one delta in. Every delta may come twice."""
        kind = delta[0]
        self.dirty = True
        if kind == p.READY:
            key, spec, input_bytes, since, *upstream = delta[1:]
            self._ready(key, spec, input_bytes, since, now_ms, *upstream)
        elif kind == p.ENDED:
            self._ended(*delta[1:], now_ms=now_ms)
        elif kind == p.SUBMITTED:
            self.submitted(delta[1])
        elif kind == p.SPECIFIED:
            if delta[1] == len(self.specs):
                self.specs.append(specs.read(delta[1], delta[2], now_ms))
        elif kind == p.JOINED:
            self._joined(delta[1], now_ms)
        elif kind == p.LEFT:
            self._left(*delta[1:], now_ms=now_ms)
        elif kind == p.PAUSED:
            if (paused := self.live.get(delta[1])) is not None:
                paused.counts.paused = delta[2]
        elif kind == p.NOTICE:
            if (leaving := self.live.get(delta[1])) is not None:
                leaving.noticed = leaving.counts.draining = True
                self.leaving.append(delta[1])
                self.news.append({"notice": leaving.counts.name, "left_ms": delta[2], "why": delta[3]})
        elif kind == p.SAVED:
            if (bound := self.bound.get(delta[1])) is not None:
                bound.saved = delta[2:4]
        elif kind == p.GONE:
            self._unready(delta[1])
            self.losses.pop(delta[1], None)
        elif kind == p.LENT:
            if (bound := self.bound.get(delta[1])) is not None and (live := self.live.get(bound.address)) is not None:
                live.counts.lent.add(delta[1])
        elif kind == p.THROUGH:
            self.through += 1
        elif kind == p.BOUND_ELSEWHERE:
            self.shadow[delta[1]] = (Task(delta[1], delta[2], _bucket(delta[3]), delta[4]), delta[5])
        elif kind == p.RESTARTED:
            self.news.append({"cancelled by restart": {"held": delta[1]}})
            for key in list(self.bound):
                self._ended(key, "cancelled by restart", None, 0, 0, 0, now_ms=now_ms)
            self.ready.clear()
            self.group_of.clear()

    def _ready(
        self,
        key: Any,
        spec: int,
        input_bytes: int,
        since_ms: int,
        now_ms: int,
        upstream: Iterable[Any] = (),
        more: int = 0,
    ) -> None:
        if key in self.bound:
            return
        self._unready(key)
        if error := self.specs[spec].error:
            self.wrong.append((key, error))
            return
        if (graph := self.graph_of.get(key)) is not None:
            graph.again(key)
        above = [str(self.placed[k]) for k in upstream if k in self.placed] + ([f"+{more}"] if more else [])
        task = Task(key, spec, _bucket(input_bytes), since_ms, ",".join(above))
        group = self._group(task, now_ms)
        self.ready.setdefault(group, {})[key] = task
        self.group_of[key] = group

    def _unready(self, key: Any) -> Task | None:
        group = self.group_of.pop(key, None)
        if group is None:
            return None
        tasks = self.ready[group]
        task = tasks.pop(key)
        if not tasks:
            del self.ready[group]
        return task

    def _ended(
        self, key: Any, result: str, address: str | None, start_ms: int, stop_ms: int, output_bytes: int,
        lineage: Iterable[Any] = (), checkpoint: Sequence[int] = (), *, now_ms: int,
    ) -> None:  # fmt: skip
        bound = self.bound.pop(key, None)
        self.moving.pop(key, None)
        if bound is None:
            if result == "cancelled":
                self._unready(key)
            return
        live = self.live.get(bound.address)
        if live is not None:
            live.counts.bound.pop(key, None)
            live.counts.lent.discard(key)
            if not live.counts.bound:
                live.idle_since_ms = now_ms
        spec = self.specs[bound.task.spec]
        kept = self.kept.get(key)
        if result == p.STARVED:
            self._starved(spec, bound)
        elif result in ("lost", p.LEFT_EARLY):
            # who leaves because it is slow was neither taken away nor lost
            slow = result == p.LEFT_EARLY and live is not None and not live.counts.draining
            preempted = not slow and (result == p.LEFT_EARLY or self._was_preempted(bound))
            result = "preempted" if preempted and result == "lost" else result
            preemptions, losses = self.losses.get(key, (0, 0))
            self.losses[key] = (preemptions + preempted, losses + (not preempted and not slow))
        elif result != "withdrawn":
            self.losses.pop(key, None)
            self.kept.pop(key, None)
            if (graph := self.graph_of.get(key)) is not None:
                graph.end(key)
        if checkpoint and checkpoint[0] > bound.at_ms and result in _UNDONE:
            before = kept.done_ms if kept else 0
            self.checkpointed(key, before + checkpoint[0] - bound.at_ms, bound.pool, -(-checkpoint[1] // 2**20))
        stop = stop_ms or now_ms
        run = stop_ms - start_ms if start_ms else now_ms - bound.at_ms if result in (*_UNDONE, "failed") else 0
        part = self._share(bound)
        lease = live.lease if live is not None else self.lease_of.get(bound.address)
        if result == "done" and start_ms and self.learns_runtimes:
            ran_in = live.counts.pool if live is not None else bound.pool
            # what a checkpoint spared it belongs to its runtime
            self.learning.ran(spec.task_class, ran_in, stop, run + (kept.done_ms if kept else 0), spec.root_run)
            if spec.items > 1:
                self.learning.item(spec.task_class.removesuffix(p.CHUNKS), run / spec.items)
            self._learned(spec)
            self.tally.ran(bound.expected_ms, run)
        if spec.root_run:
            self.root_seen_ms[spec.root_run] = now_ms
        usd = cost_micros(bound.usd_micros_per_hour, run * part)
        self.tally.outcomes[bound.pool, result] += 1
        self.ended.append(
            Ended(
                placement=bound.placement,
                result=result,
                lease=lease or 0,
                start_ms=start_ms or bound.at_ms,
                run_ms=run,
                usd_micros=usd,
                lineage=tuple((str(verb), str(kind), str(at)) for verb, kind, at in lineage),
            )
        )

    def _starved(self, spec: Spec, bound: Bound) -> None:
        """A task ran out of memory: its class is given more from now on."""
        mib = bound.load[1]
        if mib > self.learning.starved_mib.get(spec.task_class, 0):
            self.starved(spec.task_class, mib)
            self.news.append({"starved": spec.task_class, "mib": mib})

    def starved(self, task_class: str, mib: int) -> None:
        """Tasks of a class ran out of so much memory; those that wait are told apart anew."""
        self.learning.starved(task_class, mib)
        self._starved_anew = self.dirty = True

    def _fed(self, needs: Needs, starved_mib: int) -> Needs:
        """Needs with twice the memory that was too little, or the largest worker's where that is less."""
        if not starved_mib or (needs.memory_mib or 0) > starved_mib:
            return needs
        largest = max((view.pool.memory_mib for view in self.pools.values()), default=0)
        return replace(needs, memory_mib=min(2 * starved_mib, largest) if largest > starved_mib else 2 * starved_mib)

    def _was_preempted(self, bound: Bound) -> bool:
        live = self.live.get(bound.address)
        view = self.pools.get(bound.pool)
        return (live is not None and live.noticed) or (view is not None and view.pool.market == "spot")

    def _share(self, bound: Bound) -> float:
        group, state = self.groups.get(bound.group), self._state_of(bound.pool)
        return share(group, state) if group is not None and state is not None else 1.0

    def _state_of(self, name: str) -> PoolState | None:
        view = self.pools.get(name)
        pool = view.pool if view is not None else self._default_pool()
        return PoolState(pool=pool, usd_micros_per_hour=0) if pool is not None else None

    # ------------------------------------------------------------------ workers and leases
    def _joined(self, worker: Mapping[str, Any], now_ms: int) -> None:
        name, pool, address = worker["name"], worker["pool"], worker["address"]
        view = self.pools.get(pool)
        old = self.live.get(address)
        size = view.pool if view is not None else None
        counts = Counts(
            address,
            name,
            pool,
            worker["slots"],
            size.cpus if size else worker["slots"],
            size.memory_mib if size else worker["memory_mib"] or 2**40,
            size.gpus if size else 0,
            draining=worker["draining"],
            paused=worker["paused"],
        )
        if old is not None:
            counts.bound, counts.lent = old.counts.bound, old.counts.lent
        live = Live(counts, now_ms, None if counts.bound else now_ms)
        live.noticed = old.noticed if old is not None else False
        self.live[address] = live
        if view is not None:
            asked = view.starting.pop(name, None)
            view.refused_since_ms, view.refusals, view.retry_ms = None, 0, 0
            self.came = self.came or view.pool.market == "spot"
            if asked is not None:
                self.learning.started(pool, now_ms - asked)
        lease = next(
            (x for x in self.leases.values() if x.worker == name and x.pool == pool and x.ended_ms is None), None
        )
        if lease is None and view is not None:
            lease = self.new_lease(view.pool, name, now_ms, "observed", granted=True)
        if lease is not None:
            if lease.ready_ms is None:
                self._lease(replace(lease, ready_ms=now_ms))
            live.lease = lease.id
            self.lease_of[address] = lease.id

    def _left(self, address: str, why: str = "", *, now_ms: int) -> None:
        live = self.live.pop(address, None)
        if live is None:
            return
        for key, bound in list(self.bound.items()):
            if bound.address == address:
                self.live[address] = live
                self._ended(key, "lost", address, 0, 0, 0, now_ms=now_ms)
                self.live.pop(address, None)
        lease = self.leases.get(live.lease) if live.lease is not None else None
        if lease is not None and lease.cause == "observed":
            self.end_lease(lease.id, now_ms, why or "left")
        elif lease is not None and lease.ended_ms is None:
            self.left.append((lease, why))

    def new_lease(self, pool: Pool, worker: str, now_ms: int, cause: str, granted: bool = False) -> Lease:
        """A lease from asking for a worker on."""
        self.next_lease += 1
        price = orjson.dumps(
            {"steps": [[s.since_ms, s.usd_micros_per_hour] for s in pool.price], "min_billing_ms": pool.min_billing_ms}
        ).decode()
        lease = Lease(
            id=self.next_lease - 1,
            pool=pool.name,
            kind=pool.shown_kind,
            worker=worker,
            asked_ms=now_ms,
            granted_ms=now_ms if granted else None,
            cause=cause,
            price=price,
        )
        self._lease(lease)
        return lease

    def _lease(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self.changed_leases.add(lease.id)
        self.dirty = True

    def granted(self, lease_id: int, now_ms: int) -> None:
        """The provider gave a worker; billing starts."""
        lease = self.leases[lease_id]
        view = self.pools[lease.pool]
        if view.pool.market == "spot":
            # capacity is there; a worker that then fails to come up is another matter
            if view.refused_since_ms is not None:
                self.learning.refused(lease.pool, now_ms - view.refused_since_ms, True)
            view.refused_since_ms = None
        self._lease(replace(lease, granted_ms=now_ms))

    def refused(self, lease_id: int, now_ms: int, why: str) -> None:
        """The provider has no capacity; ask again later, each time later."""
        lease = self.leases[lease_id]
        view = self.pools[lease.pool]
        view.starting.pop(lease.worker, None)
        self._put_off(view, now_ms)
        self._lease(replace(lease, ended_ms=now_ms, cause=f"refused: {why}"))

    def _put_off(self, view: PoolView, now_ms: int) -> None:
        """The next launch attempt comes later, each time later."""
        if view.retry_ms <= now_ms:
            view.refusals += 1
            view.refused_since_ms = view.refused_since_ms if view.refused_since_ms is not None else now_ms
            view.retry_ms = now_ms + min(self.retry_most_ms, 1_000 * 2 ** min(view.refusals, 20))

    def end_lease(self, lease_id: int, now_ms: int, cause: str) -> None:
        """The worker is gone; what it cost is known."""
        lease = self.leases.get(lease_id)
        if lease is None or lease.ended_ms is not None:
            return
        view = self.pools.get(lease.pool)
        usd = view.pool.billed(lease.granted_ms, now_ms) if view is not None and lease.granted_ms is not None else 0
        if view is not None:
            view.starting.pop(lease.worker, None)
            self.learning.lived(lease.pool, now_ms - (lease.granted_ms or now_ms), "taken" in cause or "died" in cause)
            if lease.ready_ms is None:
                # it never came up: as good as a refusal, or it would be launched again at once, for ever
                self._put_off(view, now_ms)
        self.tally.lease_usd_micros[lease.pool, cause] += usd
        self._lease(replace(lease, ended_ms=now_ms, cause=cause, usd_micros=usd))

    def noticed(self, worker: str) -> str | None:
        """A worker is to be taken away: it gets no more work. Its address, when it has joined."""
        for address, live in self.live.items():
            if live.counts.name == worker:
                live.noticed = live.counts.draining = True
                self.dirty = True
                return address
        return None

    # ------------------------------------------------------------------ groups
    def judge_again(self, judge: Judge, rules_facts: frozenset[str], now_ms: int) -> dict[str, frozenset[str]]:
        """Ask other rules about every waiting task. Groups that have another name now: new → old ones."""
        self.judge, self.rules_facts = judge, rules_facts
        self._cache = {}
        return self._regroup(now_ms)

    def turn_hour(self, now_ms: int) -> dict[str, frozenset[str]]:
        """Ask the rules again when the hour that they read has turned, or needs have grown. As `judge_again`."""
        if self._starved_anew or self._hour(now_ms) != self._judged_hour:
            self._starved_anew = False
            return self._regroup(now_ms)
        return {}

    def _regroup(self, now_ms: int) -> dict[str, frozenset[str]]:
        self._judged_hour = self._hour(now_ms)
        # what was said of the old names is carried over by the caller
        waiting, words, groups = self.ready, dict(self.words), dict(self.groups)
        self.ready, self.group_of = {}, {}
        moved: dict[str, set[str]] = {}
        for old, tasks in waiting.items():
            for key, task in tasks.items():
                new = self._group(task, now_ms)
                self.ready.setdefault(new, {})[key] = task
                self.group_of[key] = new
                if new != old:
                    moved.setdefault(new, set()).add(old)
        gone = {old for olds in moved.values() for old in olds}
        self.words.update({old: words[old] for old in gone if old in words})
        self.groups.update({old: groups[old] for old in gone})
        self.dirty = True
        return {new: frozenset(olds) for new, olds in moved.items()}

    def _hour(self, now_ms: int) -> int:
        """The hour since 1970, when a rule reads the time; else 0."""
        return now_ms // 3_600_000 if self.rules_facts & {"hour", "weekday"} else 0

    def _group(self, task: Task, now_ms: int) -> str:
        spec = self.specs[task.spec]
        preemptions, losses = self.losses.get(task.key, (0, 0))
        tail, kept = self._tail(task.key, spec), self.kept.get(task.key)
        starved = self.learning.starved_mib.get(spec.task_class, 0)
        key = (task.spec, task.input_mib, preemptions, losses, self._hour(now_ms), tail, kept, starved)
        found = self._cache.get(key)
        if found is None:
            self._forget_groups()
            facts = specs.facts(spec, task.input_mib, preemptions, losses, now_ms)
            verdicts = self.judge(facts)
            base = Group(
                id="",
                task_class=spec.task_class,
                name=spec.name,
                needs=self._fed(spec.needs, starved),
                starved_mib=starved,
                chunk=spec.chunk,
                root_run=spec.root_run,
                flow_run=spec.flow_run,
                team=spec.team,
                ready=0,
                since_ms=0,
                verdicts=verdicts,
                deadline_ms=spec.deadline_ms,
                preemptions=preemptions,
                losses=losses,
                tail_ms=tail,
                done_ms=kept.done_ms if kept else 0,
                checkpoint_pool=kept.pool if kept else "",
                checkpoint_mib=kept.mib if kept else 0,
            )
            found = digest(encode([base, task.input_mib, spec.error]))[:16]
            self._cache[key] = found
            self.groups[found] = replace(base, id=found)
        return found

    def _forget_groups(self) -> None:
        """Groups of runs that are long over, when there are very many."""
        if len(self.groups) < GROUPS_KEPT:
            return
        used = {*self.ready, *(bound.group for bound in self.bound.values())}
        self._cache = {key: group for key, group in self._cache.items() if group in used}
        self.groups = {id: group for id, group in self.groups.items() if id in used}
        self.words = {id: word for id, word in self.words.items() if id in used}

    def live_groups(self) -> tuple[Group, ...]:
        """Groups that have ready tasks, as they are now."""
        return tuple(self._now(name, list(self.ready[name].values())) for name in sorted(self.ready))

    def shadow_groups(self, now_ms: int) -> dict[str, list[tuple[Task, str]]]:
        """Tasks of shadow mode by group, each with the worker Dask put it on; they are taken out."""
        out: dict[str, list[tuple[Task, str]]] = {}
        for task, address in self.shadow.values():
            out.setdefault(self._group(task, now_ms), []).append((task, address))
        self.shadow = {}
        return out

    def _now(self, name: str, tasks: list[Task]) -> Group:
        """A group with these tasks, and with what people said of it."""
        base, word = self.groups[name], self.words.get(name, Word())
        return replace(
            base,
            ready=len(tasks),
            since_ms=tasks[0].since_ms,
            tail_ms=base.tail_ms or round(self.learning.tails.get(base.task_class, 0.0)),
            override=word.override,
            approved=word.approved,
            approved_pools=word.approved_pools,
            approved_by=word.approved_by,
            approved_usd_micros=word.approved_usd_micros,
            rejected_by=word.rejected_by,
        )

    # ------------------------------------------------------------------ graphs
    def submitted(self, tasks: Iterable[tuple[Hashable, int, Iterable[Hashable]]]) -> None:
        """Tasks that were submitted, ready or not: (key, spec, keys of its inputs), inputs first."""
        by_run: dict[str, list[tuple[Hashable, int, Iterable[Hashable], int]]] = {}
        for key, number, parents in tasks:
            spec = self.specs[number]
            beyond = round(self.learning.tails.get(spec.task_class, 0.0))
            by_run.setdefault(spec.root_run, []).append((key, self._ms(spec), parents, beyond))
            self.deadlines[spec.root_run] = spec.deadline_ms
            self._of_class.setdefault(spec.task_class, {}).setdefault(spec.root_run, []).append(key)
        for run, found in by_run.items():
            graph = self.graphs.setdefault(run, Graph(self._startup()))
            graph.extend(found)
            self.graph_of.update((key, graph) for key, *_ in found)
        self.dirty = True

    def checkpointed(self, key: Hashable, done_ms: int, pool: str, mib: int) -> None:
        """A task that was interrupted goes on from a checkpoint."""
        self.kept[key] = Kept(done_ms, pool, mib)

    def runs(self, now_ms: int) -> tuple[Run, ...]:
        """Runs whose graph is known, in order of their names."""
        ends: dict[str, int] = {}
        here: dict[str, int] = {}
        for name, ready in self.ready.items():
            run = self.groups[name].root_run
            here[run] = here.get(run, 0) + len(ready)
        for bound in self.bound.values():
            run = self.specs[bound.task.spec].root_run
            here[run] = here.get(run, 0) + 1
            ends[run] = min(ends.get(run, 2**62), max(now_ms, bound.at_ms + bound.expected_ms))
        return tuple(
            Run(
                root_run=name,
                deadline_ms=self.deadlines.get(name),
                work_ms=graph.work_ms,
                path_ms=graph.path_ms,
                tasks=graph.tasks,
                ahead=max(0, graph.tasks - here.get(name, 0)),
                next_ms=ends.get(name),
            )
            for name, graph in sorted(self.graphs.items())
            if graph.tasks
        )

    def usage(self, groups: Sequence[Group]) -> tuple[Usage, ...]:
        """Who has the workers now, in order of teams and runs; nothing when one run alone waits."""
        if len({(group.team, group.root_run) for group in groups}) < 2:
            return ()
        taken: dict[tuple[str, str], int] = {}
        for bound in self.bound.values():
            spec = self.specs[bound.task.spec]
            taken[spec.team, spec.root_run] = taken.get((spec.team, spec.root_run), 0) + 1
        return tuple(Usage(team=team, root_run=run, slots=n) for (team, run), n in sorted(taken.items()))

    def running(self, now_ms: int, look: bool = True) -> tuple[Running, ...]:
        """Running tasks that may be worth moving, and those that were told to leave.

        Slow ones, each again when it has run for twice as long; and on demand those with a checkpoint, every half a minute
        and whenever a worker joined.

        Args:
            look: else only those that were told.
        """
        told = ((self.bound[key], pool) for key, (pool, until_ms) in self.moving.items() if now_ms < until_ms)
        out = [self._running(bound, now_ms, pool) for bound, pool in told if bound.group in self.groups]
        if look:
            came, self.came = self.came, False
            spot = any(x.pool.market == "spot" and x.retry_ms <= now_ms for x in self.pools.values())
            for key, bound in self.bound.items():
                ran = now_ms - bound.at_ms
                if ran >= max(bound.slow_ms, SLOW_MS, SLOW_TIMES * bound.expected_ms):
                    bound.slow_ms = 2 * ran
                elif spot and bound.saved is not None and ran < bound.expected_ms and (came or ran >= bound.back_ms):
                    view = self.pools.get(bound.pool)
                    if view is None or view.pool.market != "on-demand":
                        continue
                    bound.back_ms = ran + BACK_MS
                else:
                    continue
                if key not in self.moving and not self.shadow.get(key) and bound.group in self.groups:
                    out.append(self._running(bound, now_ms))
        return tuple(sorted(out, key=lambda task: task.placement))

    def _running(self, bound: Bound, now_ms: int, leaves_for: str = "") -> Running:
        """A running task as if it were decided now, from its last checkpoint."""
        kept, (saved_ms, _) = self.kept.get(bound.task.key), bound.saved or (0, 0)
        done = (kept.done_ms if kept else 0) + max(0, saved_ms - bound.at_ms)
        group = replace(self._now(bound.group, [bound.task]), done_ms=done)
        every, live = group.needs.checkpoint_ms or 0, self.live.get(bound.address)
        return Running(
            placement=bound.placement, group=group, pool=bound.pool, ran_ms=now_ms - bound.at_ms,
            expected_ms=bound.expected_ms, leaves=bound.saved is not None,
            leaves_ms=max(0, max(saved_ms, bound.at_ms) + every - now_ms) if every else 0,
            beside=max(0, len(live.counts.bound) - 1) if live is not None else 0, leaves_for=leaves_for,
        )  # fmt: skip

    def told_to_leave(self, key: Any, pool: str, now_ms: int) -> None:
        """A task is to leave its worker at its next checkpoint, and go on in a pool: a slot is kept there for as long as that may take."""
        every = self.groups[self.bound[key].group].needs.checkpoint_ms
        self.moving[key] = (pool, now_ms + max(2 * (every or 0), KEPT_MS))

    def forget_run(self, root_run: str) -> None:
        """A run has ended: its graph is let go."""
        graph = self.graphs.pop(root_run, None)
        self.deadlines.pop(root_run, None)
        if graph is None:
            return
        for key in graph:
            self.graph_of.pop(key, None)
        for runs in self._of_class.values():
            runs.pop(root_run, None)

    def _startup(self) -> int:
        """Start-up of the on-demand workers that a deadline falls back on, ms."""
        found = [view.pool.startup_ms for view in self.pools.values() if view.pool.market == "on-demand"]
        return min(found, default=0)

    def _tail(self, key: Hashable, spec: Spec) -> int:
        """The longest path behind a task, ms, rounded up to a step; 0 without a deadline, which alone asks for it."""
        graph = self.graph_of.get(key)
        if graph is None or spec.deadline_ms is None:
            return 0
        tail = graph.tail_ms(key)
        return tail if tail < 2 else math.ceil(PATH_STEP ** math.ceil(math.log(tail, PATH_STEP) - 1e-9))

    def _ms(self, spec: Spec) -> int:
        """What a task of a class is reckoned to take on a path, ms."""
        known = self._expected.get(spec.task_class)
        if known is None:
            known = self._expected[spec.task_class] = self._reckoned(spec)
        return known

    def _reckoned(self, spec: Spec) -> int:
        seen = self.learning.runtimes.get((spec.task_class, ""))
        if seen is not None and seen.n >= 1:
            sigma = math.sqrt(seen.m2 / seen.n)
            return max(1, round(math.exp(seen.mean + self.path_sigmas * sigma)))
        return spec.needs.runtime_ms or round(math.exp(PRIOR_LOG_MS))

    def _learned(self, spec: Spec) -> None:
        """A class's expected time has changed: so do the paths it is on."""
        old = self._expected.get(spec.task_class)
        if old is None:
            return
        new = self._reckoned(spec)
        if max(new, old) > NEWS * min(new, old) + 1:
            self._expected[spec.task_class] = new
            for run, keys in self._of_class.get(spec.task_class, {}).items():
                self.graphs[run].weigh(keys, new)

    def pool_states(self, now_ms: int) -> tuple[PoolState, ...]:
        """Every declared pool, and `default` when workers belong to none."""
        workers: dict[str, list[Worker]] = {}
        ends: dict[str, list[int]] = {}
        for bound in self.bound.values():
            ends.setdefault(bound.address, []).append(max(bound.at_ms + bound.expected_ms, now_ms))
        for address in sorted(self.live):
            live = self.live[address]
            _, cpus, memory, gpus = live.counts.free()
            lease = self.leases.get(live.lease) if live.lease is not None else None
            workers.setdefault(live.counts.pool, []).append(
                Worker(
                    name=live.counts.name,
                    address=address,
                    slots=live.counts.slots,
                    bound=len(live.counts.bound) - len(live.counts.lent),
                    cpus_free=cpus,
                    memory_free_mib=memory,
                    gpus_free=gpus,
                    idle_since_ms=live.idle_since_ms,
                    launched_ms=(lease.granted_ms if lease else None) or live.joined_ms,
                    frees_ms=min(ends[address]) if address in ends else None,
                    ends_ms=tuple(sorted(ends[address])) if address in ends else (),
                    draining=live.counts.draining or live.counts.paused,
                )
            )
        out = []
        for name, view in sorted(self.pools.items()):
            pool = view.pool
            out.append(
                PoolState(
                    pool=pool,
                    usd_micros_per_hour=view.price if view.price is not None else pool.price_at(now_ms),
                    workers=tuple(workers.get(name, ())),
                    starting=tuple(Starting(name=n, asked_ms=at) for n, at in sorted(view.starting.items())),
                    refused_since_ms=view.refused_since_ms,
                    retry_ms=view.retry_ms,
                    hazard_per_hour=self.learning.hazard(
                        name,
                        pool.interruptions_per_1000_hours,
                        sum(now_ms - w.launched_ms for w in workers.get(name, ())) / 3_600_000,
                    )
                    if pool.market == "spot"
                    else 0.0,
                    startup_ms=round(self.learning.startups.get(name, pool.startup_ms)),
                    returns_per_hour=self.learning.returns(name) if pool.market == "spot" else 0.0,
                )
            )
        if DEFAULT in workers and (default := self._default_pool()) is not None:
            out.append(
                PoolState(pool=default, usd_micros_per_hour=default.price_at(now_ms), workers=tuple(workers[DEFAULT]))
            )
        return tuple(out)

    def _default_pool(self) -> Pool | None:
        found = [live.counts for live in self.live.values() if live.counts.pool == DEFAULT]
        if not found:
            return None
        # nobody said what they cost: they count as the dearest, so that a declared pool is preferred
        dearest = max((view.pool.price[-1].usd_micros_per_hour for view in self.pools.values()), default=0)
        slots = max(c.slots for c in found)
        return Pool(
            name=DEFAULT,
            market="on-demand",
            cpus=slots,
            memory_mib=max(c.memory_mib for c in found),
            slots=slots,
            priced=False,
            price=(PriceStep(since_ms=0, usd_micros_per_hour=dearest),),
        )

    # ------------------------------------------------------------------ a plan's effects
    def take(self, bind: Bind) -> list[Task]:
        """The group's first tasks, taken out of the ready ones."""
        tasks = list(self.ready[bind.group].values())[: bind.count]
        for task in tasks:
            self._unready(task.key)
        return tasks

    def load(self, group: Group, pool: str) -> tuple[int, int, int]:
        """What one task of the group takes on a worker of the pool: cpus, MiB, GPUs."""
        state = self._state_of(pool)
        assert state is not None
        memory = group.needs.memory_mib or state.pool.memory_mib // state.pool.slots
        return group.needs.cpus, memory, gpus_taken(group, state.pool)

    def sent(self, bound: Bound) -> None:
        """The extension bound a task to a worker."""
        self.bound[bound.task.key] = bound
        self.tally.placements[bound.pool] += 1
        if bound.task.key in self.losses:
            self.tally.moves[bound.pool] += 1
        self.placed[bound.task.key] = bound.placement
        if len(self.placed) > PLACED_KEPT:
            del self.placed[next(iter(self.placed))]
        live = self.live.get(bound.address)
        if live is not None:
            live.counts.bound[bound.task.key] = bound.load
            live.idle_since_ms = None

    def back(self, task: Task, now_ms: int) -> None:
        """A task could not be bound: it is ready again."""
        self.dirty = True
        group = self._group(task, now_ms)
        self.ready.setdefault(group, {})[task.key] = task
        self.group_of[task.key] = group

    def forget_quiet(self, now_ms: int) -> None:
        """Learn the tails of root runs that have ended."""
        for root, seen in list(self.root_seen_ms.items()):
            if now_ms - seen > QUIET_MS:
                del self.root_seen_ms[root]
                self.learning.quiet(root)
                self.forget_run(root)


def _bucket(input_bytes: int) -> int:
    """MiB rounded up to a power of two; 0 below one."""
    mib = input_bytes // 2**20
    return 0 if mib <= 0 else 1 << (mib - 1).bit_length() if mib > 1 else 1
