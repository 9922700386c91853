"""One workflow on one's own pools: policies side by side, and cost against deadline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.errors import SettingError
from agent.model.units import show_ms
from agent.planner.plan import plan
from agent.simulate.workflows.ensemble import feasible_ms
from agent.simulate.workflows.peers.every import WORKFLOW_PEERS
from agent.simulate.workflows.setting import SimulationResult, SimulationSetting
from agent.simulate.workflows.simulation import Planner, simulate
from agent.simulate.workflows.workflow import Job, Workflow
from agent.simulate.workflows.world import Supply

#: deadlines of the curve, hundredths of the feasible time
CURVE = (100, 110, 120, 135, 150, 175, 200, 300)
POLICIES: dict[str, Callable[[], Planner]] = {"orc": lambda: plan, **WORKFLOW_PEERS}


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What was asked, and what came of it."""

    workflow: Workflow
    deadline_ms: int
    #: time on-demand workers without limit need, start-ups included, ms
    feasible_ms: int
    #: policy → result
    results: dict[str, SimulationResult]
    #: (deadline ms, micro-dollars, jobs missed) of the first policy
    curve: tuple[tuple[int, int, int], ...]
    setting: SimulationSetting


def simulate_workflow(
    workflow: Workflow,
    supplies: Sequence[Supply],
    deadline_ms: int | None,
    policies: Sequence[str],
    setting: SimulationSetting,
    tell: Callable[[str], None] = lambda line: None,
) -> WhatIf:
    """One run from time 0 under each policy; without a deadline it is twice the feasible time.

    Args:
        tell: is told before each simulation which it is, and of how many.

    Raises SettingError: an unknown policy, no on-demand pool; TraceError: a trace that ends before the deadline.
    """
    for name in policies:
        if name not in POLICIES:
            raise SettingError(f"there is no policy {name!r}; there are {', '.join(POLICIES)}")
    # a pool that is only observed here is asked for workers there
    supplies = [replace(s, pool=replace(s.pool, provider=s.pool.provider or "simulated")) for s in supplies]
    starts = [s.pool.startup_ms for s in supplies if s.pool.market == "on-demand"]
    if not starts:
        raise SettingError("no pool is on demand; without one no deadline can be promised")
    least = feasible_ms(workflow, min(starts))
    goal = deadline_ms if deadline_ms is not None else 2 * least
    setting = replace(setting, keep_executions=True)

    horizon = min((s.trace.length_ms for s in supplies if s.trace is not None), default=2**62)
    deadlines = [until for percent in CURVE if (until := least * percent // 100) <= horizon]
    begun = itertools.count(1)

    def made(policy: str, until_ms: int) -> SimulationResult:
        tell(f"{next(begun)} of {len(policies) + len(deadlines)}: {policy}, deadline {show_ms(until_ms)}")
        job = Job(name=workflow.name, workflow=workflow, arrives_ms=0, deadline_ms=until_ms)
        return simulate([job], supplies, POLICIES[policy](), setting)

    results = {name: made(name, goal) for name in policies}
    curve = []
    for until in deadlines:
        result = made(policies[0], until)
        curve.append((until, result.usd_micros, len(result.missed)))
    return WhatIf(
        workflow=workflow,
        deadline_ms=goal,
        feasible_ms=least,
        results=results,
        curve=tuple(curve),
        setting=setting,
    )
