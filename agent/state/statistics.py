"""What the past says: runtimes by class and pool, interruptions, start-ups, tails.

In memory, rebuilt from the ledger.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from agent.model.records import Ended
from agent.model.snapshot import Statistic
from agent.planner.intervals import negative_binomial_interval
from agent.scheduler.protocol import CHUNKS

#: executions a class remembers in a pool: older ones fade, so that a class may change
MEMORY = 200
#: the declared hazard counts as much as so many hours of watching
PRIOR_HOURS = 2.0
#: losses come in bursts: their counts vary so many times as much as single events would, which counts as so many lives
#: seen
PRIOR_BURSTS, PRIOR_LIVES = 3.0, 4.0
#: capacity that was refused is thought to come back after so many hours, which counts as one return seen
PRIOR_AWAY_HOURS = 1.0
#: classes that are told to flows, to size chunks by: short, ms, and seen so often
SHORT_MS = 5_000
SEEN = 3


_NOT_WATCHED = (0.0,) * 4


@dataclass(slots=True)
class _Runtimes:
    n: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    #: of a class: what its pools' own squares add up to
    within: float = 0.0

    def add(self, value: float) -> float:
        """Welford's update, with all weights faded once the memory is full. What it added to the squares."""
        if self.n >= MEMORY:
            faded = (MEMORY - 1) / MEMORY
            self.n, self.m2, self.within = MEMORY - 1.0, self.m2 * faded, self.within * faded
        self.n += 1
        between = value - self.mean
        self.mean += between / self.n
        squares = between * (value - self.mean)
        self.m2 += squares
        return squares


@dataclass(slots=True)
class Statistics:
    """Statistics of one scheduler."""

    runtimes: dict[tuple[str, str], _Runtimes] = field(default_factory=lambda: defaultdict(_Runtimes))
    #: pool → hours watched, interruptions seen, and of the lives that these ended the sums of hours and of their
    #: squares
    watched: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0] * 4))
    #: pool → hours refused, returns seen
    away: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    startups: dict[str, float] = field(default_factory=dict)
    #: class → mean ms from its last end to the end of the root run
    tails: dict[str, float] = field(default_factory=dict)
    #: class → mean ms of an item in a chunk
    items_ms: dict[str, float] = field(default_factory=dict)
    #: class → memory with which it ran out of it, MiB
    oom_mib: dict[str, int] = field(default_factory=dict)
    #: root run → class → last end; "" is the run's own
    ends: dict[str, dict[str, int]] = field(default_factory=dict)

    def record_runtime(self, task_class: str, pool: str, stop_ms: int, run_ms: int, root_run: str) -> None:
        """A task ended well."""
        value = math.log(max(1, run_ms))
        squares = self.runtimes[task_class, pool].add(value)
        overall = self.runtimes[task_class, ""]
        overall.add(value)
        overall.within += squares
        if root_run:
            seen = self.ends.setdefault(root_run, {})
            seen[task_class] = max(seen.get(task_class, 0), stop_ms)
            seen[""] = max(seen.get("", 0), stop_ms)

    def record_execution(self, task_class: str, pool: str, stop_ms: int, ended: Ended, root_run: str) -> None:
        """A task ended well: live, and as it is read from the ledger."""
        # what a checkpoint spared it belongs to its runtime
        self.record_runtime(task_class, pool, stop_ms, ended.run_ms + ended.spared_ms, root_run)
        if ended.items > 1:
            self.record_item(task_class.removesuffix(CHUNKS), ended.run_ms / ended.items)

    def record_out_of_memory(self, task_class: str, mib: int) -> None:
        """A task with so much memory ran out of it."""
        self.oom_mib[task_class] = max(mib, self.oom_mib.get(task_class, 0))

    def record_item(self, task_class: str, ms: float) -> None:
        """An item of a chunk took so long, in the mean."""
        self.items_ms[task_class] = 0.7 * self.items_ms.get(task_class, ms) + 0.3 * ms

    def short_ms(self) -> dict[str, float]:
        """Mean time of the classes that take at most a few seconds, ms: in chunks where they were seen so,
        else alone.
        """
        alone = {c: math.exp(r.mean) for (c, pool), r in self.runtimes.items() if not pool and r.n >= SEEN}
        return {c: ms for c, ms in {**alone, **self.items_ms}.items() if ms < SHORT_MS}

    def close_run(self, root_run: str) -> None:
        """A root run has ended, as far as one can see from here."""
        seen = self.ends.pop(root_run, {})
        for task_class, end in seen.items():
            if task_class:
                tail = float(seen[""] - end)
                self.tails[task_class] = 0.7 * self.tails.get(task_class, tail) + 0.3 * tail

    def record_worker_life(self, pool: str, ms: int, interrupted: bool) -> None:
        """A worker's life ended."""
        seen, hours = self.watched[pool], ms / 3_600_000
        seen[0] += hours
        if interrupted:
            seen[1] += 1
            seen[2] += hours
            seen[3] += hours * hours

    def record_refusal(self, pool: str, ms: int, came_back: bool) -> None:
        """Launches were refused for so long; then one was granted,
        or nobody asked any more (a censored observation).
        """
        seen = self.away[pool]
        seen[0] += ms / 3_600_000
        seen[1] += came_back

    def returns(self, pool: str) -> float:
        """Returns of refused capacity per hour: a gamma prior's mean."""
        hours, count = self.away.get(pool, (0.0, 0.0))
        return (1 + count) / (PRIOR_AWAY_HOURS + hours)

    def record_startup(self, pool: str, ms: int) -> None:
        """A worker became ready so long after it was granted."""
        self.startups[pool] = 0.7 * self.startups.get(pool, ms) + 0.3 * ms

    def hazard(self, pool: str, declared_per_1000_hours: int, running_hours: float = 0.0) -> float:
        """Interruptions per hour: the declared rate and what was seen, a gamma prior's mean.

        Args:
            running_hours: of all workers that run now together: lives that have not ended are watched too.
        """
        hours, count, *_ = self.watched.get(pool, _NOT_WATCHED)
        return (declared_per_1000_hours / 1000 * PRIOR_HOURS + count) / (PRIOR_HOURS + hours + running_hours)

    def losses(self, pool: str, hazard_per_hour: float, hours: float, level: float) -> tuple[int, int]:
        """The interval, of this level, of the interruptions in so many worker hours to come at that hazard.

        Negative binomial: the mean is the hazard's; the variance is that of a renewal process, the squared coefficient
        of variation of its lives times the mean (Cox 1962, section 4.2), and that of the hazard itself, a gamma
        posterior's.
        """
        if (mean := hazard_per_hour * hours) <= 0:
            return 0, 0
        watched, count, lived, squares = self.watched.get(pool, _NOT_WATCHED)
        varied = squares * count / (lived * lived) - 1 if count >= 2 and lived > 0 else PRIOR_BURSTS
        bursts = max(1.0, (PRIOR_BURSTS * PRIOR_LIVES + varied * count) / (PRIOR_LIVES + count))
        dispersion = bursts * (1 + hours / (PRIOR_HOURS + watched))
        return negative_binomial_interval(level, mean=mean, dispersion=dispersion)

    def of_classes(self, classes: set[str]) -> tuple[Statistic, ...]:
        """Statistics of some classes, in a fixed order."""
        found = sorted(((key, r) for key, r in self.runtimes.items() if key[0] in classes), key=lambda item: item[0])
        return tuple(
            Statistic(task_class=c, pool=pool, n=round(r.n), log_mean=r.mean, log_m2=r.m2, within_m2=r.within)
            for (c, pool), r in found
        )
