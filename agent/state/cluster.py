"""What the governor knows: a state machine over the extension's deltas and the providers' observations. No I/O."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.model.plans import Bind
from agent.model.pools import Pool
from agent.model.records import Ended
from agent.model.snapshot import Group, PoolState, Run, Running, Usage
from agent.model.units import cost_micros
from agent.planner.feasible import gpus_taken
from agent.planner.room import share
from agent.scheduler import protocol as p
from agent.state import task_specs as specs
from agent.state.fleet import Fleet
from agent.state.groups import Groups, Judge, Kept, Task
from agent.state.run_graphs import RunGraphs
from agent.state.statistics import Statistics
from agent.state.tally import Tally
from agent.state.task_specs import Spec

#: a root run without a task for so long has ended, as far as can be seen from here
QUIET_MS = 60_000
#: keys whose placement is remembered, to say what a task takes in
PLACED_KEPT = 200_000
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


class ClusterState:
    """Ready and bound tasks by group, workers by pool, leases, and what was learned."""

    def __init__(self, pools: Iterable[Pool], judge: Judge, rules_facts: frozenset[str]) -> None:
        pools = tuple(pools)
        self.statistics, self.tally = Statistics(), Tally()
        self.fleet = Fleet(pools, self.statistics, self.tally)
        fallback = min((pool.startup_ms for pool in pools if pool.market == "on-demand"), default=0)
        self.graphs = RunGraphs(self.statistics, fallback)
        self.groups = Groups(judge, rules_facts, self.statistics, max((pool.memory_mib for pool in pools), default=0))
        #: runtimes that end are learned from; not where they are known beforehand
        self.learns_runtimes = True
        self.specs: list[Spec] = []
        self.ready: dict[str, dict[Any, Task]] = {}
        self.group_of: dict[Any, str] = {}
        self.bound: dict[Any, Bound] = {}
        #: what a checkpoint keeps of interrupted tasks
        self.kept: dict[Hashable, Kept] = {}
        #: bound tasks that were told to leave, where they can go on, and until when a slot is kept for them there, ms
        self.moving: dict[Any, tuple[str, int]] = {}
        #: key → its newest placement, of the newest keys
        self.placed: dict[Any, int] = {}
        #: key → preemptions, other losses
        self.losses: dict[Any, tuple[int, int]] = {}
        self.ended: list[Ended] = []
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
        self._dirty = True
        self._judged_hour = 0

    @property
    def dirty(self) -> bool:
        """Something happened since the last plan that may change it."""
        return self._dirty or self.fleet.dirty

    @dirty.setter
    def dirty(self, value: bool) -> None:
        self._dirty = self.fleet.dirty = value

    # ------------------------------------------------------------------ deltas
    def begin(self, snapshot: Mapping[str, Any], now_ms: int) -> None:
        """Start from the extension's full snapshot."""
        self.specs = [specs.read(number, says, now_ms) for number, says in enumerate(snapshot["specs"])]
        self.fleet.live.clear()
        self.ready.clear()
        self.group_of.clear()
        for worker in snapshot["workers"]:
            self.fleet.joined(worker, now_ms)
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
            self.fleet.joined(delta[1], now_ms)
        elif kind == p.LEFT:
            self._left(*delta[1:], now_ms=now_ms)
        elif kind == p.PAUSED:
            if (paused := self.fleet.live.get(delta[1])) is not None:
                paused.counts.paused = delta[2]
        elif kind == p.BUSY:
            if (busy := self.fleet.live.get(delta[1])) is not None:
                busy.runs_others(delta[2], delta[3], now_ms)
        elif kind == p.NOTICE:
            if (leaving := self.fleet.live.get(delta[1])) is not None:
                leaving.notice()
                self.leaving.append(delta[1])
                self.news.append({"notice": leaving.counts.name, "left_ms": delta[2], "why": delta[3]})
        elif kind == p.SAVED:
            if (bound := self.bound.get(delta[1])) is not None:
                bound.saved = delta[2:4]
        elif kind == p.GONE:
            self._unready(delta[1])
            self.losses.pop(delta[1], None)
        elif kind == p.LENT:
            if (bound := self.bound.get(delta[1])) is not None and (
                live := self.fleet.live.get(bound.address)
            ) is not None:
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
        self.graphs.again(key)
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
        live = self.fleet.live.get(bound.address)
        if live is not None:
            live.counts.bound.pop(key, None)
            live.counts.lent.discard(key)
            if not live.busy:
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
            self.graphs.end(key)
        if checkpoint and checkpoint[0] > bound.at_ms and result in _UNDONE:
            before = kept.done_ms if kept else 0
            self.checkpointed(key, before + checkpoint[0] - bound.at_ms, bound.pool, -(-checkpoint[1] // 2**20))
        stop = stop_ms or now_ms
        run = stop_ms - start_ms if start_ms else now_ms - bound.at_ms if result in (*_UNDONE, "failed") else 0
        part = self._share(bound)
        lease = live.lease if live is not None else self.fleet.lease_of.get(bound.address)
        ran_in = live.counts.pool if live is not None else bound.pool
        if result == "done" and start_ms and self.learns_runtimes:
            # what a checkpoint spared it belongs to its runtime
            self.statistics.record_runtime(
                spec.task_class, ran_in, stop, run + (kept.done_ms if kept else 0), spec.root_run
            )
            if spec.items > 1:
                self.statistics.record_item(spec.task_class.removesuffix(p.CHUNKS), run / spec.items)
            self.graphs.learned(spec)
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
                ran_in=ran_in if ran_in != bound.pool else "",
                spared_ms=kept.done_ms if kept and result == "done" else 0,
                items=spec.items,
                lineage=tuple((str(verb), str(kind), str(at)) for verb, kind, at in lineage),
            )
        )

    def _starved(self, spec: Spec, bound: Bound) -> None:
        """A task ran out of memory: its class is given more from now on."""
        mib = bound.load[1]
        if mib > self.statistics.starved_mib.get(spec.task_class, 0):
            self.starved(spec.task_class, mib)
            self.news.append({"starved": spec.task_class, "mib": mib})

    def starved(self, task_class: str, mib: int) -> None:
        """Tasks of a class ran out of so much memory; those that wait are told apart anew."""
        self.statistics.record_out_of_memory(task_class, mib)
        self._starved_anew = self.dirty = True

    def _was_preempted(self, bound: Bound) -> bool:
        live = self.fleet.live.get(bound.address)
        view = self.fleet.pools.get(bound.pool)
        return (live is not None and live.noticed) or (view is not None and view.pool.market == "spot")

    def _share(self, bound: Bound) -> float:
        group, state = self.groups.known.get(bound.group), self.fleet.state_of(bound.pool)
        return share(group, state) if group is not None and state is not None else 1.0

    # ------------------------------------------------------------------ workers
    def _left(self, address: str, why: str = "", *, now_ms: int) -> None:
        if address not in self.fleet.live:
            return
        for key, bound in list(self.bound.items()):
            if bound.address == address:
                self._ended(key, "lost", address, 0, 0, 0, now_ms=now_ms)
        self.fleet.gone(address, why, now_ms)

    def pool_states(self, now_ms: int) -> tuple[PoolState, ...]:
        """Every declared pool, and `default` when workers belong to none."""
        ends: dict[str, list[int]] = {}
        for bound in self.bound.values():
            ends.setdefault(bound.address, []).append(max(bound.at_ms + bound.expected_ms, now_ms))
        return self.fleet.states(now_ms, ends)

    # ------------------------------------------------------------------ groups
    def judge_again(self, judge: Judge, rules_facts: frozenset[str], now_ms: int) -> dict[str, frozenset[str]]:
        """Ask other rules about every waiting task. Groups that have another name now: new → old ones."""
        self.groups.judge_by(judge, rules_facts)
        return self._regroup(now_ms)

    def turn_hour(self, now_ms: int) -> dict[str, frozenset[str]]:
        """Ask the rules again when the hour that they read has turned, or needs have grown. As `judge_again`."""
        if self._starved_anew or self.groups.hour(now_ms) != self._judged_hour:
            self._starved_anew = False
            return self._regroup(now_ms)
        return {}

    def _regroup(self, now_ms: int) -> dict[str, frozenset[str]]:
        self._judged_hour = self.groups.hour(now_ms)
        # what was said of the old names is carried over by the caller
        waiting, words, groups = self.ready, dict(self.groups.words), dict(self.groups.known)
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
        self.groups.words.update({old: words[old] for old in gone if old in words})
        self.groups.known.update({old: groups[old] for old in gone})
        self.dirty = True
        return {new: frozenset(olds) for new, olds in moved.items()}

    def _group(self, task: Task, now_ms: int) -> str:
        spec, key = self.specs[task.spec], task.key
        tail_ms = self.graphs.tail_ms(key, spec)
        return self.groups.of(task, spec, self.losses.get(key, (0, 0)), self.kept.get(key), tail_ms, now_ms, self._used)

    def group(self, task: Task, now_ms: int) -> Group:
        """The group a task belongs to, apart from the tasks that wait."""
        return self.groups.known[self._group(task, now_ms)]

    def _used(self) -> Iterable[str]:
        return (*self.ready, *(bound.group for bound in self.bound.values()))

    def live_groups(self) -> tuple[Group, ...]:
        """Groups that have ready tasks, as they are now."""
        return tuple(self.groups.now(name, list(self.ready[name].values())) for name in sorted(self.ready))

    def shadow_groups(self, now_ms: int) -> dict[str, list[tuple[Task, str]]]:
        """Tasks of shadow mode by group, each with the worker Dask put it on; they are taken out."""
        out: dict[str, list[tuple[Task, str]]] = {}
        for task, address in self.shadow.values():
            out.setdefault(self._group(task, now_ms), []).append((task, address))
        self.shadow = {}
        return out

    # ------------------------------------------------------------------ graphs
    def submitted(self, tasks: Iterable[tuple[Hashable, int, Iterable[Hashable]]]) -> None:
        """Tasks that were submitted, ready or not: (key, spec, keys of its inputs), inputs first."""
        self.graphs.submitted((key, self.specs[number], parents) for key, number, parents in tasks)
        self.dirty = True

    def checkpointed(self, key: Hashable, done_ms: int, pool: str, mib: int) -> None:
        """A task that was interrupted goes on from a checkpoint."""
        self.kept[key] = Kept(done_ms, pool, mib)

    def runs(self, now_ms: int) -> tuple[Run, ...]:
        """Runs whose graph is known, in order of their names."""
        ends: dict[str, int] = {}
        here: dict[str, int] = {}
        for name, ready in self.ready.items():
            run = self.groups.known[name].root_run
            here[run] = here.get(run, 0) + len(ready)
        for bound in self.bound.values():
            run = self.specs[bound.task.spec].root_run
            here[run] = here.get(run, 0) + 1
            ends[run] = min(ends.get(run, 2**62), max(now_ms, bound.at_ms + bound.expected_ms))
        return self.graphs.runs(here, ends)

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
        out = [self._running(bound, now_ms, pool) for bound, pool in told if bound.group in self.groups.known]
        if look:
            came, self.fleet.came = self.fleet.came, False
            spot = any(x.pool.market == "spot" and x.retry_ms <= now_ms for x in self.fleet.pools.values())
            for key, bound in self.bound.items():
                ran = now_ms - bound.at_ms
                if ran >= max(bound.slow_ms, SLOW_MS, SLOW_TIMES * bound.expected_ms):
                    bound.slow_ms = 2 * ran
                elif spot and bound.saved is not None and ran < bound.expected_ms and (came or ran >= bound.back_ms):
                    view = self.fleet.pools.get(bound.pool)
                    if view is None or view.pool.market != "on-demand":
                        continue
                    bound.back_ms = ran + BACK_MS
                else:
                    continue
                if key not in self.moving and not self.shadow.get(key) and bound.group in self.groups.known:
                    out.append(self._running(bound, now_ms))
        return tuple(sorted(out, key=lambda task: task.placement))

    def _running(self, bound: Bound, now_ms: int, leaves_for: str = "") -> Running:
        """A running task as if it were decided now, from its last checkpoint."""
        kept, (saved_ms, _) = self.kept.get(bound.task.key), bound.saved or (0, 0)
        done = (kept.done_ms if kept else 0) + max(0, saved_ms - bound.at_ms)
        group = replace(self.groups.now(bound.group, [bound.task]), done_ms=done)
        every, live = group.needs.checkpoint_ms or 0, self.fleet.live.get(bound.address)
        return Running(
            placement=bound.placement, group=group, pool=bound.pool, ran_ms=now_ms - bound.at_ms,
            expected_ms=bound.expected_ms, leaves=bound.saved is not None,
            leaves_ms=max(0, max(saved_ms, bound.at_ms) + every - now_ms) if every else 0,
            beside=max(0, len(live.counts.bound) - 1) if live is not None else 0, leaves_for=leaves_for,
        )  # fmt: skip

    def told_to_leave(self, key: Any, pool: str, now_ms: int) -> None:
        """A task is to leave its worker at its next checkpoint, and go on in a pool: a slot is kept there for as long as that may take."""
        every = self.groups.known[self.bound[key].group].needs.checkpoint_ms
        self.moving[key] = (pool, now_ms + max(2 * (every or 0), KEPT_MS))

    # ------------------------------------------------------------------ a plan's effects
    def take(self, bind: Bind) -> list[Task]:
        """The group's first tasks, taken out of the ready ones."""
        tasks = list(self.ready[bind.group].values())[: bind.count]
        for task in tasks:
            self._unready(task.key)
        return tasks

    def load(self, group: Group, pool: str) -> tuple[int, int, int]:
        """What one task of the group takes on a worker of the pool: cpus, MiB, GPUs."""
        state = self.fleet.state_of(pool)
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
        live = self.fleet.live.get(bound.address)
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
                self.statistics.close_run(root)
                self.graphs.forget(root)


def _bucket(input_bytes: int) -> int:
    """MiB rounded up to a power of two; 0 below one."""
    mib = input_bytes // 2**20
    return 0 if mib <= 0 else 1 << (mib - 1).bit_length() if mib > 1 else 1
