"""What the governor knows: tasks, workers, leases, groups and statistics, as events left them. No I/O."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from agent.model.events import TaskEnded
from agent.model.pools import Pool
from agent.model.records import Ended, Entry
from agent.model.snapshot import Group, Running
from agent.state.approvals import Approvals
from agent.state.fleet import Fleet
from agent.state.groups import Judge, PlacementGroups
from agent.state.movable import Movable
from agent.state.run_graphs import RunGraphs
from agent.state.statistics import Statistics
from agent.state.tally import Tally
from agent.state.task_specs import TaskSpec
from agent.state.tasks import BoundTask, ReadyTask, SavedWork, TaskPast
from agent.state.waiting import Waiting

#: a root run without a task for so long has ended, as far as can be seen from here
QUIET_MS = 60_000
#: keys whose placement is remembered, to say what a task takes in
PLACED_KEPT = 200_000


class ClusterState:
    """Ready and bound tasks, workers, leases, and what was learned. `events.apply` changes it."""

    def __init__(self, pools: Iterable[Pool], judge: Judge, rules_facts: frozenset[str]) -> None:
        pools = tuple(pools)
        self.statistics, self.tally = Statistics(), Tally()
        self.fleet = Fleet(pools, self.statistics, self.tally)
        fallback = min((pool.startup_ms for pool in pools if pool.market == "on-demand"), default=0)
        self.graphs = RunGraphs(self.statistics, fallback)
        largest_mib = max((pool.memory_mib for pool in pools), default=0)
        self.groups = PlacementGroups(judge, rules_facts, self.statistics, largest_mib)
        self.approvals = Approvals()
        #: runtimes that end are learned from; not where they are known beforehand
        self.learns_runtimes = True
        self.specs: list[TaskSpec] = []
        self.waiting = Waiting()
        self.bound: dict[Any, BoundTask] = {}
        #: what a checkpoint keeps of interrupted tasks
        self.saved: dict[Hashable, SavedWork] = {}
        self.movable = Movable(self.bound, self.saved, self.fleet)
        #: key → its newest placement, of the newest keys
        self.placed: dict[Any, int] = {}
        #: key → preemptions, other losses
        self.losses: dict[Any, tuple[int, int]] = {}
        #: outcomes that are not on record yet
        self.ended: list[Ended] = []
        #: tasks that were not held, by their own wish
        self.passed_through = 0
        self.shadow: dict[Any, tuple[ReadyTask, str]] = {}
        #: ends of such tasks that were heard of before their plan was on record
        self.shadow_ended: dict[Any, TaskEnded] = {}
        #: something happened since the last plan that may change it
        self.dirty = True
        #: root run → when a task of it ended last
        self.root_seen_ms: dict[str, int] = {}
        self._regroup_due = False
        self._judged_hour = 0

    # ------------------------------------------------------------------ memory, checkpoints, graphs
    def out_of_memory(self, task_class: str, mib: int) -> None:
        """Tasks of a class ran out of so much memory; those that wait are told apart anew."""
        self.statistics.record_out_of_memory(task_class, mib)
        self._regroup_due = self.dirty = True

    def checkpointed(self, key: Hashable, done_ms: int, pool: str, mib: int) -> None:
        """A task that was interrupted goes on from a checkpoint."""
        self.saved[key] = SavedWork(done_ms, pool, mib)

    def submitted(self, tasks: Iterable[tuple[Hashable, int, Iterable[Hashable]]]) -> None:
        """Tasks that were submitted, ready or not: (key, spec, keys of its inputs), inputs first."""
        self.graphs.submitted((key, self.specs[number], parents) for key, number, parents in tasks)
        self.dirty = True

    def forget_quiet(self, now_ms: int) -> None:
        """Learn the tails of root runs that have ended."""
        for root, seen in list(self.root_seen_ms.items()):
            if now_ms - seen > QUIET_MS:
                del self.root_seen_ms[root]
                self.statistics.close_run(root)
                self.graphs.forget(root)

    # ------------------------------------------------------------------ groups
    def judge_again(self, judge: Judge, rules_facts: frozenset[str], now_ms: int) -> Mapping[str, frozenset[str]]:
        """Ask other rules about every waiting task. Groups that have another name now: new → old ones."""
        self.groups.judge_by(judge, rules_facts)
        return self._regroup(now_ms)

    def turn_hour(self, now_ms: int) -> Mapping[str, frozenset[str]]:
        """Ask the rules again when the hour that they read has turned, or needs have grown. As `judge_again`."""
        if self._regroup_due or self.groups.hour(now_ms) != self._judged_hour:
            return self._regroup(now_ms)
        return {}

    def _regroup(self, now_ms: int) -> Mapping[str, frozenset[str]]:
        self._regroup_due, self._judged_hour = False, self.groups.hour(now_ms)
        # what was said of the old names is carried over by the caller
        answers, known = dict(self.groups.answers), dict(self.groups.known)
        moved = self.waiting.regroup(lambda task: self._group(task, now_ms))
        gone = {old for olds in moved.values() for old in olds}
        self.groups.answers.update({old: answers[old] for old in gone if old in answers})
        self.groups.known.update({old: known[old] for old in gone})
        self.approvals.rename(moved)
        self.dirty = True
        return moved

    def wait(self, task: ReadyTask, now_ms: int) -> None:
        """A task is ready, or ready again."""
        self.waiting.put(task, self._group(task, now_ms))

    def _group(self, task: ReadyTask, now_ms: int) -> str:
        spec, key = self.specs[task.spec], task.key
        past = TaskPast(*self.losses.get(key, (0, 0)), self.saved.get(key), self.graphs.tail_ms(key, spec))
        return self.groups.of(task, spec, past, now_ms, self._used)

    def _used(self) -> Iterator[str]:
        yield from self.waiting.by_group
        yield from (bound.group for bound in self.bound.values())

    def group(self, task: ReadyTask, now_ms: int) -> Group:
        """The group a task belongs to, apart from the tasks that wait."""
        return self.groups.known[self._group(task, now_ms)]

    def live_groups(self) -> tuple[Group, ...]:
        """Groups that have ready tasks, as they are now."""
        return tuple(
            self.groups.now(name, list(tasks.values())) for name, tasks in sorted(self.waiting.by_group.items())
        )

    def shadow_groups(self, now_ms: int) -> dict[str, list[tuple[ReadyTask, str]]]:
        """Tasks of shadow mode by group, each with the worker Dask put it on; they are taken out."""
        out: dict[str, list[tuple[ReadyTask, str]]] = {}
        for task, address in self.shadow.values():
            out.setdefault(self._group(task, now_ms), []).append((task, address))
        self.shadow = {}
        return out

    # ------------------------------------------------------------------ a plan's effects
    def sent(self, bound: BoundTask) -> None:
        """The extension bound a task to a worker."""
        key = bound.task.key
        self.waiting.drop(key)
        self.bound[key] = bound
        self.tally.placements[bound.pool] += 1
        if key in self.losses:
            self.tally.moves[bound.pool] += 1
        self.placed[key] = bound.placement
        if len(self.placed) > PLACED_KEPT:
            del self.placed[next(iter(self.placed))]
        live = self.fleet.live.get(bound.address)
        if live is not None:
            live.counts.bound[key] = bound.load
            live.idle_since_ms = None

    def told_to_leave(self, key: Any, pool: str, now_ms: int) -> None:
        """A task is to leave its worker at its next checkpoint, and go on in a pool."""
        every = self.groups.known[self.bound[key].group].needs.checkpoint_ms
        self.movable.told_to_leave(key, pool, every or 0, now_ms)

    def running(self, now_ms: int, look: bool = True) -> tuple[Running, ...]:
        """Running tasks that may be worth moving. See `Movable.running`."""
        return self.movable.running(now_ms, look, self._group_of_bound)

    def _group_of_bound(self, bound: BoundTask) -> Group | None:
        if bound.group not in self.groups.known or self.shadow.get(bound.task.key):
            return None
        return self.groups.now(bound.group, [bound.task])

    # ------------------------------------------------------------------ on record
    def recorded(self, entry: Entry) -> None:
        """What an entry says is on record now."""
        placements = {outcome.placement for outcome in entry.outcomes}
        self.ended = [outcome for outcome in self.ended if outcome.placement not in placements]
        self.fleet.leases.recorded(entry.leases)

    def faults(self) -> list[str]:
        """What does not agree with itself: tests ask after each event."""
        out = self.waiting.faults()
        out += [f"{key!r} waits and is bound" for key in self.bound if key in self.waiting.group_of]
        out += [f"{key!r} is to leave and is not bound" for key in self.movable.leaving if key not in self.bound]
        for address, live in self.fleet.live.items():
            here = {key for key, bound in self.bound.items() if bound.address == address}
            if here != set(live.counts.bound):
                out.append(f"{address} counts {sorted(map(str, live.counts.bound))} and has {sorted(map(str, here))}")
            if not live.busy and live.idle_since_ms is None:
                out.append(f"{address} has nothing and is not idle")
        return out
