"""How long a class runs in a pool: history, shrunk toward the class, the author, and a wide prior."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from agent.model.plans import Estimate, Source
from agent.model.pools import Pool
from agent.model.snapshot import Group, Snapshot, Statistic

#: a task nobody knows anything of: median a minute, between five seconds and twelve minutes in nine of ten cases; one
#: execution is worth more than that
PRIOR_LOG_MS, PRIOR_SIGMA = math.log(60_000), 1.5
#: executions of a class scatter by so much (logarithm) as far as one execution's worth of belief goes
SCATTER = 0.5
#: an author's word is worth so many executions, and is right within a factor of two in two of three cases
AUTHOR_WEIGHT, AUTHOR_SIGMA = 2.0, 0.7
#: pools differ in speed by so much (logarithm), and the other pools' history is worth so many executions here, at least
#: and at most
CLASS_SIGMA, CLASS_LEAST, CLASS_MOST = 0.5, 0.5, 20.0
#: the spread never counts as less, nor as more
SIGMA_LEAST, SIGMA_MOST = 0.05, 2.0

Statistics = Mapping[tuple[str, str], Statistic]


def by_shape(found: Iterable[Statistic], pools: Iterable[Pool]) -> dict[tuple[str, str], Statistic]:
    """Statistics by class and pool, where pools whose workers are alike have those of all of them together.

    Workers of one shape are as fast in each market and zone. And a spot pool's own history is of the tasks that ended
    before they were taken: of the short ones.
    """
    shapes: dict[tuple[object, ...], list[str]] = {}
    for pool in pools:
        shape = (pool.cpus, pool.memory_mib, pool.slots, pool.gpus, pool.gpu_model, pool.emulated)
        shapes.setdefault(shape, []).append(pool.name)
    out = {(s.task_class, s.pool): s for s in found}
    classes = {task_class for task_class, _ in out}
    for alike in shapes.values():
        for task_class in classes if len(alike) > 1 else ():
            parts = [out[task_class, name] for name in alike if (task_class, name) in out]
            if parts:
                whole = _together(parts)
                out.update({(task_class, name): replace(whole, pool=name) for name in alike})
    return out


def statistics_of(snapshot: Snapshot) -> dict[tuple[str, str], Statistic]:
    """What a snapshot knows of runtimes, by class and pool; see `by_shape`."""
    return by_shape(snapshot.statistics, [state.pool for state in snapshot.pools])


def _together(parts: Sequence[Statistic]) -> Statistic:
    """Of all their executions (the parallel form of Welford's update; Chan, Golub and LeVeque 1979)."""
    n = sum(part.n for part in parts)
    mean = sum(part.n * part.log_mean for part in parts) / n if n else 0.0
    squares = sum(part.log_m2 + part.n * (part.log_mean - mean) ** 2 for part in parts)
    return replace(parts[0], n=n, log_mean=mean, log_m2=squares)


def estimate(group: Group, pool: str, statistics: Statistics, sigmas: float) -> Estimate:
    """Runtime of one task without interruption.

    The logarithm of the runtime is taken as normal. Its mean is the average of n observed logarithms and of a prior
    mean with the weight of k executions, (n·m + k·m0) / (n + k); its variance pools the observed squares, the prior's
    and n·k/(n + k)·(m - m0)² (the posterior means of a normal-inverse-gamma prior; Murphy 2007, section 6.3), and what
    is reported is the next execution's, 1 + 1/(n + k) times as large. The class over all pools is the prior of a pool,
    with k = the variance within pools over that between them (the shrinkage of a random-effects model; Gelman and Hill
    2006, section 12.2). What is supposed of a task that nobody knows weighs nothing beside history.

    Args:
        sigmas: the quantile reported as `high_ms`, in standard deviations.
    """
    weight, mean, sigma, source = 0.0, PRIOR_LOG_MS, PRIOR_SIGMA, "prior"
    if group.needs.runtime_ms:
        weight, mean, sigma, source = AUTHOR_WEIGHT, math.log(group.needs.runtime_ms), AUTHOR_SIGMA, "author"
    #: executions that the scatter is believed like
    worth, scatter = 1.0, SCATTER * SCATTER
    overall = statistics.get((group.task_class, ""))
    here = statistics.get((group.task_class, pool))
    if overall is not None and overall.n and (here is None or here.n < overall.n):
        mean, variance = _with(
            overall.n, overall.log_mean, overall.log_m2 + CLASS_SIGMA * CLASS_SIGMA, weight, mean, worth, scatter
        )
        # where runtimes scatter within a pool, a few of them say little of the pool: they may be the long tasks
        within = (overall.within_m2 + CLASS_SIGMA * CLASS_SIGMA) / (overall.n + 1)
        weight, source = min(CLASS_MOST, max(CLASS_LEAST, within / (CLASS_SIGMA * CLASS_SIGMA))), "class history"
        sigma, worth, scatter = math.sqrt(variance * (1 + 1 / overall.n)), weight, variance
    n = 0
    if here is not None and here.n:
        n = here.n
        mean, variance = _with(n, here.log_mean, here.log_m2, weight, mean, worth, scatter)
        sigma, source = math.sqrt(variance * (1 + 1 / (n + weight))), "history"
    sigma = min(SIGMA_MOST, max(SIGMA_LEAST, sigma))
    return Estimate(
        median_ms=round(math.exp(mean)),
        mean_ms=max(1, round(math.exp(mean + sigma * sigma / 2))),
        high_ms=max(1, round(math.exp(mean + sigmas * sigma))),
        n=n if source == "history" else overall.n if overall is not None and source == "class history" else 0,
        source=_source(source),
    )


def _with(
    n: int, log_mean: float, log_m2: float, weight: float, mean: float, worth: float, variance: float
) -> tuple[float, float]:
    """Mean and variance of n observations, a mean believed like `weight` of them and a variance like `worth`."""
    between = log_mean - mean
    squares = log_m2 + worth * variance + between * between * n * weight / (n + weight)
    return (n * log_mean + weight * mean) / (n + weight), squares / (n + worth)


def _source(source: str) -> Source:
    return (
        "history"
        if source == "history"
        else "class history"
        if source == "class history"
        else "author"
        if source == "author"
        else "prior"
    )


def interrupted(mean_ms: int, hazard_per_hour: float, checkpoint_ms: int | None) -> float:
    """How many times longer a task runs in all when it is interrupted at a constant hazard and starts again.

    With work lost since the last checkpoint every c ms the expected time is w·(e^(λc) − 1)/(λc), c ≤ w
    (restart under a Poisson failure process; Daly 2006, equation 2 without the cost of writing a checkpoint).
    """
    stretch = hazard_per_hour / 3_600_000 * min(mean_ms, checkpoint_ms or mean_ms)
    return 1.0 if stretch < 1e-9 else math.expm1(min(stretch, 20.0)) / stretch
