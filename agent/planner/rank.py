"""What a pool would cost a group, in one figure whose parts are kept."""

from __future__ import annotations

import math

from agent.model.plans import Estimate, HoldReason, Option
from agent.model.snapshot import Group, Policy
from agent.model.units import MS_PER_HOUR, cost_micros
from agent.planner.estimate import interrupted
from agent.planner.feasible import why_not
from agent.planner.room import Room, share, small


def option(group: Group, room: Room, guess: Estimate, policy: Policy, now_ms: int, remaining: int) -> Option:
    """One pool for the `remaining` tasks of a group: feasible or why not, and the arithmetic of one task.

    Marginal dollars: the task's part of a warm worker for its expected time; a cold worker's start-up, idle tail and
    unused minimum billing, shared by the tasks it is launched for; the expected repetition after interruptions; and
    what the wait and the runtime are worth at the policy's price of delay.
    """
    state, pool = room.state, room.state.pool
    if reason := why_not(group, state):
        return Option(pool=pool.name, kind=pool.shown_kind, why_not=reason)
    ahead = tasks_ahead(group, room, guess.median_ms, guess.n, policy)
    fits = room.tasks(group, ahead, remaining)
    stretch = interrupted(guess.mean_ms, state.hazard_per_hour, group.needs.checkpoint_ms)
    part, price = share(group, state), state.usd_micros_per_hour
    work = cost_micros(price, guess.mean_ms * part)
    launch, wait, last_wait, waits_for = (
        (0, 0, 0, None) if fits else _queue(group, room, policy, now_ms, remaining, guess.mean_ms, guess.high_ms)
    )
    startup = idle = 0
    if launch:
        served = max(1.0, remaining / (room.workers + launch))
        startup = round(cost_micros(price, state.startup_ms) / served)
        unused = max(0.0, pool.min_billing_ms - state.startup_ms - served * guess.mean_ms * part - pool.idle_ms)
        idle = round(cost_micros(price, pool.idle_ms + unused) / served)
    run = round(guess.mean_ms * stretch)
    delay = cost_micros(policy.delay_usd_micros_per_hour, wait + run)
    repeated = round(work * (stretch - 1))
    preferred = tuple([v.rule for v in group.verdicts if v.verb == "prefer" and v.selects(pool)])
    score = work + startup + idle + repeated + delay
    late = None
    if group.deadline_ms is not None:
        late = max(
            0,
            now_ms + last_wait + round(guess.high_ms * stretch) + group.tail_ms + policy.margin_ms - group.deadline_ms,
        )
    return Option(
        pool=pool.name,
        kind=pool.shown_kind,
        estimate=guess,
        room=fits,
        wait_ms=wait,
        run_ms=run,
        work_usd_micros=work,
        startup_usd_micros=startup,
        idle_usd_micros=idle,
        interruption_usd_micros=repeated,
        delay_usd_micros=delay,
        preferred_by=preferred,
        score_usd_micros=score * policy.prefer_percent // 100 if preferred else score,
        late_ms=late,
        launch=launch,
        waits_for=waits_for,
    )


def order(entry: Option) -> tuple[bool, bool, int, int, str]:
    """Feasible first; then those that keep the deadline; among those the cheapest, among the others the least late."""
    late = entry.late_ms or 0
    return (bool(entry.why_not), late > 0, late, entry.score_usd_micros, entry.pool)


def tasks_ahead(group: Group, room: Room, median_ms: int, n: int, policy: Policy) -> int:
    """Tasks a slot may be sent beyond the running one, so that short tasks do not wait for a round trip; 0 until the class is known."""
    if n < 8 or median_ms >= policy.ahead_ms or not small(group, room.state):
        return 0
    return min(policy.max_ahead, policy.ahead_ms // max(1, median_ms))


def _queue(
    group: Group, room: Room, policy: Policy, now_ms: int, remaining: int, mean_ms: int, high_ms: int
) -> tuple[int, int, int, HoldReason]:
    """Workers to launch, the mean and the last wait of the tasks, and what they wait for, when no slot is free.

    The number of workers W balances their fixed cost b against the price of waiting: n tasks of m ms on L + W workers
    of S slots wait n·m / (2·S·(L + W)) on average, so the least of b·W + delay·n·wait is at
    L + W = sqrt(n²·m·delay / (2·S·b)) (the square-root rule of staffing).
    """
    state, pool = room.state, room.state.pool
    may, here = room.may_launch(now_ms), room.workers
    tasks, work_ms = remaining + room.claimed, remaining * mean_ms + room.claimed_ms
    delay = policy.delay_usd_micros_per_hour / MS_PER_HOUR
    fixed = max(1.0, state.usd_micros_per_hour / MS_PER_HOUR * (state.startup_ms + pool.idle_ms))
    want = math.ceil(math.sqrt(tasks * work_ms * delay / (2 * pool.slots * fixed)))
    if group.deadline_ms is not None:
        slack = group.deadline_ms - now_ms - state.startup_ms - high_ms - group.tail_ms - policy.margin_ms
        want = max(want, math.ceil(work_ms / (pool.slots * slack)) if slack > 0 else tasks)
    launch = max(0, min(want - here, math.ceil(tasks / pool.slots) - here, may))
    if not launch and not here:
        launch = min(1, may)
    lanes = pool.slots * max(1, here + launch)
    drain = work_ms // lanes
    first, reason = _first(room, now_ms, launch, mean_ms)
    return launch, first + drain // 2, first + drain, reason


def _first(room: Room, now_ms: int, launch: int, mean_ms: int) -> tuple[int, HoldReason]:
    """When the first of the waiting tasks starts, in ms from now, and what it waits for."""
    state = room.state
    waits: list[tuple[int, HoldReason]] = []
    if room.free:
        waits.append((max(0, room.frees_ms - now_ms) if room.frees_ms is not None else mean_ms // 2, "capacity"))
    if state.starting:
        waits.append((max(0, min(s.asked_ms for s in state.starting) + state.startup_ms - now_ms), "launch"))
    if launch or room.launching:
        waits.append((state.startup_ms, "launch"))
    if not waits:
        # refused for t ms so far: expect as long again (Lindy), at least until the next attempt
        refused = now_ms - state.refused_since_ms if state.refused_since_ms is not None else 0
        waits.append(
            (
                max(refused, state.retry_ms - now_ms, 0) + state.startup_ms,
                "spot" if state.pool.market == "spot" else "launch",
            )
        )
    return min(waits)
