"""What a long job costs at least when the future is known: the clairvoyant optimum, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.simulate.long_job.protocol import SimulatedJob
from agent.simulate.long_job.trace import ZoneTrace, horizon


def optimum(traces: Sequence[ZoneTrace], job: SimulatedJob, start: int = 0) -> float:
    """USD of the cheapest schedule that any policy could have made under the semantics of `zones.run`; inf when none.

    Dynamic programming backwards over ticks, the place of the checkpoint or of the instance, and the work left, which
    is counted in the greatest common divisor of tick and start-up, so that nothing is rounded. A launch is one step
    over its whole start-up: a schedule that launches and stops before any progress is never cheaper, as moving a
    checkpoint by way of a third zone costs no less than directly. (Where the egress table says otherwise, its cheapest
    paths are used, and the result is a bound and no more.)
    """
    ticks = horizon(traces, job, start)
    zones, tick_h = range(len(traces)), job.tick_s / 3600
    unit = _gcd(job.tick_s, job.startup_s)
    step, startup = round(job.tick_s / unit), round(job.startup_s / unit)
    whole = math.ceil(job.work_s / unit - 1e-9)
    spare_s = whole * unit - job.work_s
    # a launch: ticks without progress, then one with part of it (a whole one when the start-up is none)
    quiet, part = startup // step, step - startup % step
    spot = np.stack([t.spot_usd_h[start : start + ticks] for t in traces]) * tick_h
    up = np.stack([t.available[start : start + ticks] for t in traces])
    on_demand = np.array([t.on_demand_usd_h for t in traces]) * tick_h
    move = _closed(np.array(job.egress_usd, float))
    stays = np.array([np.convolve(u, np.ones(quiet + 1), "valid") > quiet + 0.5 for u in up])
    startup_usd = np.array([np.convolve(s, np.ones(quiet + 1), "valid") for s in spot])
    never = np.full(whole + 1, np.inf)
    never[0] = 0.0

    def after(later: NDArray[np.float64], usd: float, done: int, k: int) -> NDArray[np.float64]:
        """Cost with each amount of work left before tick k makes `done` of it at a price; its last tick is free."""
        out = np.empty_like(later)
        out[0] = 0.0
        if k == ticks - 1:
            done = min(
                done, math.floor((job.deadline_s - k * job.tick_s - (step - done) * unit + spare_s) / unit + 1e-9)
            )
        done = max(done, 0)
        out[1 : done + 1] = 0.0
        out[done + 1 :] = later[1 : whole + 1 - done] + usd
        return out

    # [place][work left], by tick: waiting with the checkpoint in a zone, running on spot there, running on demand there
    idle = {ticks: [never] * len(traces)}
    on_spot = {ticks: [never] * len(traces)}
    on_od = {ticks: [never] * len(traces)}
    first = never
    for k in range(ticks - 1, -1, -1):
        launch = []
        end = k + quiet
        for z in zones:
            best = never
            if end < ticks:
                usd = on_demand[z] * quiet
                best = after(on_od[end + 1][z], on_demand[z], part, end) + usd
                if stays[z][k]:
                    usd = startup_usd[z][k] - spot[z][end]
                    best = np.minimum(best, after(on_spot[end + 1][z], spot[z][end], part, end) + usd)
                best[0] = 0.0
            launch.append(best)
        leave = []
        for home in zones:
            best = idle[k + 1][home]
            for z in zones:
                best = np.minimum(best, launch[z] + move[home, z])
            best[0] = 0.0
            leave.append(best)
        idle[k] = leave
        on_spot[k] = [
            np.minimum(leave[z], after(on_spot[k + 1][z], spot[z][k], step, k)) if up[z][k] else leave[z] for z in zones
        ]
        on_od[k] = [np.minimum(leave[z], after(on_od[k + 1][z], on_demand[z], step, k)) for z in zones]
        first = np.minimum(first, np.minimum.reduce(launch))
        for table in (idle, on_spot, on_od):
            table.pop(end + 2, None)
    return float(first[whole])


def _gcd(a: float, b: float) -> float:
    """The greatest common divisor of two times in seconds, each taken to the millisecond."""
    x, y = (Fraction(round(v * 1000), 1000) for v in (a, b))
    while y:
        x, y = y, x % y
    return float(x)


def _closed(usd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cheapest paths between all pairs (Floyd and Warshall)."""
    out = usd.copy()
    for k in range(len(out)):
        out = np.minimum(out, out[:, k : k + 1] + out[k : k + 1, :])
    return out
