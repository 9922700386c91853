"""Ensembles: runs of a workflow that arrive over days, with deadlines that on-demand workers can keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from agent.planner.dag import TaskGraph
from agent.simulate.workflows.workflow import Job, Workflow


def feasible_ms(workflow: Workflow, startup_ms: int) -> int:
    """Time in which on-demand workers without limit can do it from nothing, start-ups included."""
    graph = TaskGraph(startup_ms)
    graph.extend((task.id, task.run_ms, task.parents, 0) for task in workflow.tasks)
    return startup_ms + graph.path_ms


def arriving(workflow: Workflow, count: int, over_ms: int, ratio: float, startup_ms: int, seed: int) -> list[Job]:
    """`count` runs at uniformly random instants, each with `ratio` times its feasible time until the deadline."""
    random, least = Random(seed), feasible_ms(workflow, startup_ms)
    return [
        Job(
            name=f"{workflow.name}-{n}", workflow=workflow, arrives_ms=at, deadline_ms=at + round(ratio * least)
        )
        for n, at in enumerate(sorted(random.randrange(over_ms) for _ in range(count)))
    ]  # fmt: skip


def checkpointed(workflow: Workflow, every_ms: int, mib: int = 0) -> Workflow:
    """The workflow with tasks that keep a checkpoint of that size each so often; to be stated."""
    tasks = tuple(
        replace(task, checkpoint_mib=mib, needs=replace(task.needs, checkpoint_ms=every_ms)) for task in workflow.tasks
    )
    return replace(workflow, tasks=tasks)


def longest_ms(workflows: Sequence[Workflow], startup_ms: int) -> int:
    """The longest feasible time among workflows."""
    return max(feasible_ms(workflow, startup_ms) for workflow in workflows)
