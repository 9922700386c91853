"""What a task run takes in: the task runs upstream of each parameter, and the assets, as Prefect finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.client.schemas import TaskRun
from prefect.client.schemas.objects import State, TaskRunResult
from prefect.context import AssetContext, FlowRunContext
from prefect.futures import PrefectFuture
from prefect.tasks import MaterializingTask, Task
from prefect.utilities.engine import collect_task_run_inputs_sync, get_state_for_result

from agent.worker.chunks import PLAIN


def inputs_of(
    parameters: Mapping[str, Any], wait_for: Any, dependencies: Mapping[str, set[Any]] | None, template: TaskRun
) -> dict[str, set[Any]]:
    """Upstream task runs of each parameter, as `_create_task_run_locally` finds them."""
    flow = FlowRunContext.get()
    tracked = bool(flow is not None and flow.run_results)
    out: dict[str, set[Any]] = {}
    parents = set(template.task_inputs.get("__parents__", ()))
    for name, value in parameters.items():
        if type(value) in PLAIN and not tracked:
            out[name] = set()
            continue
        out[name] = set(collect_task_run_inputs_sync(value))
        found = (
            (value,)
            if isinstance(value, State)
            else get_state_for_result(value)
            if not isinstance(value, PrefectFuture)
            else None
        )
        if found and found[0].is_running() and (number := found[0].state_details.task_run_id):
            # yielded by a generator that still runs
            parents.add(TaskRunResult(id=number))
    if parents:
        out["__parents__"] = parents
    if wait_for:
        out["wait_for"] = set(collect_task_run_inputs_sync(wait_for))
    for name, more in (dependencies or {}).items():
        out[name] = out.get(name, set()) | more
    return out


def assets_of(task: Task[Any, Any], number: UUID, inputs: dict[str, set[Any]]) -> dict[str, Any] | None:
    """The asset context, where the task or what it depends on has assets."""
    flow = FlowRunContext.get()
    known = bool(flow and any(flow.task_run_assets.values()))
    if not task.asset_deps and not isinstance(task, MaterializingTask) and not known:
        return None
    found: dict[str, Any] = AssetContext.from_task_and_inputs(
        task=task, task_run_id=number, task_inputs=inputs, copy_to_child_ctx=True
    ).serialize()
    return found or None
