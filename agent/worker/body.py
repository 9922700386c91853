"""The body of a governed Prefect task on the worker."""

from __future__ import annotations

import asyncio
from typing import Any

import dask
from distributed import get_worker
from prefect.task_engine import run_task_async, run_task_sync

from agent.scheduler import protocol as p


def run_task(*, task: Any, run: Any, **arguments: Any) -> Any:
    """Run one Prefect task; its own Dask work is marked as inner work of this key. Returns its final State."""
    from agent.runner.run import carried

    worker = get_worker()
    key = worker.get_current_task()
    token = carried.set(run)
    try:
        with dask.annotate(**{p.ANNOTATION: {p.INNER: key}}):
            state = asyncio.run(run_task_async(task=task, **arguments)) if task.isasync else run_task_sync(task=task, **arguments)
    finally:
        carried.reset(token)
    if getattr(state, "is_failed", None) is not None and (state.is_failed() or state.is_crashed()) and (entry := worker.state.tasks.get(key)) is not None:
        # Dask sees a State and calls it a result; the extension reads this
        entry.metadata["orc_failed"] = True
    return state
