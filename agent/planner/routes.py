"""Long jobs in a plan: bound, launched for and held as their routes say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.model.plans import HoldReason, Wait
from agent.model.snapshot import Group
from agent.model.units import show_ms
from agent.planner.draft import Draft
from agent.planner.limits import BUDGET_RELEASE, held_for_a_person, reserve, reserve_of
from agent.planner.room import slots_of

if TYPE_CHECKING:
    from agent.planner.long_job.routing import LongJob, Route


def place_long_job(draft: Draft, job: LongJob, remaining: int, most: int | None) -> int:
    """Bind, launch for and hold the job and its like; how many are left for another turn.

    Args:
        job: the first of them, as it is now.
        remaining: tasks of its group.
    """
    group, taken, held, over = job.group, 0, 0, False
    first: tuple[Route, LongJob] | None = None
    # whoever waits is held in this turn; only binds are shared out
    while (left := remaining - taken - held) and not over and (held or most is None or taken < most):
        if taken or held:
            job = _next(draft, group, left)
        route = job.waiting()
        best = route.ranked[0]
        each, short = reserve_of(draft, group, best)
        if held_for_a_person(draft, group, route.ranked, left):
            over = True
        elif short:
            draft.hold(group, route.ranked, left, "budget", short, BUDGET_RELEASE)
            over = True
        elif best.room:
            draft.bind(group, route.ranked, reserve(draft, group, 1, each), each, route.why)
            taken += 1
        else:
            _claim(draft, group, route, job)
            # nothing is claimed by a job that waits for a zone: the others do the same
            first, held = first or (route, job), held + (left if route.waits else 1)
    if first is not None:
        _hold(draft, group, held, *first)
    return 0 if over else left


def _next(draft: Draft, group: Group, left: int) -> LongJob:
    """Another of the group's tasks, with what those before it have left."""
    job = draft.long_job(group, draft.ranked(group, left, draft.urgencies[group.id]))
    assert job is not None
    return job


def _claim(draft: Draft, group: Group, route: Route, job: LongJob) -> None:
    """A worker is launched for it, or one that starts is its own."""
    room = draft.rooms[route.pool]
    if route.waits:
        return
    launch = job.launches(route.pool)
    if launch:
        room.launching += 1
        draft.launch_why.setdefault(route.pool, f"{group.name}: {route.why}")
    room.claimed += 1
    best = route.ranked[0]
    room.claim(1, max(1, best.run_ms), slots_of(group, room)[1], launch)


def _hold(draft: Draft, group: Group, count: int, route: Route, job: LongJob) -> None:
    room, now = draft.rooms[route.pool], draft.snapshot.now_ms
    state = room.state
    reason: HoldReason
    if route.waits:
        reason, why = "spot", f"no zone has capacity now that is worth more than the wait for {route.pool}"
        release = f"capacity in {route.pool}; all are asked again in {show_ms(max(0, job.market.ends_ms - now))}"
    elif state.fault and not state.starting:
        reason, why = "spot", f"launches in {route.pool} fail: {state.fault}"
        release = f"a launch in {route.pool}; next attempt in {show_ms(max(0, state.retry_ms - now))}"
    elif room.launching or state.starting:
        reason, why = "launch", f"a worker of {route.pool} is starting"
        release = f"a worker of {route.pool}, expected in {show_ms(state.startup_ms)}"
    else:
        reason, why = "capacity", f"all {len(room.free)} workers of {route.pool} are busy"
        release = f"a worker of {route.pool}"
    decision = draft.decide(group, route.ranked, "wait", f"{route.why}; {why}", release)
    draft.waits.append(
        Wait(group=group.id, count=count, reason=reason, why=f"{route.why}; {why}", release=release, decision=decision)
    )
