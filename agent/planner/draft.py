"""A plan being made: what is left of the pools and budgets, and what was decided so far."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.model.plans import (
    Bind,
    Decision,
    Drain,
    Estimate,
    HoldReason,
    Launch,
    Move,
    Option,
    Plan,
    Refuse,
    RuleWord,
    Verb,
    Wait,
    Withdraw,
)
from agent.model.snapshot import Group, Snapshot
from agent.planner.estimate import estimate, statistics_of
from agent.planner.explain import in_short, past
from agent.planner.feasible import blocked, emulates_for_nothing
from agent.planner.rank import option, order, tasks_ahead
from agent.planner.room import Room, slots_of
from agent.planner.slack import Market, Urgency, urgency

if TYPE_CHECKING:
    from agent.planner.long_job.routing import LongJob


class Draft:
    """A plan being made."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.rooms = {
            state.pool.name: Room.of(state, snapshot.now_ms)
            for state in sorted(snapshot.pools, key=lambda s: s.pool.name)
        }
        self.statistics = statistics_of(snapshot)
        self.budgets = {budget.name: budget for budget in snapshot.budgets}
        self.left = {budget.name: budget.left_usd_micros for budget in snapshot.budgets}
        self.guesses: dict[tuple[str, str], Estimate] = {}
        self.decisions: list[Decision] = []
        self.binds: list[Bind] = []
        self.drains: list[Drain] = []
        self.withdraws: list[Withdraw] = []
        self.waits: list[Wait] = []
        self.refusals: list[Refuse] = []
        self.moves: list[Move] = []
        self.launch_why: dict[str, str] = {}
        self.replan_at_ms: int | None = None
        self.urgencies: dict[str, Urgency] = {}
        self.emulated = [room.state.pool for room in self.rooms.values() if room.state.pool.emulated]
        self.runs = {run.root_run: run for run in snapshot.runs}
        self.market = Market.of([room.state for room in self.rooms.values()], snapshot.now_ms)

    def urgency(self, group: Group) -> Urgency:
        """What the deadline leaves the group, by the on-demand pool that does it soonest."""
        policy, now = self.snapshot.policy, self.snapshot.now_ms
        if group.deadline_ms is None:
            return Urgency(slack_ms=None, hour_usd_micros=policy.delay_usd_micros_per_hour)
        safe = [
            self.guess(group, name)
            for name, room in self.rooms.items()
            if room.state.pool.market == "on-demand"
            and blocked(group, room.state) is None
            and not emulates_for_nothing(group, room.state.pool)
        ]
        market = self.market if safe else replace(self.market, both=False)
        best = min(safe, key=lambda guess: guess.high_ms, default=None) or self.guess(group, "")
        high, mean = max(1, best.high_ms - group.done_ms), max(1, best.mean_ms - group.done_ms)
        return urgency(group, self.runs.get(group.root_run), high, mean, market, policy, now)

    def ranked(self, group: Group, remaining: int, urgent: Urgency) -> list[Option]:
        policy, now = self.snapshot.policy, self.snapshot.now_ms
        prefers = [verdict for verdict in group.verdicts if verdict.verb == "prefer"]
        found = [
            option(group, room, self.guess(group, name), policy, now, remaining, self.market, urgent, prefers)
            for name, room in self.rooms.items()
        ]
        if self.emulated:
            found = self._without_emulated(group, found)
        found.sort(key=order)
        return found

    def _without_emulated(self, group: Group, options: list[Option]) -> list[Option]:
        """An emulated GPU is never the way to be faster: where another pool will do, it will not."""
        needless = {pool.name for pool in self.emulated if emulates_for_nothing(group, pool)}
        if not needless or all(entry.why_not or entry.pool in needless for entry in options):
            return options
        why = "its GPU is emulated, so nothing is done sooner there"
        return [
            Option(pool=entry.pool, kind=entry.kind, why_not=why, block="emulated")
            if entry.pool in needless and not entry.why_not
            else entry
            for entry in options
        ]

    def guess(self, group: Group, pool: str) -> Estimate:
        """The estimate of a class in a pool; pools without history of their own share one."""
        key = (group.id, pool if (group.task_class, pool) in self.statistics else "")
        if key not in self.guesses:
            self.guesses[key] = estimate(group, key[1], self.statistics, self.snapshot.policy.deadline_sigmas)
        return self.guesses[key]

    def long_job(self, group: Group, ranked: list[Option]) -> LongJob | None:
        """One of its tasks as a long job; None where it is none."""
        snapshot = self.snapshot
        if not snapshot.markets or not group.may_be_long:
            return None
        # only here, as it needs numpy: commands that replay a ledger seldom come here
        from agent.planner.long_job.routing import long_job_of

        job = long_job_of(group, snapshot.markets, self.rooms, ranked, snapshot.policy, snapshot.now_ms)
        if job is not None:
            # what is believed changes by itself
            self.look(job.market.ends_ms - snapshot.now_ms)
        return job

    def look(self, left_ms: int) -> None:
        """The plan changes by itself when this time is over."""
        if left_ms >= 0:
            at = self.snapshot.now_ms + left_ms + 1
            self.replan_at_ms = at if self.replan_at_ms is None else min(self.replan_at_ms, at)

    def hold(self, group: Group, ranked: list[Option], count: int, reason: HoldReason, why: str, release: str) -> int:
        """Hold so many of its tasks: the sentence says why the first of the pools, and why not now."""
        text = f"{in_short(group, ranked, self.urgencies[group.id].slack_ms)}; {why}"
        decision = self.decide(group, ranked, "wait", text, release)
        self.waits.append(Wait(group=group.id, count=count, reason=reason, why=why, release=release, decision=decision))
        return 0

    def bind(self, group: Group, ranked: list[Option], count: int, reserve: int, why: str = "") -> None:
        """Send so many of its tasks to the first of the pools.

        Args:
            reserve: micro-dollars of each.
            why: in place of the usual sentence.
        """
        best = ranked[0]
        room, guess = self.rooms[best.pool], best.estimate
        ahead = tasks_ahead(group, room, guess.median_ms, guess.n, self.snapshot.policy) if guess else 0
        run_ms = max(1, guess.mean_ms - group.done_ms) if guess else 0
        room.take(group, ahead, count, run_ms)
        if group.deadline_ms is not None and guess:
            room.claim(count, run_ms, slots_of(group, room)[1], 0)
        decision = self.decide(group, ranked, "bind", why or in_short(group, ranked, self.urgencies[group.id].slack_ms))
        self.binds.append(
            Bind(
                group=group.id,
                pool=best.pool,
                count=count,
                decision=decision,
                ahead=ahead,
                reserve_usd_micros=reserve,
                budget=group.needs.budget,
            )
        )

    def decide(
        self, group: Group, ranked: list[Option], verb: Verb, reason: str, release: str = "", asked_by: str = ""
    ) -> int:
        best = ranked[0] if ranked and not ranked[0].why_not else None
        urgent, before = self.urgencies[group.id], past(group)
        self.decisions.append(
            Decision(
                group=group.id,
                task_class=group.task_class,
                name=group.name,
                root_run=group.root_run,
                flow_run=group.flow_run,
                verb=verb,
                pool=best.pool if best and verb != "refuse" else None,
                reason=f"{reason}; {before}" if before else reason,
                release=release,
                options=tuple(ranked),
                verdicts=tuple(RuleWord(rule=v.rule, verb=v.verb, reason=v.reason) for v in group.verdicts),
                asked_by=asked_by,
                approved_by=group.approved_by,
                overridden=group.override is not None,
                slack_ms=urgent.slack_ms,
                minute_usd_micros=None if urgent.slack_ms is None else urgent.hour_usd_micros // 60,
            )
        )
        return len(self.decisions) - 1

    def plan(self) -> Plan:
        """As it is now."""
        return Plan(
            decisions=tuple(self.decisions),
            binds=tuple(self.binds),
            drains=tuple(self.drains),
            withdraws=tuple(self.withdraws),
            launches=tuple(
                Launch(pool=name, count=room.launching, why=self.launch_why[name])
                for name, room in self.rooms.items()
                if room.launching
            ),
            waits=tuple(self.waits),
            refusals=tuple(self.refusals),
            moves=tuple(self.moves),
            replan_at_ms=self.replan_at_ms,
        )
