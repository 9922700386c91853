"""A long job through the governor's own round, in virtual time, against the simulator of long jobs: the same code
decides.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest

from agent.model.needs import Needs
from agent.planner.plan import plan
from agent.simulate.long_job.policy import PlannedPolicy
from agent.simulate.long_job.simulator import run
from agent.simulate.long_job.trace import ZoneTrace, job_of
from agent.simulate.workflows.setting import SimulationSetting
from agent.simulate.workflows.simulation import simulate
from agent.simulate.workflows.trace import CapacityTrace
from agent.simulate.workflows.workflow import Job, WorkflowTask, ordered
from agent.simulate.workflows.world import Supply
from tests.values import HOUR, pool

#: exact runtimes are told in steps of five per cent, so the work is on one
TICK_S, WORK_MS, DEADLINE_H, STARTUP_MS = 300, math.ceil(1.05**358), 16, 720_000
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")


def weather(random: Random, ticks: int) -> list[bool]:
    """Capacity that stays for two hours and is away for one, on average."""
    up, out = random.random() < 0.6, []
    for _ in range(ticks):
        up = random.random() > 1 / 24 if up else random.random() < 1 / 12
        out.append(up)
    return out


def zones(seed: int) -> list[ZoneTrace]:
    random = Random(seed)
    return [
        ZoneTrace(
            zone=name, region="us-east-1", tick_s=float(TICK_S), available=np.array(weather(random, 20 * 12)),
            spot_usd_h=np.full(20 * 12, 1.0 + n / 10), on_demand_usd_h=3.0,
        )
        for n, name in enumerate(ZONES)
    ]  # fmt: skip


def governed(traces: list[ZoneTrace]) -> tuple[float, bool]:
    """Dollars, and whether the deadline was missed."""
    supplies = [
        Supply(
            pool=pool(
                trace.zone, "spot", float(trace.spot_usd_h[0]), startup_ms=STARTUP_MS, max_workers=1, idle_ms=1_000,
                labels=(("zone", trace.zone),),
            ),
            trace=CapacityTrace(
                name=trace.zone, step_ms=TICK_S * 1000, capacity=tuple(map(int, trace.available)),
                usd_micros_per_hour=tuple(round(usd * 1e6) for usd in trace.spot_usd_h),
            ),
        )
        for trace in traces
    ]  # fmt: skip
    safe = pool(usd=3.0, startup_ms=STARTUP_MS, max_workers=1, idle_ms=1_000, labels=(("zone", ZONES[0]),))
    task = WorkflowTask(
        id="train", task_class="train", run_ms=WORK_MS, needs=Needs(interruptible=True, checkpoint_ms=60_000)
    )
    setting = SimulationSetting(refusal_ms=1_000, tick_ms=TICK_S * 1000)
    job = Job(name="job", workflow=ordered("job", [task]), arrives_ms=0, deadline_ms=DEADLINE_H * HOUR)
    result = simulate([job], [*supplies, Supply(pool=safe)], plan, setting)
    return result.usd_micros / 1e6, bool(result.missed)


@pytest.mark.parametrize("seeds", [range(4), range(4, 8)])
def test_it_costs_what_the_simulator_of_long_jobs_says_and_meets_the_deadline(seeds):
    live = simulated = 0.0
    for seed in seeds:
        traces = zones(seed)
        usd, missed = governed(traces)
        assert not missed
        job = job_of(traces, work_s=WORK_MS / 1000, deadline_s=DEADLINE_H * 3600, startup_s=STARTUP_MS / 1000)
        outcome = run(PlannedPolicy(), traces, job)
        assert not outcome.missed
        live, simulated = live + usd, simulated + outcome.cost_usd
    assert live < 0.75 * 3.0 * WORK_MS / HOUR * len(seeds), "hardly cheaper than on demand"
    assert live == pytest.approx(simulated, rel=0.1)
