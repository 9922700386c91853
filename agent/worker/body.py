"""The body of a governed Prefect task on the worker."""

from __future__ import annotations

import asyncio
from typing import Any

import dask
from distributed import get_worker
from prefect.client.schemas.objects import State
from prefect.task_engine import run_task_async, run_task_sync

from agent.scheduler import protocol as p
from agent.worker import lineage
from agent.worker.carried import carried


def run_task(*, task: Any, run: Any, **arguments: Any) -> Any:
    """Run one Prefect task; its own Dask work is marked as inner work of this key. Returns its final State."""
    worker = get_worker()
    key = worker.get_current_task()
    token = carried.set(run)
    said: dict[str, Any] = {}
    try:
        with lineage.collected() as found, dask.annotate(**{p.ANNOTATION: {p.INNER: key}}):
            state = (
                asyncio.run(run_task_async(task=task, **arguments))
                if task.isasync
                else run_task_sync(task=task, **arguments)
            )
    finally:
        carried.reset(token)
    entry = worker.state.tasks.get(key)
    if entry is not None and isinstance(state, State):
        # Dask sees a State and calls it a result; the extension reads this
        if state.is_failed() or state.is_crashed():
            said[p.RESULT] = "failed"
        elif state.name == "Cached":
            said[p.RESULT] = "cached"
        if found:
            said[p.LINEAGE] = found
        if said:
            entry.metadata[p.ANNOTATION] = said
    return state
