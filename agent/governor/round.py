"""One round: a plan becomes what goes on record, then what is done. The same for govern and the simulator; no I/O.

drawn = draw_up(state, recorder, snapshot, made, entry)   # nothing is changed
…the entry is committed; refused, the round is forgotten…
take_in(state, recorder, drawn)                           # now it is true
…instructions are sent…
sent(state, sending, where, now_ms)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.ledger.snapshots import split
from agent.model.capacity import Load
from agent.model.codec import digest, encode
from agent.model.leases import Lease
from agent.model.outcomes import Result
from agent.model.plans import Plan
from agent.model.pools import Pool
from agent.model.records import Ended, Entry
from agent.model.snapshot import Group, PoolState, Snapshot
from agent.planner.estimate import estimate, statistics_of
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder, RecorderDraft
from agent.state.tasks import BoundTask, ReadyTask


@dataclass(slots=True, kw_only=True)
class Sending:
    """Tasks of a group that go to a pool."""

    group: Group
    pool: PoolState
    ahead: int
    tasks: list[ReadyTask]
    placements: list[int]
    expected_ms: int
    #: what one of them takes
    load: Load

    def message(self) -> dict[str, Any]:
        """As the extension is told."""
        return {
            "pool": self.pool.pool.name,
            **asdict(self.load),
            "ahead": self.ahead,
            "keys": [task.key for task in self.tasks],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOrder:
    """A worker to ask a provider for, once its lease is on record."""

    lease: Lease
    pool: Pool


@dataclass(slots=True, kw_only=True)
class Round:
    """A plan with everything that follows from it, before any of it is done."""

    snapshot: Snapshot
    plan: Plan
    entry: Entry
    sendings: list[Sending]
    launches: list[LaunchOrder]
    draft: RecorderDraft
    #: number of each of the plan's decisions
    numbers: list[int]


def draw_up(
    state: ClusterState, recorder: Recorder, snapshot: Snapshot, made: Plan, entry: Entry, *, launches: bool = True
) -> Round:
    """Turn a plan's groups into tasks and its launches into leases, and enter what is new. Nothing is changed.

    Args:
        launches: workers are asked for; not where the scheduler cannot be governed.
    """
    # a waiting group comes last: a running task's, of the same name, is that of its own checkpoint
    groups = {group.id: group for group in (*(task.group for task in snapshot.running), *snapshot.groups)}
    pools = {pool.pool.name: pool for pool in snapshot.pools}
    statistics = statistics_of(snapshot)
    draft = recorder.draft(entry, reversed(state.specs))
    numbers = [draft.decided(decision, groups[decision.group].team) for decision in made.decisions]
    taken: dict[str, int] = {}
    sendings = []
    for bind in made.binds:
        group = groups[bind.group]
        tasks = state.waiting.first(bind.group, bind.count, taken.get(bind.group, 0))
        taken[bind.group] = taken.get(bind.group, 0) + len(tasks)
        number, guess = numbers[bind.decision], estimate(group, bind.pool, statistics, snapshot.policy.deadline_sigmas)
        sendings.append(
            Sending(
                group=group,
                pool=pools[bind.pool],
                ahead=bind.ahead,
                tasks=tasks,
                placements=[draft.placed(number, task, bind.budget, bind.reserve_usd_micros) for task in tasks],
                expected_ms=max(1, guess.mean_ms - group.done_ms),
                load=state.fleet.load(group, bind.pool),
            )
        )
    orders = []
    if launches:
        for launch in made.launches:
            pool = state.fleet.pools[launch.pool].pool
            for _ in range(launch.count):
                lease = state.fleet.leases.draft(pool, snapshot.now_ms, launch.why)
                orders.append(LaunchOrder(lease=lease, pool=pool))
    entry.leases += [order.lease for order in orders]
    return Round(
        snapshot=snapshot,
        plan=made,
        entry=entry,
        sendings=sendings,
        launches=orders,
        draft=draft,
        numbers=numbers,
    )


def take_in(state: ClusterState, recorder: Recorder, drawn: Round) -> None:
    """The round's entry is on record: its tasks no longer wait, its leases are open."""
    recorder.keep(drawn.draft)
    for decided in drawn.entry.decisions:
        state.tally.decisions[decided.decision.verb, decided.decision.pool or ""] += 1
    for order in drawn.launches:
        state.fleet.leases.ask(order.lease)
    state.recorded(drawn.entry)
    for sending in drawn.sendings:
        for task in sending.tasks:
            state.waiting.drop(task.key)


def sent(state: ClusterState, sending: Sending, where: Sequence[str | None], now_ms: int) -> bool:
    """The extension's answer: the worker of each task, None where it could not be bound. Whether all were."""
    for task, placement, address in zip(sending.tasks, sending.placements, where, strict=True):
        if address is None:
            state.ended.append(Ended(placement=placement, result=Result.NOT_SENT))
            state.dirty = True
            continue
        state.sent(
            BoundTask(
                task,
                placement,
                sending.group.id,
                sending.pool.pool.name,
                address,
                now_ms,
                sending.expected_ms,
                sending.pool.usd_micros_per_hour,
                sending.load,
            )
        )
    return all(address is not None for address in where)


@dataclass(slots=True, kw_only=True)
class Orders:
    """What the extension is told beside binds."""

    drain: list[str]
    withdraw: list[str]
    #: key, error, why
    refuse: list[tuple[Any, str, str]]
    #: key, the pool it can go on in, why
    leave: list[tuple[Any, str, str]]

    def __bool__(self) -> bool:
        return bool(self.drain or self.withdraw or self.refuse or self.leave)

    def message(self) -> dict[str, Any]:
        """As the extension is told."""
        leave = [(key, why) for key, _, why in self.leave]
        return {"drain": self.drain, "withdraw": self.withdraw, "refuse": self.refuse, "leave": leave}


def orders_of(state: ClusterState, drawn: Round) -> Orders:
    """A plan's drains, withdrawals, refusals and moves, of workers and tasks that are still there."""
    made = drawn.plan
    address = {live.counts.name: at for at, live in state.fleet.live.items()}
    keys = {bound.placement: key for key, bound in state.bound.items()} if made.moves else {}
    return Orders(
        drain=[address[drain.worker] for drain in made.drains if drain.worker in address],
        withdraw=[address[withdraw.worker] for withdraw in made.withdraws if withdraw.worker in address],
        refuse=[
            (task.key, "RejectedError" if refusal.rejected else "NeedUnmetError", refusal.why)
            for refusal in made.refusals
            for task in state.waiting.tasks(refusal.group)
        ],
        leave=[(keys[move.placement], move.pool, move.why) for move in made.moves if move.placement in keys],
    )


def fleet_of(made: Plan) -> dict[str, Any]:
    """Launches and drains as they go on record."""
    return {"launch": [asdict(x) for x in made.launches], "drain": [asdict(x) for x in made.drains]}


def enter_snapshot(entry: Entry, snapshot: Snapshot, made: Plan) -> None:
    """What the plan was made from, and the plan's digest: so it can be made again."""
    head, parts = split(snapshot)
    entry.says.update(head=head, plan=digest(encode(made)))
    entry.parts = parts


def entry_of(state: ClusterState, now_ms: int, mode: str, kind: str = "round") -> Entry:
    """An entry with everything that is not on record yet."""
    outcomes = list({outcome.placement: outcome for outcome in state.ended}.values())
    return Entry(kind=kind, at_ms=now_ms, mode=mode, outcomes=outcomes, leases=state.fleet.leases.unrecorded())
