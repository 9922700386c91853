"""Small worlds for simulations: workers of one slot, an hour on demand at $3.60, spot at $0.36."""

from __future__ import annotations

from agent.model.needs import Needs
from agent.simulate.workflows.trace import CapacityTrace
from agent.simulate.workflows.workflow import Job, Workflow, WorkflowTask, ordered
from agent.simulate.workflows.world import Supply
from tests.values import HOUR, MINUTE, pool

STARTUP = 5 * MINUTE


def flow(*tasks: tuple[str, int, tuple[str, ...]], checkpoint_ms: int | None = None) -> Workflow:
    """Tasks (id, minutes, parents); a class each."""
    needs = Needs(interruptible=True, checkpoint_ms=checkpoint_ms)
    return ordered(
        "flow",
        (
            WorkflowTask(id=id, task_class=id, run_ms=minutes * MINUTE, parents=parents, needs=needs)
            for id, minutes, parents in tasks
        ),
    )


def job(workflow: Workflow, deadline_minutes: int | None, at_minutes: int = 0, name: str = "job") -> Job:
    """One run of it."""
    deadline = None if deadline_minutes is None else (at_minutes + deadline_minutes) * MINUTE
    return Job(name=name, workflow=workflow, arrives_ms=at_minutes * MINUTE, deadline_ms=deadline)


def on_demand(**changes: object) -> Supply:
    """Always granted."""
    return Supply(pool=pool(usd=3.60, startup_ms=STARTUP, max_workers=100, **changes))


def spot(*capacity: int, name: str = "spot", step_ms: int = 10 * MINUTE, **changes: object) -> Supply:
    """Capacity a step; its last value holds for two days."""
    steps = (*capacity, *([capacity[-1]] * (48 * HOUR // step_ms)))
    trace = CapacityTrace(name=name, step_ms=step_ms, capacity=steps, usd_micros_per_hour=(360_000,) * len(steps))
    return Supply(pool=pool(name, "spot", 0.36, startup_ms=STARTUP, max_workers=100, **changes), trace=trace)
