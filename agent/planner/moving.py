"""Running tasks that may go on elsewhere from their last checkpoint: those too slow, and those that spot would do for
less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.model.plans import Move, Option
from agent.model.snapshot import Running
from agent.model.units import cost_micros, show_ms, show_usd
from agent.planner.draft import Draft
from agent.planner.limits import asks, reserve_of
from agent.planner.room import Room, share, slots_of
from agent.planner.slack import Urgency

if TYPE_CHECKING:
    from agent.planner.long_job.routing import LongJob

#: moving must be cheaper than staying by a quarter: runtimes are guesses, and a move back costs as much
WORTH = 1.25
#: a task is slow when it has run for so many times what was expected
SLOW_TIMES = 2


@dataclass(frozen=True, slots=True)
class SlowTaskVerdict:
    """What becomes of a slow task, and why."""

    moves: bool
    why: str


def too_slow(
    task: Running, rooms: Mapping[str, Room], mean_ms: int, best: Option | None, urgent: Urgency
) -> SlowTaskVerdict:
    """Whether a slow task is worth moving.

    A task that has outrun its estimate is expected to run for as long again as it has (Lindy: of a heavy-tailed runtime
    what is left grows with what has passed). Elsewhere it begins at its last checkpoint. While that holds less than a
    run of its class takes, the rest of such a run is left; a task that has more behind it is a long one, and takes as
    long again there too, by what the class takes there and here.

    Args:
        rooms: the pools. mean_ms: what the class takes where it runs, ms.
        best: the best pool for what its checkpoint does not hold; None where there is none.
    """
    here = rooms.get(task.pool)
    ran = f"too slow: it has run for {show_ms(task.ran_ms)}, {show_ms(task.expected_ms)} was expected"
    if not task.leaves:
        return SlowTaskVerdict(False, f"{ran}; left, since it has no checkpoint to leave at")
    if here is None or best is None or best.estimate is None:
        return SlowTaskVerdict(False, f"{ran}; left, since no other worker can take it")
    state = here.state
    work = cost_micros(state.usd_micros_per_hour, task.ran_ms * share(task.group, state))
    stay, go = work + urgent.delay(task.ran_ms), best.score_usd_micros
    if task.group.done_ms >= best.estimate.mean_ms:
        there = rooms[best.pool].state
        rest = round(task.ran_ms * best.estimate.mean_ms / max(1, mean_ms))
        go += cost_micros(there.usd_micros_per_hour, rest * share(task.group, there)) + urgent.delay(rest)
    said = f"{show_usd(stay)} to stay for as long again, {show_usd(go)} from its checkpoint on {best.pool}"
    if go * WORTH < stay:
        return SlowTaskVerdict(True, f"{ran}; moved: {said}")
    return SlowTaskVerdict(False, f"{ran}; left: {said}")


def back_to_spot(
    task: Running, rooms: Mapping[str, Room], ranked: Sequence[Option], urgent: Urgency
) -> tuple[Option, str] | None:
    """The spot pool on which the rest of a task is worth more than what its move costs, and why; None when none is.

    To go there costs what the option says, but for the wait: the work since the last checkpoint again, a start-up,
    losses, and the slot that is kept until the next checkpoint. To stay costs the task's part of its worker, all of it
    when the task keeps that up alone. Both cost delay. What is saved must be more than a quarter of the dollars spent
    there and a start-up on demand, since a loss may bring the task back (hysteresis).
    """
    here = rooms.get(task.pool)
    spot = next((o for o in ranked if not o.why_not and rooms[o.pool].state.pool.market == "spot"), None)
    if (
        not task.leaves
        or here is None
        or here.state.pool.market == "spot"
        or spot is None
        or spot.late_ms
        or spot.waits_for == "spot"
    ):
        return None
    state, rest, there = here.state, task.expected_ms - task.ran_ms, rooms[spot.pool].state
    part = max(share(task.group, state), 1 / (1 + task.beside))
    stay = cost_micros(state.usd_micros_per_hour, rest * part) + urgent.delay(rest)
    again = cost_micros(state.usd_micros_per_hour, state.startup_ms * part)
    kept = cost_micros(there.usd_micros_per_hour, task.leaves_ms * share(task.group, there))
    usd = spot.usd_micros + kept
    # it runs on until its worker is there, and loses nothing by that wait
    go = usd + urgent.delay(spot.run_ms)
    if stay - go <= (WORTH - 1) * usd + again:
        return None
    saved = round(100 * (stay - go) / stay)
    return (
        spot,
        f"spot again: the rest is {saved} % cheaper there ({show_usd(stay)} here, {show_usd(go)} on {spot.pool})",
    )


def keep_slots(draft: Draft) -> None:
    """The slots of tasks that were told to leave for them are nobody else's."""
    for task in draft.snapshot.running:
        if task.leaves_for in draft.rooms:
            room = draft.rooms[task.leaves_for]
            room.take(task.group, 0, 1, max(1, task.expected_ms - task.ran_ms))
            room.claimed += 1


