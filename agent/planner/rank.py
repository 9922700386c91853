"""What a pool would cost a group, in one figure whose parts are kept."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from agent.model.plans import Estimate, HoldReason, Option
from agent.model.snapshot import Group, Policy
from agent.model.units import MS_PER_HOUR, cost_micros
from agent.model.verdicts import Verdict
from agent.planner.estimate import interrupted
from agent.planner.feasible import blocked
from agent.planner.room import Room, share, small
from agent.planner.slack import AWAY_MS, Market, Urgency


@dataclass(slots=True)
class PoolQueue:
    """What becomes of a group's waiting tasks in a pool without room."""

    #: workers to launch
    launch: int
    #: mean and last wait, ms
    wait_ms: int
    last_ms: int
    waits_for: HoldReason
    #: tasks that can start in time; all of them without a deadline
    takes: int
    #: tasks a launched worker is for
    served: float = 1.0


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

    Marginal dollars: the task's part of a warm worker for its expected time, or all of an on-demand worker that it keeps up
    alone; a cold worker's start-up, idle tail and unused minimum billing, shared by the tasks it is launched for; the
    expected repetition after interruptions; moving its checkpoint; on demand after all, when spot does not come back in time; and what the wait and the runtime are
    worth: the shadow price of the deadline, or the policy's price of delay when there is none.
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
        queue = PoolQueue(0, 0, 0, "capacity", fits)
    elif limit is None:
        queue = _queue(group, room, policy, now_ms, remaining, mean)
    else:
        queue = _queue_in_time(group, room, urgent, now_ms, remaining, mean, limit)
    alone = 0.0
    if pool.market != "spot":
        # a task that keeps a dear worker up by itself costs all of it, not its slot alone; spot is what the others come to
        alone = room.occupied(group, ahead, mean, remaining) if fits else 0.0
        if queue.launch:
            alone = 1 / min(slots_of(group, room)[0], queue.served)
    work = cost_micros(price, mean * max(part, alone))
    startup = idle = fallback = 0
    if queue.launch:
        startup = round(cost_micros(price, state.startup_ms) / queue.served)
        unused = max(0.0, pool.min_billing_ms - state.startup_ms - queue.served * mean * part - pool.idle_ms)
        idle = round(cost_micros(price, pool.idle_ms + unused) / queue.served)
    wait = queue.wait_ms
    if queue.waits_for == "spot" and limit is not None and not fits:
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
        late_ms=None if limit is None else max(0, queue.last_ms - limit),
        takes=queue.takes,
        launch=queue.launch,
        waits_for=None if fits else queue.waits_for,
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


