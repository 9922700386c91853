"""What becomes of one group's waiting tasks: bound, held, asked about or refused."""

from __future__ import annotations

from agent.model.plans import Option, Refuse
from agent.model.pools import DEFAULT
from agent.model.snapshot import Group, PoolState
from agent.model.units import show_ms
from agent.planner.draft import Draft
from agent.planner.explain import nearest
from agent.planner.fair_share import FairShare
from agent.planner.feasible import PHYSICAL, blocked
from agent.planner.limits import BUDGET_RELEASE, held_for_a_person, reserve, reserve_of
from agent.planner.room import slots_of
from agent.planner.routes import place_long_job
from agent.planner.slack import Urgency

#: turns in which free slots are given to teams and runs that wait side by side
TURNS = 16


def in_turns(draft: Draft, turns: FairShare) -> None:
    """Bind a few tasks at a time, of whoever has the least."""
    free = sum(worker.slots for room in draft.rooms.values() for worker in room.free)
    a_turn = max(1, free // TURNS)
    left: dict[str, int] = {}
    while (group := turns.next()) is not None:
        before = left.get(group.id, group.ready)
        after = left[group.id] = place(draft, group, before, a_turn)
        turns.took(group, before - after)
        if not after:
            turns.through(group)


def place(draft: Draft, group: Group, remaining: int, most: int | None = None) -> int:
    """Bind, hold, ask for or refuse the group's tasks; or bind at most so many, and say how many are left for another
    turn.
    """
    urgent = draft.urgencies[group.id]
    ranked = draft.ranked(group, remaining, urgent)
    if _cannot(draft, group, ranked, remaining):
        return 0
    if (job := draft.long_job(group, ranked)) is not None:
        return place_long_job(draft, job, remaining, most)
    if held_for_a_person(draft, group, ranked, remaining):
        return 0
    while remaining:
        best = ranked[0]
        each, short = reserve_of(draft, group, best)
        if short:
            return draft.hold(group, ranked, remaining, "budget", short, BUDGET_RELEASE)
        if not best.room:
            count = best.takes if 0 < best.takes < remaining and not best.late_ms else remaining
            _wait(draft, group, ranked, count, urgent)
            remaining -= count
            ranked = draft.ranked(group, remaining, urgent) if remaining else ranked
            continue
        count = reserve(draft, group, min(best.room, remaining, most or remaining), each)
        draft.bind(group, ranked, count, each)
        remaining -= count
        if most is not None:
            return remaining
        ranked = draft.ranked(group, remaining, urgent) if remaining else ranked
    return 0


def _wait(draft: Draft, group: Group, ranked: list[Option], remaining: int, urgent: Urgency) -> None:
    best = ranked[0]
    room, mean = draft.rooms[best.pool], max(0, best.estimate.mean_ms - group.done_ms) if best.estimate else 0
    if urgent.slack_ms is not None and best.late_ms == 0:
        draft.look(urgent.slack_ms - (urgent.at_risk_ms + draft.market.startup_ms if best.waits_for == "spot" else 0))
    if best.launch:
        room.launching += best.launch
        draft.launch_why.setdefault(best.pool, f"{remaining} tasks of {group.name} wait")
    if group.deadline_ms is not None:
        room.claim(remaining, max(1, mean), slots_of(group, room)[1], best.launch)
    room.claimed += remaining
    room.claimed_ms += remaining * mean
    state, now = room.state, draft.snapshot.now_ms
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
    draft.hold(group, ranked, remaining, best.waits_for or "capacity", why, release)


def _cannot(draft: Draft, group: Group, ranked: list[Option], remaining: int) -> bool:
    """Refuse, or hold, what no pool can take, a person rejected, or kills its workers."""
    if not ranked or ranked[0].why_not:
        _refuse(draft, group, ranked, remaining)
    elif group.rejected_by is not None:
        _never(draft, group, ranked, f"rejected by {group.rejected_by}", rejected=True)
    elif group.losses > draft.snapshot.policy.max_losses:
        why = f"{group.losses} workers died under it without notice; it may be what kills them (ORC_MAX_LOSSES)"
        _never(draft, group, ranked, why)
    else:
        return False
    return True


def _refuse(draft: Draft, group: Group, ranked: list[Option], remaining: int) -> None:
    """No pool is feasible now: refuse what never can be, hold what a launch or a person may still change."""
    possible = [room.state for room in draft.rooms.values() if not any(test(group, room.state) for test in PHYSICAL)]
    why = nearest(group, [room.state for room in draft.rooms.values()])
    if draft.rooms and possible and all(s.pool.name == DEFAULT or _only_lacks_workers(group, s) for s in possible):
        draft.hold(group, ranked, remaining, "capacity", f"no pool has workers: {why}", "a worker that joins")
    else:
        _never(draft, group, ranked, why)


def _never(draft: Draft, group: Group, ranked: list[Option], why: str, rejected: bool = False) -> None:
    decision = draft.decide(group, ranked, "refuse", why)
    draft.refusals.append(Refuse(group=group.id, why=why, decision=decision, rejected=rejected))


def _only_lacks_workers(group: Group, state: PoolState) -> bool:
    why = blocked(group, state)
    return why is not None and why.test == "no workers"
