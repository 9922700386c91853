"""What no schedule can cost less: clairvoyant relaxations of an ensemble.

Both take start-up as 0, tasks as divisible and movable without loss, and a worker's slot as buyable on its own:
whatever a real schedule pays on top is relaxed away, so each figure is below every schedule that keeps the deadlines.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from agent.errors import WorkflowError
from agent.model.units import MS_PER_HOUR
from agent.simulate.workflows.workflow import Job, WorkflowTask
from agent.simulate.workflows.world import Supply


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A task and the time it must lie in, the longest paths before and behind it at full speed."""

    task: WorkflowTask
    earliest_ms: int
    latest_ms: int


def windows(job: Job, supplies: Sequence[Supply]) -> list[Window]:
    """Each task's [earliest start, latest finish]. Raises WorkflowError when the deadline is shorter than the path."""
    models = {supply.pool.gpu_model if supply.pool.gpus else None for supply in supplies}
    fastest = {task.id: min(task.run_on(model) for model in models) for task in job.workflow.tasks}
    before: dict[str, int] = {}
    for task in job.workflow.tasks:
        before[task.id] = max((before[parent] + fastest[parent] for parent in task.parents), default=0)
    behind: dict[str, int] = defaultdict(int)
    for task in reversed(job.workflow.tasks):
        for parent in task.parents:
            behind[parent] = max(behind[parent], behind[task.id] + fastest[task.id])
    deadline = job.deadline_ms if job.deadline_ms is not None else 2**62
    out = [
        Window(task=task, earliest_ms=job.arrives_ms + before[task.id], latest_ms=deadline - behind[task.id])
        for task in job.workflow.tasks
    ]
    for window in out:
        if window.latest_ms - window.earliest_ms < fastest[window.task.id]:
            raise WorkflowError(f"job {job.name}: no schedule meets its deadline, task {window.task.id} is too long")
    return out


def per_task(jobs: Sequence[Job], supplies: Sequence[Supply]) -> int:
    """Sum over tasks of the cheapest execution inside its window, every pool for itself alone; micro-dollars."""
    total = 0.0
    for job in jobs:
        for window in windows(job, supplies):
            pieces: list[tuple[float, float]] = []
            for start, stop, rate in _rates(window, supplies):
                pieces.append((rate, stop - start))
            left = float(window.task.run_ms)
            for rate, length in sorted(pieces):
                taken = min(left, length)
                total += taken * rate
                left -= taken
                if left <= 0:
                    break
    return int(total)


def _rates(window: Window, supplies: Sequence[Supply]) -> list[tuple[int, int, float]]:
    """Spans of the window with the least price of a millisecond of the task's work in any pool.

    On a faster worker a span holds more work than it is long; counting it as no more than the fastest one's work keeps
    the bound below: the length of a span is given in work at the speed of the pool that is cheapest there.
    """
    edges = {window.earliest_ms, window.latest_ms}
    for supply in supplies:
        if supply.trace is not None:
            edges.update(at for at, _, _ in supply.trace.changes() if window.earliest_ms < at < window.latest_ms)
    ordered = sorted(edges)
    speeds = [_speed(window.task, supply) for supply in supplies]
    most = max(speed for speed in speeds if speed)
    out, at_work = [], 0
    for start, stop in itertools.pairwise(ordered):
        rates = [
            _price(supply, start) / MS_PER_HOUR / supply.pool.slots / speed
            for supply, speed in zip(supplies, speeds, strict=True)
            if speed and (supply.trace is None or supply.trace.at(start) > 0)
        ]
        length = round((stop - start) * most)
        if rates:
            out.append((at_work, at_work + length, min(rates)))
        at_work += length
    return out


def _speed(task: WorkflowTask, supply: Supply) -> float:
    """Work a pool's worker does in a millisecond, 0 when the task cannot run there."""
    pool = supply.pool
    if task.needs.gpu == "required" and pool.gpus < task.needs.gpus:
        return 0.0
    if task.needs.cpus > pool.cpus or (task.needs.memory_mib or 0) > pool.memory_mib:
        return 0.0
    return task.run_ms / task.run_on(pool.gpu_model if pool.gpus else None)


def _price(supply: Supply, at_ms: int) -> int:
    return supply.pool.price_at(at_ms) if supply.trace is None else supply.trace.price_at(at_ms)


def time_indexed(jobs: Sequence[Job], supplies: Sequence[Supply], step_ms: int = 900_000) -> int:
    """The relaxation with capacity: a linear programme over steps of time, by HiGHS; micro-dollars.

    Tasks of a job with the same window (rounded outward to steps) and the same speeds are one class with the sum of
    their work, no more than one slot each at a time; a spot pool gives no more slots in a step than its greatest
    capacity there, at its least price there. Every real schedule is a feasible point with no greater value.
    """
    spans: list[tuple[int, int, float, int, tuple[float, ...]]] = []
    for job in jobs:
        alike: dict[tuple[int, int, tuple[float, ...]], list[float]] = defaultdict(lambda: [0.0, 0])
        for window in windows(job, supplies):
            speeds = tuple(_speed(window.task, supply) for supply in supplies)
            key = (window.earliest_ms // step_ms, -(-window.latest_ms // step_ms), speeds)
            alike[key][0] += window.task.run_ms
            alike[key][1] += 1
        spans += [(a, b, work, int(n), speeds) for (a, b, speeds), (work, n) in alike.items()]
    cost: list[float] = []
    work_row: list[int] = []
    work_value: list[float] = []
    width: dict[tuple[int, int], list[int]] = defaultdict(list)
    room: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (first, last, _, _, speeds) in enumerate(spans):
        for step in range(first, last):
            for at, (supply, speed) in enumerate(zip(supplies, speeds, strict=True)):
                capacity, price = _step(supply, step, step_ms)
                if not speed or not capacity:
                    continue
                number = len(cost)
                cost.append(price / MS_PER_HOUR / supply.pool.slots)
                work_row.append(row)
                work_value.append(speed)
                width[row, step].append(number)
                if supply.trace is not None:
                    room[at, step].append(number)
    limits = [(columns, float(spans[row][3] * step_ms)) for (row, _), columns in sorted(width.items())]
    limits += [
        (columns, float(_step(supplies[at], step, step_ms)[0] * supplies[at].pool.slots * step_ms))
        for (at, step), columns in sorted(room.items())
    ]
    rows = [n for n, (columns, _) in enumerate(limits) for _ in columns]
    columns = [c for found, _ in limits for c in found]
    size = len(cost)
    upper = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(limits), size)).tocsr()
    equal = coo_matrix((work_value, (work_row, range(size))), shape=(len(spans), size)).tocsr()
    found = linprog(
        cost, A_ub=upper, b_ub=[b for _, b in limits], A_eq=equal, b_eq=[work for _, _, work, _, _ in spans],
        method="highs"
    )  # fmt: skip
    if found.status != 0:
        raise WorkflowError(f"the bound has no solution: {found.message}")
    # the optimum is known to HiGHS' tolerance; the bound stays below it
    return int(found.fun * (1 - 1e-6))


def _step(supply: Supply, step: int, step_ms: int) -> tuple[int, int]:
    """The greatest capacity and the least price in a step."""
    trace = supply.trace
    if trace is None:
        return supply.pool.max_workers, supply.pool.price_at(step * step_ms)
    first, last = step * step_ms // trace.step_ms, -(-(step + 1) * step_ms // trace.step_ms)
    capacity, prices = trace.capacity[first:last], trace.usd_micros_per_hour[first:last]
    return (min(max(capacity), supply.pool.max_workers), min(prices)) if capacity else (0, 0)
