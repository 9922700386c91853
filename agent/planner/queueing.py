"""How long a group's tasks would wait for a pool that has no room now, and what is launched for them."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice

from agent.model.plans import HoldReason
from agent.model.snapshot import Group, Policy
from agent.model.units import MS_PER_HOUR
from agent.planner.room import Room, slots_of
from agent.planner.slack import AWAY_MS, Urgency


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


def queue(group: Group, room: Room, policy: Policy, now_ms: int, remaining: int, mean_ms: int) -> PoolQueue:
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


def queue_in_time(
    group: Group, room: Room, urgent: Urgency, now_ms: int, remaining: int, mean_ms: int, limit_ms: int
) -> PoolQueue:
    """With a deadline: as few workers as let the tasks start within the time that may be spent in queues.

    A lane takes floor((until - first) / m) + 1 tasks of m ms that start until then. What the lanes that are there
    cannot take gets new workers; where none can be had, tasks queue for as long as the deadline lets them, and after
    that only hope for capacity to come back is left.
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
        queued = PoolQueue(0, (lanes[0] + last) // 2, last, "launch" if not room.free else "capacity", can)
        # a queue is no saving when its wait is worth more than another worker
        return new if new is not None and _worth(new, room, urgent) < _worth(queued, room, urgent) else queued
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
    """When the last of so many tasks starts, to an eighth of a task: the least time until which the lanes take them
    all.
    """
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
