"""What a state change of a task run looks like to the Prefect server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson
from prefect._internal.result_records import ResultRecord
from prefect.client.schemas import TaskRun
from prefect.client.schemas.objects import State
from prefect.results import should_persist_result

_MESSAGE = 100_000

#: resources that the flow run's events are related to, as its runner found them; None: Prefect's own way
related: ContextVar[Sequence[Mapping[str, str]] | None] = ContextVar("orc_related", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmittedEvent:
    """A state change that was told; the next one follows it. Has what Prefect reads of an event."""

    id: UUID
    occurred: datetime


class EventSink(Protocol):
    """Takes events."""

    def emit(self, event: Mapping[str, Any]) -> None:
        """Take one."""


class EventList:
    """Keeps events, as JSON."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def emit(self, event: Mapping[str, Any]) -> None:
        """See `EventSink`."""
        self.events.append(orjson.dumps(event, default=str))


def emit_to(
    queue: EventSink,
    about: Sequence[Mapping[str, str]],
    task_run: TaskRun,
    before: State[Any] | None,
    state: State[Any],
    follows: Any = None,
) -> EmittedEvent:
    """The event of a state change, related to those resources, into a queue."""
    data = None
    if isinstance(state.data, ResultRecord) and should_persist_result():
        data = state.data.metadata.model_dump(mode="json")
    known = {each["prefect.resource.id"] for each in about}
    tags = [f"prefect.tag.{tag}" for tag in sorted(task_run.tags)]
    at = state.timestamp.isoformat()
    message = (state.message or "")[:_MESSAGE] or state.message
    event: dict[str, Any] = {
        "id": str(state.id),
        "occurred": at,
        "event": f"prefect.task-run.{state.name}",
        "payload": {
            "intended": {"from": before.type.value if before else None, "to": state.type.value},
            "initial_state": {
                "type": before.type.value,
                "name": before.name,
                "message": (before.message or "")[:_MESSAGE] or before.message,
                "state_details": _details(before),
            }
            if before
            else None,
            "validated_state": {
                "type": state.type.value,
                "name": state.name,
                "message": message,
                "state_details": _details(state),
                "data": data,
            },
            "task_run": task_run.model_dump(mode="json", exclude_none=True, exclude=_NOT_TOLD),
        },
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{task_run.id}",
            "prefect.resource.name": task_run.name,
            "prefect.run-count": str(task_run.run_count),
            "prefect.state-message": message or "",
            "prefect.state-name": state.name or "",
            "prefect.state-timestamp": at,
            "prefect.state-type": state.type.value,
            "prefect.orchestration": "client",
        },
        "related": [
            *({"prefect.resource.id": tag, "prefect.resource.role": "tag"} for tag in tags if tag not in known),
            *about,
        ],
    }
    if follows is not None and abs((state.timestamp - follows.occurred).total_seconds()) < 300:
        event["follows"] = str(follows.id)
    queue.emit(event)
    return EmittedEvent(id=state.id, occurred=state.timestamp)


_NOT_TOLD = {
    "id",
    "created",
    "updated",
    "flow_run_id",
    "state_id",
    "state_type",
    "state_name",
    "state",
    "estimated_start_time_delta",
    "estimated_run_time",
}


def _details(state: State[Any]) -> dict[str, Any]:
    said: dict[str, Any] = state.state_details.model_dump(
        mode="json", exclude_none=True, exclude_unset=True, exclude={"flow_run_id", "task_run_id"}
    )
    return said
