"""What a pool would cost a group, in one figure whose parts are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.model.plans import Estimate, Option
from agent.model.snapshot import Group, Policy
from agent.model.units import MS_PER_HOUR, cost_micros
from agent.model.verdicts import Verdict
from agent.planner.estimate import interrupted
from agent.planner.feasible import blocked
from agent.planner.queueing import PoolQueue, queue, queue_in_time
from agent.planner.room import Room, share, slots_of, small
from agent.planner.slack import Market, Urgency


def option(  # noqa: C901, PLR0913
    group: Group,
    room: Room,
    guess: Estimate,
    policy: Policy,
    now_ms: int,
    remaining: int,
    market: Market,
    urgent: Urgency,
    prefers: Sequence[Verdict] = (),
) -> Option:
    """One pool for the `remaining` tasks of a group: feasible or why not, and the arithmetic of one task.

    Marginal dollars: the task's part of a warm worker for its expected time, or all of an on-demand worker that it
    keeps up alone; a cold worker's start-up, idle tail and unused minimum billing, shared by the tasks it is launched
    for; the expected repetition after interruptions; moving its checkpoint; on demand after all, when spot does not
    come back in time; and what the wait and the runtime are worth: the shadow price of the deadline, or the policy's
    price of delay when there is none.
    """
    state, pool = room.state, room.state.pool
    if (why := blocked(group, state)) is not None:
        return Option(pool=pool.name, kind=pool.shown_kind, why_not=why.text, block=why.test, block_rule=why.rule)
    ahead = tasks_ahead(group, room, guess.median_ms, guess.n, policy)
    fits = room.tasks(group, ahead, remaining)
    mean, high = max(1, guess.mean_ms - group.done_ms), max(1, guess.high_ms - group.done_ms)
    hazard, lasts = state.hazard_per_hour, state.lasts_until_ms
    stays = lasts is not None and now_ms + (0 if fits else state.startup_ms) + high <= lasts
    stretch = 1.0 if stays or not hazard else interrupted(mean, hazard, group.needs.checkpoint_ms)
    part, price = share(group, state), state.usd_micros_per_hour
    limit = None
    if group.deadline_ms is not None:
        limit = group.deadline_ms - now_ms - policy.margin_ms - group.tail_ms
        if pool.market == "spot" and market.both and not stays:
            # a loss at the last moment is made good on a new on-demand worker
            limit -= high + min(high, group.needs.checkpoint_ms or high) + market.startup_ms
        else:
            limit -= round(high * stretch)
    if fits:
        line = PoolQueue(0, 0, 0, "capacity", fits)
    elif limit is None:
        line = queue(group, room, policy, now_ms, remaining, mean)
    else:
        line = queue_in_time(group, room, urgent, now_ms, remaining, mean, limit)
    alone = 0.0
    if pool.market != "spot":
        # a task that keeps a dear worker up by itself costs all of it, not its slot alone; spot is what the others come
        # to
        alone = room.occupied(group, ahead, mean, remaining) if fits else 0.0
        if line.launch:
            alone = 1 / min(slots_of(group, room)[0], line.served)
    work = cost_micros(price, mean * max(part, alone))
    startup = idle = fallback = 0
    if line.launch:
        startup = round(cost_micros(price, state.startup_ms) / line.served)
        unused = max(0.0, pool.min_billing_ms - state.startup_ms - line.served * mean * part - pool.idle_ms)
        idle = round(cost_micros(price, pool.idle_ms + unused) / line.served)
    wait = line.wait_ms
    if line.waits_for == "spot" and limit is not None and not fits:
        never = math.exp(-max(0, limit) / wait) if wait else 1.0
        instead = market.on_demand_usd_micros * (mean + state.startup_ms + pool.idle_ms) / MS_PER_HOUR
        fallback = math.ceil(never * max(0.0, instead - work))
        wait = round(wait * (1 - never))
    run = round(mean * stretch)
    delay = urgent.delay(wait + run)
    repeated = round(work * (stretch - 1)) if stretch != 1.0 else 0
    move = 0
    if group.checkpoint_mib and group.checkpoint_pool != pool.name:
        move = math.ceil(group.checkpoint_mib / 1024 * policy.egress_usd_micros_per_gib)
    preferred = tuple([verdict.rule for verdict in prefers if verdict.selects(pool)]) if prefers else ()
    score = work + startup + idle + repeated + fallback + move + delay
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
        fallback_usd_micros=fallback,
        move_usd_micros=move,
        delay_usd_micros=delay,
        preferred_by=preferred,
        score_usd_micros=score * policy.prefer_percent // 100 if preferred else score,
        late_ms=None if limit is None else max(0, line.last_ms - limit),
        takes=line.takes,
        launch=line.launch,
        waits_for=None if fits else line.waits_for,
    )


def order(entry: Option) -> tuple[bool, bool, int, int, str]:
    """Feasible first; then those that keep the deadline; among those the cheapest, among the others the least late."""
    late = entry.late_ms or 0
    return (bool(entry.why_not), late > 0, late, entry.score_usd_micros, entry.pool)


def tasks_ahead(group: Group, room: Room, median_ms: int, n: int, policy: Policy) -> int:
    """Tasks a slot may be sent beyond the running one, so that short tasks do not wait for a round trip; 0 until the
    class is known.
    """
    if n < 8 or median_ms >= policy.ahead_ms or not small(group, room.state):
        return 0
    return min(policy.max_ahead, policy.ahead_ms // max(1, median_ms))
