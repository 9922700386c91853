"""What goes with a task to the scheduler: needs of the flow, the task and the call, and the run it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.tasks import Task

from agent.model.needs import merged
from agent.runner.declared_needs import needs_of, overrides
from agent.runner.flow_run import fingerprint
from agent.scheduler import protocol
from agent.worker.run_context import RunInfo


class Annotations:
    """Of one task runner: one object for each distinct content, so that it travels once."""

    def __init__(self) -> None:
        self._specs: dict[str, dict[str, Any]] = {}
        #: (task, what is said around the call) → its annotation, without a fingerprint
        self._quick: dict[tuple[int, int], tuple[Any, Any, dict[str, Any]]] = {}

    def of(
        self, task: Task[Any, Any], run: RunInfo, mode: str, batched: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The annotation of a task's next submit.

        Args:
            batched: of a chunk, how large it is and why.
        """
        if mode == "ungoverned":
            return {protocol.MODE: "off"}
        around = overrides()
        quick = (id(task), id(around))
        if batched is None and (known := self._quick.get(quick)) is not None and known[1] is around:
            return known[2]
        fields = fields_of(task, run)
        fields.pop("deadline_ms", None)
        needs = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        body = {
            protocol.NEEDS: needs,
            protocol.RUN: run.travels(),
            protocol.NAME: task.name,
            "task_class": task.task_key,
            protocol.MODE: mode,
        }
        if batched is not None:
            # a chunk takes as long as its items together: a class of its own
            body |= {"task_class": task.task_key + protocol.CHUNKS, protocol.BATCH: dict(batched)}
        spec = fingerprint(body)
        annotation = self._specs.setdefault(spec, {protocol.SPEC: spec, **body})
        if batched is None:
            self._quick[quick] = (task, around, annotation)
        return annotation


def fields_of(task: Task[Any, Any], run: RunInfo) -> dict[str, Any]:
    """Needs of a task's next submit: the flow's, the task's own, and what is said around the call."""
    return dict(merged(run.defaults, needs_of(task), overrides()))
