"""The event of a new task run. Most of it is the same for all runs of a task, and is made once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas import TaskRun
from prefect.events.related import related_resources_from_run_context

from agent.worker.payload import NewTaskRun


def completed_pending(shared: Mapping[str, Any], template: TaskRun, run: NewTaskRun) -> dict[str, Any]:
    """The Pending event of a task run, from the one that all of its task share."""
    when = run.at.isoformat()
    name = f"{template.name}-{run.dynamic_key[:3]}" if template.flow_run_id else template.name
    payload = shared["payload"]
    of_run = {
        **payload["task_run"],
        "name": name,
        "dynamic_key": run.dynamic_key,
        "expected_start_time": when,
        "task_inputs": {
            key: [each.model_dump(mode="json") for each in values] if values else []
            for key, values in run.inputs.items()
        },
    }
    resource = {
        **shared["resource"],
        "prefect.resource.id": f"prefect.task-run.{run.id}",
        "prefect.resource.name": name,
        "prefect.state-timestamp": when,
    }
    more = {"payload": {**payload, "task_run": of_run}, "resource": resource}
    return {**shared, "id": str(run.pending), "occurred": when, **more}


async def related_resources() -> list[dict[str, str]]:
    """Resources that each event of the present flow run names."""
    async with get_client() as client:
        return [each.model_dump() for each in await related_resources_from_run_context(client)]