def _queue(group: Group, room: Room, policy: Policy, now_ms: int, remaining: int, mean_ms: int) -> PoolQueue:
    """Without a deadline: what waiting is worth decides how many workers are launched.

    The number of workers W balances their fixed cost b against the price of waiting: n tasks of m ms on L + W workers
    of S slots wait n·m / (2·S·(L + W)) on average, so the least of b·W + delay·n·wait is at
    L + W = sqrt(n²·m·delay / (2·S·b)) (the square-root rule of staffing).
    """
    pool = room.state.pool
    may, here = room.may_launch(now_ms), room.workers
    tasks, work_ms = remaining + room.claimed, remaining * mean_ms + room.claimed_ms
    want = _staffing(room, policy.delay_usd_micros_per_hour, tasks, work_ms)
    launch = max(0, min(want - here, math.ceil(tasks / pool.slots) - here, may))
    if not launch and not here:
        launch = min(1, may)
    lanes = pool.slots * max(1, here + launch)
    drain = work_ms // lanes
    first, reason = _first(room, now_ms, launch, mean_ms)
    served = max(1.0, remaining / (here + launch)) if launch else 1.0
    return PoolQueue(launch, first + drain // 2, first + drain, reason, remaining, served)


def _queue_in_time(
    group: Group, room: Room, urgent: Urgency, now_ms: int, remaining: int, mean_ms: int, limit_ms: int
) -> PoolQueue:
    """With a deadline: as few workers as let the tasks start within the time that may be spent in queues.

    A lane takes floor((until - first) / m) + 1 tasks of m ms that start until then. What the lanes that are there cannot
    take gets new workers; where none can be had, tasks queue for as long as the deadline lets them, and after that only
    hope for capacity to come back is left.
    """
    pool, (each, step), may = room.state.pool, slots_of(group, room), room.may_launch(now_ms)
    lanes = room.lanes[step - 1 :: step] if step > 1 else room.lanes
    # what is free before a new worker would be ready is never worth one
    soft = max(min(urgent.queue_ms, limit_ms), room.state.startup_ms)
    within = _takes(lanes, mean_ms, soft, remaining)
    new = _launched(room, urgent, now_ms, remaining, mean_ms, soft, each, within) if may else None
    if new is not None and within < remaining:
        return new
    can = within if within >= remaining else _takes(lanes, mean_ms, limit_ms, remaining)
    if can > 0:
        last = _last(lanes, mean_ms, can)
        queue = PoolQueue(0, (lanes[0] + last) // 2, last, "launch" if not room.free else "capacity", can)
        # a queue is no saving when its wait is worth more than another worker
        return new if new is not None and _worth(new, room, urgent) < _worth(queue, room, urgent) else queue
    if room.may_grow:
        # it can be held until the next attempt; where that is too late, hope is as late as what is hoped for
        next_try, back = max(0, room.state.retry_ms - now_ms), _back(room, now_ms)
        last = next_try if next_try <= limit_ms else max(next_try, back)
        return PoolQueue(0, back, last, "spot" if pool.market == "spot" else "launch", remaining)
    last = _last(lanes, mean_ms, remaining) if lanes else max(0, limit_ms + 1)
    return PoolQueue(0, last // 2, max(last, limit_ms + 1), "capacity", 0)


def _launched(  # noqa: PLR0913
    room: Room, urgent: Urgency, now_ms: int, remaining: int, mean_ms: int, soft_ms: int, each: int, within: int
) -> PoolQueue:
    """New workers for the tasks that the lanes which are there cannot take in time."""
    startup, may = room.state.startup_ms, room.may_launch(now_ms)
    if within >= remaining:
        # not for want of room, but to wait less: a slot for each task
        within, soft_ms = 0, 0
    a_worker = each * (max(0, soft_ms - startup) // mean_ms + 1)
    want = math.ceil((remaining - within) / a_worker)
    staffed = _staffing(room, urgent.hour_usd_micros, remaining + room.claimed, remaining * mean_ms + room.claimed_ms)
    launch = min(may, max(want, min(staffed - room.workers, math.ceil((remaining - within) / each))))
    new = min(remaining - within, launch * a_worker)
    served = new / launch
    deep = mean_ms * (math.ceil(served / each) - 1)
    return PoolQueue(launch, startup + deep // 2, startup + deep, "launch", within + new, max(1.0, served))


def _worth(queue: PoolQueue, room: Room, urgent: Urgency) -> float:
    """A task's wait at what time is worth, and its part of the workers launched for it, micro-dollars."""
    state = room.state
    fixed = state.usd_micros_per_hour * (state.startup_ms + state.pool.idle_ms) / MS_PER_HOUR if queue.launch else 0.0
    return urgent.delay(queue.wait_ms) + fixed / queue.served


def _takes(lanes: list[int], run_ms: int, until_ms: int, most: int) -> int:
    """Tasks that can start on these lanes until then, at most so many."""
    open_to = bisect_right(lanes, until_ms)
    if open_to >= most or not open_to:
        return min(open_to, most)
    return min(most, sum((until_ms - lane) // run_ms for lane in islice(lanes, open_to)) + open_to)


def _last(lanes: list[int], run_ms: int, count: int) -> int:
    """When the last of so many tasks starts, to an eighth of a task: the least time until which the lanes take them all."""
    if count <= len(lanes) and lanes[count - 1] <= lanes[0] + run_ms:
        return lanes[count - 1]
    low, high = lanes[0], lanes[0] + run_ms * count
    while high - low > run_ms // 8:
        middle = (low + high) // 2
        if _takes(lanes, run_ms, middle, count) >= count:
            high = middle
        else:
            low = middle + 1
    return high


def slots_of(group: Group, room: Room) -> tuple[int, int]:
    """Tasks of the group one worker runs at a time, and the slots each of them takes from others."""
    each = max(1, int(1 / share(group, room.state) + 1e-9))
    return each, max(1, room.state.pool.slots // each)


def _staffing(room: Room, usd_micros_per_hour: int, tasks: int, work_ms: int) -> int:
    state, pool = room.state, room.state.pool
    fixed = max(1.0, state.usd_micros_per_hour / MS_PER_HOUR * (state.startup_ms + pool.idle_ms))
    return math.ceil(math.sqrt(tasks * work_ms * usd_micros_per_hour / MS_PER_HOUR / (2 * pool.slots * fixed)))


def _back(room: Room, now_ms: int) -> int:
    """How long a pool that refuses is expected to go on, and a worker to start there, ms.

    As the pool's own returns say, and at least as long again as it has lasted (Lindy): outages are of many lengths.
    """
    state = room.state
    if state.back_ms is not None:
        return max(0, state.back_ms - now_ms) + state.startup_ms
    refused = now_ms - state.refused_since_ms if state.refused_since_ms is not None else 0
    usual = MS_PER_HOUR / state.returns_per_hour if state.returns_per_hour else AWAY_MS
    return round(max(refused, usual, state.retry_ms - now_ms)) + state.startup_ms


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