def move(draft: Draft) -> None:
    """Move running tasks by cost: slow ones to where they are soon done, others from on demand back to spot."""
    for task in draft.snapshot.running:
        if task.leaves_for:
            continue
        urgent = draft.urgencies[task.group.id] = draft.urgency(task.group)
        ranked = draft.ranked(task.group, 1, urgent)
        job = draft.long_job(task.group, ranked) if task.ran_ms < SLOW_TIMES * task.expected_ms else None
        if job is not None and job.is_of_market(task.pool):
            _long_job(draft, task, job)
            continue
        if task.ran_ms < task.expected_ms:
            _back(draft, task, ranked, urgent)
            continue
        mean = draft.guess(task.group, task.pool).mean_ms
        verdict = too_slow(task, draft.rooms, mean, ranked[0] if ranked else None, urgent)
        decision = draft.decide(task.group, ranked, "move" if verdict.moves else "leave", verdict.why)
        if verdict.moves:
            _leave(draft, task, ranked[0].pool, verdict.why, decision)


def _leave(draft: Draft, task: Running, pool: str, why: str, decision: int) -> None:
    draft.moves.append(Move(placement=task.placement, pool=pool, why=why, decision=decision))


def _back(draft: Draft, task: Running, ranked: list[Option], urgent: Urgency) -> None:
    """Back to spot, where that is worth it."""
    found = back_to_spot(task, draft.rooms, ranked, urgent)
    if found is not None:
        spot, why = found
        there = [spot, *(o for o in ranked if o is not spot)]
        _go(draft, task, there, why, spot.launch, f"{task.group.name} can go on there ({why})")


def _long_job(draft: Draft, task: Running, job: LongJob) -> None:
    """To where the rest costs less."""
    if task.leaves and (route := job.running(task)) is not None:
        _go(draft, task, route.ranked, route.why, job.launches(route.pool), f"{task.group.name}: {route.why}")


def _go(draft: Draft, task: Running, ranked: list[Option], why: str, launch: int, launch_why: str) -> None:
    """To the first of the pools: a worker is launched there first, and the task leaves when that is there."""
    best, group = ranked[0], task.group
    # it does not leave to wait for a person or for money
    if asks(draft, group, best, 1)[0] or reserve_of(draft, group, best)[1]:
        return
    room, run_ms = draft.rooms[best.pool], max(1, best.run_ms)
    if best.room:
        launch = 0
        room.take(group, 0, 1, run_ms)
        _leave(draft, task, best.pool, why, draft.decide(group, ranked, "move", why))
    elif launch:
        room.launching += launch
        draft.launch_why.setdefault(best.pool, launch_why)
    # the slot is its own: no idle worker is ended, nor two tasks sent for one
    room.claimed += 1
    room.claim(1, run_ms, slots_of(group, room)[1], launch)
