"""What every peer shares: ready tasks by upward rank, free slots, launches for the rest, idle workers ended.

An autoscaler as people run it: a slot for each waiting task, less what is starting; an idle worker ends after its
pool's idle time, its paid minimum used up. A pool that has just refused is asked again when its pause is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.model.plans import Bind, Decision, Drain, Launch, Option, Plan, Wait
from agent.model.snapshot import Group, PoolState, Snapshot
from agent.planner.estimate import estimate, interrupted, statistics_of
from agent.planner.feasible import blocked
from agent.planner.room import Room, share

#: pools to try for a group, best first, and until when its tasks may stay with them (for the next look), ms
Choice = tuple[Sequence[str], int | None]


class PeerFleet:
    """A peer's plan being made."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot, self.now_ms = snapshot, snapshot.now_ms
        self.states = {state.pool.name: state for state in snapshot.pools}
        self.rooms = {name: Room.of(state) for name, state in self.states.items()}
        self.statistics = statistics_of(snapshot)
        self._coming = {name: len(state.starting) * state.pool.slots for name, state in self.states.items()}
        self._decisions: list[Decision] = []
        self._binds: list[Bind] = []
        self._waits: list[Wait] = []
        self._launch: dict[str, int] = {}
        self._look: list[int] = []

    # ------------------------------------------------------------------ what a rule may ask
    def by_price(self, market: str) -> list[str]:
        """Pools of a market, the cheapest worker first; those that do not refuse now before those that do."""
        found = [s for s in self.states.values() if s.pool.market == market]
        return [
            s.pool.name
            for s in sorted(found, key=lambda s: (s.retry_ms > self.now_ms, s.usd_micros_per_hour, s.pool.name))
        ]

    def run_ms(self, group: Group, pool: str) -> int:
        """What a task of the group still takes in a pool, at the deadline's quantile, ms."""
        guess = estimate(group, pool, self.statistics, self.snapshot.policy.deadline_sigmas)
        return max(1, guess.high_ms - group.done_ms)

    def startup_ms(self) -> int:
        """The shortest start-up of an on-demand worker, ms."""
        return min((s.startup_ms for s in self.states.values() if s.pool.market == "on-demand"), default=0)

    def latest_start_ms(self, group: Group) -> int | None:
        """When a task must be sent to a new on-demand worker, at the latest, ms."""
        pools = self.by_price("on-demand")
        if group.deadline_ms is None or not pools:
            return None
        run = min(self.run_ms(group, pool) for pool in pools)
        return group.deadline_ms - self.snapshot.policy.margin_ms - group.tail_ms - run - self.startup_ms()

    def at_risk_ms(self, group: Group) -> int:
        """Work that a loss may cost a task, ms."""
        longest = max(self.run_ms(group, pool) for pool in self.states)
        return min(longest, group.needs.checkpoint_ms or longest)

    # ------------------------------------------------------------------ the plan
    def plan(self, choose: Callable[[Group], Choice]) -> Plan:
        """Every group to the pools the rule chooses."""
        ranked = sorted(
            self.snapshot.groups, key=lambda g: (self.latest_start_ms(g) or 2**62, -g.tail_ms, g.since_ms, g.id)
        )
        for group in ranked:
            pools, until_ms = choose(group)
            self.place(group, [name for name in pools if blocked(group, self.states[name]) is None])
            if until_ms is not None and until_ms > self.now_ms:
                self._look.append(until_ms)
        return Plan(
            decisions=tuple(self._decisions),
            binds=tuple(self._binds),
            launches=tuple(Launch(pool=name, count=n, why="tasks wait") for name, n in sorted(self._launch.items())),
            drains=tuple(self._drains()),
            waits=tuple(self._waits),
            replan_at_ms=min(self._look, default=None),
        )

    def place(self, group: Group, pools: Sequence[str]) -> None:
        """Free slots in the order of the pools, then slots that are starting, then launches."""
        left = group.ready
        for name in pools:
            if count := self.rooms[name].tasks(group, 0, left):
                self.rooms[name].take(group, 0, count)
                self._binds.append(
                    Bind(group=group.id, pool=name, count=count, decision=self._said(group, name), ahead=0)
                )
                left -= count
        waiting = left
        for name in pools:
            each = max(1, round(1 / share(group, self.states[name])))
            taken = min(left, self._coming[name])
            self._coming[name] -= taken
            left -= taken
            room = self.rooms[name]
            launch = min(-(-left // each), room.may_launch(self.now_ms)) if left else 0
            if launch:
                room.launching += launch
                self._launch[name] = self._launch.get(name, 0) + launch
                self._coming[name] += launch * each - min(left, launch * each)
                left = max(0, left - launch * each)
        if waiting:
            self._waits.append(
                Wait(
                    group=group.id, count=waiting, reason="capacity", why="no slot is free", release="a free slot",
                    decision=self._said(group, pools[0] if pools else ""),
                )
            )  # fmt: skip

    def _drains(self) -> list[Drain]:
        out = []
        for state in self.snapshot.pools:
            if any(b.pool == state.pool.name for b in self._binds) or self._launch.get(state.pool.name):
                continue
            for worker in state.workers:
                idle = worker.idle_since_ms
                paid = worker.launched_ms + state.pool.min_billing_ms
                if idle is not None and not worker.only_copy and self.now_ms >= max(idle + state.pool.idle_ms, paid):
                    out.append(Drain(pool=state.pool.name, worker=worker.name, why="idle"))
        return out

    def _said(self, group: Group, pool: str) -> int:
        options = (Option(pool=pool, kind=self.states[pool].pool.shown_kind),) if pool else ()
        self._decisions.append(
            Decision(
                group=group.id, task_class=group.task_class, name=group.name, root_run=group.root_run,
                flow_run=group.flow_run, verb="bind", pool=pool or None, reason="the rule of the peer", options=options,
            )
        )  # fmt: skip
        return len(self._decisions) - 1


def expected_stretch(state: PoolState, run_ms: int, checkpoint_ms: int | None) -> float:
    """How many times longer a task takes there in all, losses counted."""
    return interrupted(run_ms, state.hazard_per_hour, checkpoint_ms)
