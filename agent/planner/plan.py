"""`plan(snapshot)`: what every waiting group does now, and which workers are launched and ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from agent.model.pools import DEFAULT
from agent.model.snapshot import Budget, Group, PoolState, Running, Snapshot
from agent.model.units import cost_micros, show_ms, show_usd
from agent.planner.estimate import estimate, statistics_of
from agent.planner.explain import in_short, nearest, past
from agent.planner.feasible import PHYSICAL, blocked
from agent.planner.moving import back_to_spot, too_slow
from agent.planner.rank import option, order, slots_of, tasks_ahead
from agent.planner.room import Room, share
from agent.planner.slack import Market, Urgency, urgency
from agent.planner.turns import Turns, rank

#: raised whenever the same snapshot would give another plan
VERSION = "8"
#: turns in which free slots are given to teams and runs that wait side by side
TURNS = 16


def plan(snapshot: Snapshot) -> Plan:
    """The plan for a snapshot: the same snapshot gives the same plan, whatever the order of its pools and groups.

    Groups are taken by priority class, then by Dask's own priority, then by slack, then by age; teams and runs that wait side by side take turns. Each group's tasks go, batch by batch, to the pool that
    is best for them at that moment; a pool without room competes with the wait it means, so a cheap full pool wins
    over a dear empty one until the queue gets too long.
    """
    draft = _Draft(snapshot)
    urgent = draft.urgencies = {group.id: draft.urgency(group) for group in snapshot.groups}

    def ranked(group: Group) -> int:
        return rank(group, snapshot.policy, snapshot.now_ms)

    waiting = sorted(
        snapshot.groups, key=lambda g: (ranked(g), -g.dask_priority, _slack(urgent[g.id]), g.since_ms, g.id)
    )
    if len({(group.team, group.root_run) for group in waiting}) > 1:
        draft.in_turns(Turns(waiting, snapshot.usage, snapshot.policy, ranked))
    else:
        for group in waiting:
            draft.place(group, group.ready)
    draft.move()
    draft.fleet()
    draft.wanted()
    return Plan(
        decisions=tuple(draft.decisions),
        binds=tuple(draft.binds),
        drains=tuple(draft.drains),
        withdraws=tuple(draft.withdraws),
        launches=tuple(
            Launch(pool=name, count=room.launching, why=draft.launch_why[name])
            for name, room in draft.rooms.items()
            if room.launching
        ),
        waits=tuple(draft.waits),
        refusals=tuple(draft.refusals),
        moves=tuple(draft.moves),
        look_ms=draft.look_ms,
    )


def ranked_alone(group: Group, snapshot: Snapshot) -> list[Option]:
    """Every pool for a group as if it were the only one, best first, the infeasible last."""
    draft = _Draft(snapshot)
    return draft.ranked(group, max(1, group.ready), draft.urgency(group))


class _Draft:
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
        self.look_ms: int | None = None
        self.urgencies: dict[str, Urgency] = {}
        self.runs = {run.root_run: run for run in snapshot.runs}
        self.market = Market.of([room.state for room in self.rooms.values()], snapshot.now_ms)

    # ------------------------------------------------------------------ many groups
    def in_turns(self, turns: Turns) -> None:
        """Bind a few tasks at a time, of whoever has the least."""
        free = sum(worker.slots for room in self.rooms.values() for worker in room.free)
        a_turn = max(1, free // TURNS)
        left: dict[str, int] = {}
        while (group := turns.next()) is not None:
            before = left.get(group.id, group.ready)
            after = left[group.id] = self.place(group, before, a_turn)
            turns.took(group, before - after)
            if not after:
                turns.through(group)

    # ------------------------------------------------------------------ one group
    def place(self, group: Group, remaining: int, most: int | None = None) -> int:
        """Bind, hold, ask for or refuse the group's tasks; or bind at most so many, and say how many are left for another turn."""
        urgent = self.urgencies[group.id]
        ranked = self.ranked(group, remaining, urgent)
        if not ranked or ranked[0].why_not:
            return self._refuse(group, ranked, remaining)
        if group.rejected_by is not None:
            return self._never(group, ranked, f"rejected by {group.rejected_by}", rejected=True)
        if group.losses > self.snapshot.policy.max_losses:
            why = f"{group.losses} workers died under it without notice; it may be what kills them (ORC_MAX_LOSSES)"
            return self._never(group, ranked, why)
        rule, ask = self._asks(group, ranked[0], remaining)
        if rule:
            release = f"orc approve {group.id[:12]} (or orc reject)"
            decision = self._decide(group, ranked, "ask", ask, release, asked_by=rule)
            self.waits.append(
                Wait(group=group.id, count=remaining, reason="approval", why=ask, release=release, decision=decision)
            )
            return 0
        while remaining:
            best = ranked[0]
            if not best.room:
                count = best.takes if 0 < best.takes < remaining and not best.late_ms else remaining
                self._wait(group, ranked, count, urgent)
                remaining -= count
                ranked = self.ranked(group, remaining, urgent) if remaining else ranked
                continue
            count, reserve = min(best.room, remaining, most or remaining), 0
            if group.needs.budget is not None:
                count, reserve, short = self._reserve(group, best, count)
                if short:
                    return self._hold(
                        group,
                        ranked,
                        remaining,
                        "budget",
                        short,
                        "a reservation that is settled, or a larger budget",
                    )
            self._bind(group, ranked, count, reserve)
            remaining -= count
            if most is not None:
                return remaining
            ranked = self.ranked(group, remaining, urgent) if remaining else ranked
        return 0

    def urgency(self, group: Group) -> Urgency:
        """What the deadline leaves the group, by the on-demand pool that does it soonest."""
        policy, now = self.snapshot.policy, self.snapshot.now_ms
        if group.deadline_ms is None:
            return Urgency(slack_ms=None, hour_usd_micros=policy.delay_usd_micros_per_hour)
        safe = [
            self._guess(group, name)
            for name, room in self.rooms.items()
            if room.state.pool.market == "on-demand" and blocked(group, room.state) is None
        ]
        market = self.market if safe else replace(self.market, both=False)
        best = min(safe, key=lambda guess: guess.high_ms, default=None) or self._guess(group, "")
        high, mean = max(1, best.high_ms - group.done_ms), max(1, best.mean_ms - group.done_ms)
        return urgency(group, self.runs.get(group.root_run), high, mean, market, policy, now)

    def ranked(self, group: Group, remaining: int, urgent: Urgency) -> list[Option]:
        policy, now = self.snapshot.policy, self.snapshot.now_ms
        prefers = [verdict for verdict in group.verdicts if verdict.verb == "prefer"]
        found = [
            option(group, room, self._guess(group, name), policy, now, remaining, self.market, urgent, prefers)
            for name, room in self.rooms.items()
        ]
        found.sort(key=order)
        return found

    def _guess(self, group: Group, pool: str) -> Estimate:
        """The estimate of a class in a pool; pools without history of their own share one."""
        key = (group.id, pool if (group.task_class, pool) in self.statistics else "")
        if key not in self.guesses:
            self.guesses[key] = estimate(group, key[1], self.statistics, self.snapshot.policy.deadline_sigmas)
        return self.guesses[key]

    def _asks(self, group: Group, best: Option, remaining: int) -> tuple[str, str]:
        """The rule that asks a person about these tasks in the pool, and what it asks; ("", "")."""
        pool, usd = self.rooms[best.pool].state.pool, best.usd_micros * remaining
        for verdict in group.verdicts:
            if verdict.verb != "escalate" or not verdict.selects(pool):
                continue
            if verdict.above_usd_micros is not None and usd <= verdict.above_usd_micros:
                continue
            covered = group.approved_usd_micros is None or usd <= group.approved_usd_micros
            if verdict.rule in group.approved and best.pool in group.approved_pools and covered:
                continue
            about = f"{remaining} tasks on {best.pool}, about {show_usd(usd)}"
            return verdict.rule, f"rule {verdict.rule} asks a person: {verdict.reason} ({about})"
        return "", ""

    def _reserve(self, group: Group, best: Option, count: int) -> tuple[int, int, str]:
        """Tasks the budget covers, the reservation of each, and why none, if none."""
        name = group.needs.budget or ""
        budget: Budget | None = self.budgets.get(name)
        if budget is None:
            return 0, 0, f"budget {name} is not declared in pools.yaml"
        if budget.closed:
            return 0, 0, f"nothing can be reserved from budget {name} while the ledger's database is away"
        longest = group.needs.max_runtime_ms or budget.max_runtime_ms
        if longest is None:
            return (
                0,
                0,
                f"budget {name} needs a max_runtime to reserve for: say it in @needs or as the budget's default",
            )
        state, now = self.rooms[best.pool].state, self.snapshot.now_ms
        price = max(state.usd_micros_per_hour, state.pool.price_between(now, now + longest))
        each = cost_micros(price, (longest + state.startup_ms) * share(group, state)) + 1
        count = min(count, max(0, self.left[name]) // each)
        if not count:
            used = f"{show_usd(budget.spent_usd_micros)} spent, {show_usd(budget.limit_usd_micros - budget.spent_usd_micros - self.left[name])} reserved"
            return (
                0,
                0,
                f"budget {name} of {show_usd(budget.limit_usd_micros)} has {show_usd(max(0, self.left[name]))} left ({used}); a task reserves {show_usd(each)}",
            )
        self.left[name] -= count * each
        return count, each, ""

    def _bind(self, group: Group, ranked: list[Option], count: int, reserve: int) -> None:
        best = ranked[0]
        room, guess = self.rooms[best.pool], best.estimate
        ahead = tasks_ahead(group, room, guess.median_ms, guess.n, self.snapshot.policy) if guess else 0
        run_ms = max(1, guess.mean_ms - group.done_ms) if guess else 0
        room.take(group, ahead, count, run_ms)
        if group.deadline_ms is not None and guess:
            room.claim(count, run_ms, slots_of(group, room)[1], 0)
        decision = self._decide(group, ranked, "bind", in_short(group, ranked, self.urgencies[group.id].slack_ms))
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

    def _wait(self, group: Group, ranked: list[Option], remaining: int, urgent: Urgency) -> None:
        best = ranked[0]
        room, mean = self.rooms[best.pool], max(0, best.estimate.mean_ms - group.done_ms) if best.estimate else 0
        if urgent.slack_ms is not None and best.late_ms == 0:
            self._look(
                urgent.slack_ms - (urgent.at_risk_ms + self.market.startup_ms if best.waits_for == "spot" else 0)
            )
        if best.launch:
            room.launching += best.launch
            self.launch_why.setdefault(best.pool, f"{remaining} tasks of {group.name} wait")
        if group.deadline_ms is not None:
            room.claim(remaining, max(1, mean), slots_of(group, room)[1], best.launch)
        room.claimed += remaining
        room.claimed_ms += remaining * mean
        state, now = room.state, self.snapshot.now_ms
        if state.fault and not (room.free or state.starting):
            why, release = (
                f"launches in {best.pool} fail: {state.fault}",
                f"a launch in {best.pool}; next attempt in {show_ms(max(0, state.retry_ms - now))}",
            )
        elif best.waits_for == "capacity":
            why, release = (
                f"all {len(room.free)} workers of {best.pool} are busy",
                f"a slot of {best.pool}, expected in {show_ms(best.wait_ms)}",
            )
        elif best.waits_for == "spot":
            since = show_ms(now - state.refused_since_ms) if state.refused_since_ms is not None else "now"
            why, release = (
                f"{best.pool} has no capacity (refused for {since})",
                f"a launch in {best.pool}; next attempt in {show_ms(max(0, state.retry_ms - now))}",
            )
        else:
            why, release = (
                f"a worker of {best.pool} is starting",
                f"a worker of {best.pool}, expected in {show_ms(best.wait_ms)}",
            )
        self._hold(group, ranked, remaining, best.waits_for or "capacity", why, release)

    def _look(self, left_ms: int) -> None:
        """The plan changes by itself when this time is over."""
        if left_ms >= 0:
            at = self.snapshot.now_ms + left_ms + 1
            self.look_ms = at if self.look_ms is None else min(self.look_ms, at)

    def _hold(self, group: Group, ranked: list[Option], count: int, reason: HoldReason, why: str, release: str) -> int:
        text = f"{in_short(group, ranked, self.urgencies[group.id].slack_ms)}; {why}"
        decision = self._decide(group, ranked, "wait", text, release)
        self.waits.append(Wait(group=group.id, count=count, reason=reason, why=why, release=release, decision=decision))
        return 0

    def _refuse(self, group: Group, ranked: list[Option], remaining: int) -> int:
        """No pool is feasible now: refuse what never can be, hold what a launch or a person may still change."""
        possible = [room.state for room in self.rooms.values() if not any(test(group, room.state) for test in PHYSICAL)]
        why = nearest(group, [room.state for room in self.rooms.values()])
        if self.rooms and possible and all(s.pool.name == DEFAULT or _only_lacks_workers(group, s) for s in possible):
            return self._hold(
                group, ranked, remaining, "capacity", f"no pool has workers: {why}", "a worker that joins"
            )
        decision = self._decide(group, ranked, "refuse", why)
        self.refusals.append(Refuse(group=group.id, why=why, decision=decision))
        return 0

    def _never(self, group: Group, ranked: list[Option], why: str, rejected: bool = False) -> int:
        decision = self._decide(group, ranked, "refuse", why)
        self.refusals.append(Refuse(group=group.id, why=why, decision=decision, rejected=rejected))
        return 0

    def _decide(
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

    # ------------------------------------------------------------------ what runs
    def move(self) -> None:
        """Move running tasks by cost: slow ones to where they are soon done, others from on demand back to spot."""
        for task in self.snapshot.running:
            if task.leaves_for:
                if task.leaves_for in self.rooms:
                    self.rooms[task.leaves_for].claimed += 1
                continue
            urgent = self.urgencies[task.group.id] = self.urgency(task.group)
            ranked = self.ranked(task.group, 1, urgent)
            if task.ran_ms < task.expected_ms:
                self._back(task, ranked, urgent)
                continue
            mean = self._guess(task.group, task.pool).mean_ms
            verdict = too_slow(task, self.rooms, mean, ranked[0] if ranked else None, urgent)
            decision = self._decide(task.group, ranked, "move" if verdict.moves else "leave", verdict.why)
            if verdict.moves:
                self._leave(task, ranked[0].pool, verdict.why, decision)

    def _leave(self, task: Running, pool: str, why: str, decision: int) -> None:
        self.moves.append(Move(placement=task.placement, pool=pool, why=why, decision=decision))

    def _back(self, task: Running, ranked: list[Option], urgent: Urgency) -> None:
        """Back to spot: a worker is launched for it first, and it leaves when that is there."""
        found = back_to_spot(task, self.rooms, ranked, urgent)
        if found is None:
            return
        spot, why = found
        room, group = self.rooms[spot.pool], task.group
        # it does not leave to wait for a person or for money
        if self._asks(group, spot, 1)[0] or (group.needs.budget is not None and self._reserve(group, spot, 1)[2]):
            return
        run_ms = max(1, spot.run_ms)
        if spot.room:
            room.take(group, 0, 1, run_ms)
            decision = self._decide(group, [spot, *(o for o in ranked if o is not spot)], "move", why)
            self._leave(task, spot.pool, why, decision)
        elif spot.launch:
            room.launching += spot.launch
            self.launch_why.setdefault(spot.pool, f"{group.name} can go on there ({why})")
        # the slot is its own: no idle worker is ended, nor two tasks sent for one
        room.claimed += 1
        room.claim(1, run_ms, slots_of(group, room)[1], spot.launch)

    # ------------------------------------------------------------------ the fleet
    def fleet(self) -> None:
        """End workers that have been idle too long, keep each pool's least number, withdraw from those that are going."""
        now, taken = self.snapshot.now_ms, {bind.pool for bind in self.binds}
        coming = _Coming.of(self.snapshot)
        spare = self._workers() - self.snapshot.wanted_workers
        for name, room in self.rooms.items():
            state, pool = room.state, room.state.pool
            if len(room.free) < len(state.workers):
                self._withdraw(state)
            if pool.provider is None:
                continue
            alive = len(room.free) + len(state.starting)
            if alive > pool.min_workers and name not in taken and not room.claimed:
                most = min(alive - pool.min_workers, max(0, spare))
                for since, idle, why in _idle(state, coming.unneeded(state, now), now)[:most]:
                    self.drains.append(Drain(pool=name, worker=idle, why=f"idle for {show_ms(now - since)}{why}"))
                    alive, spare = alive - 1, spare - 1
            if alive + room.launching < pool.min_workers and (may := room.may_launch(now)):
                room.launching += min(pool.min_workers - alive - room.launching, may)
                self.launch_why.setdefault(name, f"the pool keeps {pool.min_workers}")

    def _workers(self) -> int:
        """Workers that take work or soon will, of all pools."""
        return sum(room.workers for room in self.rooms.values())

    def wanted(self) -> None:
        """Launch what somebody waits for and no task is the cause of, where a worker costs least."""
        missing = self.snapshot.wanted_workers - self._workers()
        for room in sorted(
            self.rooms.values(), key=lambda room: (room.state.usd_micros_per_hour, room.state.pool.name)
        ):
            count = min(missing, room.may_launch(self.snapshot.now_ms))
            if count > 0:
                room.launching += count
                missing -= count
                self.launch_why.setdefault(room.state.pool.name, self.snapshot.wanted_why)

    def _withdraw(self, state: PoolState) -> None:
        self.withdraws += [
            Withdraw(worker=worker.name, why="the worker is going away")
            for worker in state.workers
            if worker.draining and worker.bound > worker.slots
        ]


def _idle(state: PoolState, unneeded: str, now_ms: int) -> list[tuple[int, str, str]]:
    """Workers to end: idle for the pool's time, or at once when nothing is to come that they could be kept for."""
    keep_ms, least_ms = state.pool.idle_ms, state.pool.min_billing_ms
    return sorted(
        (since, worker.name, unneeded)
        for worker in state.workers
        if (since := worker.idle_since_ms) is not None
        and (unneeded or now_ms >= since + keep_ms)
        # its paid minimum is used up, and it is not the keeper of a result
        and now_ms >= worker.launched_ms + least_ms
        and not (worker.draining or worker.only_copy)
    )


@dataclass(frozen=True, slots=True)
class _Coming:
    """What the graphs of the runs say of tasks to come."""

    known: bool
    #: whether any is to come, and when the first can be ready, where that is known
    any: bool
    soonest_ms: int | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> _Coming:
        waiting = [run for run in snapshot.runs if run.ahead]
        soonest = min((run.next_ms for run in waiting if run.next_ms is not None), default=None)
        return cls(snapshot.graphs, bool(waiting), soonest)

    def unneeded(self, state: PoolState, now_ms: int) -> str:
        """Why no task will want an idle worker of the pool before another could be started; ""."""
        if not self.known:
            return ""
        if not self.any:
            return ", and no task is to come"
        if self.soonest_ms is not None and self.soonest_ms - now_ms > max(state.startup_ms, 1):
            return f", and no task is ready before {show_ms(self.soonest_ms - now_ms)}"
        return ""


def _only_lacks_workers(group: Group, state: PoolState) -> bool:
    why = blocked(group, state)
    return why is not None and why.test == "no workers"


def _slack(urgent: Urgency) -> int:
    return 2**62 if urgent.slack_ms is None else urgent.slack_ms
