"""Task runs made in the flow's process: Pending is told here, and what they share is sent once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import cloudpickle
import orjson
from distributed import Future
from prefect._internal.uuid7 import uuid7
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRunResult
from prefect.context import (
    AssetContext,
    EngineContext,
    FlowRunContext,
    SettingsContext,
    TagsContext,
    TaskRunContext,
    serialize_context,
)
from prefect.events.related import related_resources_from_run_context
from prefect.futures import PrefectFuture
from prefect.results import should_persist_result
from prefect.settings.context import get_current_settings
from prefect.task_engine import _create_task_run_locally
from prefect.tasks import MaterializingTask, Task
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.engine import collect_task_run_inputs_sync, get_state_for_result

from agent.errors import TaskError
from agent.prefect_events.event import EmittedEvent, EventList, emit_to, related
from agent.prefect_events.queue import current_queue, emit
from agent.worker.payload import PLAIN, NewTaskRun, Payload, StoredResult, digest, pack, packed
from agent.worker.run_context import RunInfo, current_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What the task runs of one task in a run share, as the flow's process holds it."""

    shipment: Payload
    #: its name in the scheduler, and what is there
    digest: str
    data: bytes
    #: whether results outlive the workers
    persisted: bool
    #: its Pending event, to be completed for each task run
    event: Mapping[str, Any]
    payload: Mapping[str, Any]
    resource: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A task run that is ready to be sent."""

    key: str
    common: Common
    born: NewTaskRun
    call: bytes
    found: Sequence[Future | StoredResult]

    def without_futures(self) -> Prepared:
        """The same, holding nothing on the cluster."""
        return Prepared(key=self.key, common=self.common, born=self.born, call=self.call, found=())

    def without_call(self) -> Prepared:
        """The same, holding neither that nor its parameters."""
        return Prepared(key=self.key, common=self.common, born=self.born, call=b"", found=())


class TaskRunFactory:
    """Makes task runs for one task runner."""

    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self._put = put
        self._context: dict[str, Any] | None = None
        self._related: list[dict[str, str]] | None = None
        self._asked = False
        self._commons: dict[Any, Common] = {}
        #: keeps the ids of tasks from being given to others
        self._tasks: list[Task[Any, Any]] = []
        #: what was put into the scheduler
        self.shipped: dict[str, bytes] = {}
        #: state changes told
        self.emitted = 0

    def prepare(
        self,
        task: Task[Any, Any],
        run: RunInfo | None,
        parameters: Mapping[str, Any],
        wait_for: Any,
        dependencies: Mapping[str, set[Any]] | None,
    ) -> Prepared:
        """Make the task run and tell its Pending. Raises TaskError where it cannot be pickled."""
        common = self._common(task, run)
        inputs = _inputs(parameters, wait_for, dependencies, common)
        number, dynamic_key, at = uuid4(), str(uuid4()), datetime.now(UTC)
        pending = uuid7()
        told = self._emit_pending(common, number, dynamic_key, inputs, pending, at)
        self.emitted += 1
        born = NewTaskRun(
            id=number, dynamic_key=dynamic_key, inputs=inputs, pending=pending, at=at, told=told, assets=_assets(task, number, inputs)
        )  # fmt: skip
        try:
            call, found = pack(born, dict(parameters), wait_for)
        except Exception as error:  # whatever a user's object raises while it is pickled
            raise _unpicklable(task, parameters, error) from error
        return Prepared(key=f"{task.name}-{number.hex}", common=common, born=born, call=call, found=found)

    def state(self, common: Common, born: NewTaskRun, state: State[Any]) -> None:
        """Tell a state of a task run that no worker can tell: its end, or why it waits."""
        token = related.set(common.shipment.related)
        try:
            run = born.run(common.shipment.template)
            before = run.state
            run.state, run.state_id, run.state_type, run.state_name = state, state.id, state.type, state.name
            if state.is_final():
                run.end_time = cast(Any, state.timestamp)
            state.state_details.task_run_id, state.state_details.flow_run_id = run.id, run.flow_run_id
            emit(run, before, state, born.told)
            self.emitted += 1
        finally:
            related.reset(token)

    # ------------------------------------------------------------------ what is shared
    def _common(self, task: Task[Any, Any], run: RunInfo | None) -> Common:
        tags, parent = TagsContext.get(), TaskRunContext.get()
        key = (id(task), frozenset(tags.current_tags) if tags else None, parent.task_run.id if parent else None)
        common = self._commons.get(key)
        if common is None:
            common = self._commons[key] = self._make(task, run)
            self._tasks.append(task)
        return common

    def _make(self, task: Task[Any, Any], run: RunInfo | None) -> Common:
        flow, parent, tags = FlowRunContext.get(), TaskRunContext.get(), TagsContext.get()
        template = _create_task_run_locally(
            task=task, id=uuid4(), parameters={}, flow_run_context=flow, parent_task_run_context=parent
        )
        template.name = task.name
        context = {
            **self._serialized(),
            "tags_context": tags.serialize() if tags else {},
            "task_run_context": parent.serialize() if parent else {},
            "asset_context": {},
        }
        about = self._about()
        shipment = Payload(task=task, template=template, context=context, related=about, run=run)
        try:
            data = cloudpickle.dumps(shipment)
        except Exception as error:  # whatever a user's object raises while it is pickled
            raise TaskError(
                f"task {task.name!r} cannot be sent to a worker: it, or the flow it belongs to, cannot be pickled ({error})"
            ) from error
        name = digest(data)
        self._put(name, data)
        self.shipped[name] = data
        event: dict[str, Any] = {}
        if about is not None:
            assert template.state is not None
            probe = EventList()
            emit_to(probe, about, template, None, template.state)
            event = orjson.loads(probe.events[0])
        return Common(
            shipment=shipment,
            digest=name,
            data=data,
            persisted=_persisted(task),
            event=event,
            payload=event.get("payload", {}),
            resource=event.get("resource", {}),
        )

    def _serialized(self) -> dict[str, Any]:
        """Prefect's context. Dumping the settings takes most of a submit's time, so it is done once for a flow run."""
        if EngineContext.get() is None or SettingsContext.get() is None:
            return serialize_context()
        if self._context is None:
            self._context = serialize_context()
        return self._context

    def _about(self) -> list[dict[str, str]] | None:
        """Resources that each event of the flow run names; asked for once."""
        if not self._asked:
            self._asked = True
            known, here, flow = related.get(), current_run.get(), FlowRunContext.get()
            same = (
                here is not None
                and flow is not None
                and flow.flow_run is not None
                and str(flow.flow_run.id) == here.flow_run
            )
            if known is not None and same:
                self._related = [dict(each) for each in known]
            elif current_queue() is not None:
                context = copy_context()
                context.run(TaskRunContext.__var__.set, cast(Any, None))
                self._related = context.run(run_coro_as_sync, _resources())
        return self._related

    def _emit_pending(
        self, common: Common, number: UUID, dynamic_key: str, inputs: Mapping[str, set[Any]], pending: UUID, at: datetime
    ) -> Any:  # fmt: skip
        """Tell Pending, by completing the event that the task runs share."""
        queue = current_queue() if common.event else None
        if queue is None:
            run = NewTaskRun(
                id=number, dynamic_key=dynamic_key, inputs=dict(inputs), pending=pending, at=at, told=None
            ).run(common.shipment.template)
            assert run.state is not None
            return emit(run, None, run.state)
        template, when = common.shipment.template, at.isoformat()
        name = f"{template.name}-{dynamic_key[:3]}" if template.flow_run_id else template.name
        run_said = {
            **common.payload["task_run"],
            "name": name,
            "dynamic_key": dynamic_key,
            "expected_start_time": when,
            "task_inputs": {
                key: [each.model_dump(mode="json") for each in values] if values else []
                for key, values in inputs.items()
            },
        }
        resource = {
            **common.resource,
            "prefect.resource.id": f"prefect.task-run.{number}",
            "prefect.resource.name": name,
            "prefect.state-timestamp": when,
        }
        queue.emit(
            {
                **common.event,
                "id": str(pending),
                "occurred": when,
                "payload": {**common.payload, "task_run": run_said},
                "resource": resource,
            }
        )
        return EmittedEvent(id=pending, occurred=at)


def _persisted(task: Task[Any, Any]) -> bool:
    """Whether its results are written to storage, as Prefect's engine decides it."""
    if task.persist_result is not None:
        return bool(task.persist_result)
    default = get_current_settings().tasks.default_persist_result
    return bool(default) if default is not None else should_persist_result()


async def _resources() -> list[dict[str, str]]:
    async with get_client() as client:
        return [each.model_dump() for each in await related_resources_from_run_context(client)]


def _inputs(
    parameters: Mapping[str, Any], wait_for: Any, dependencies: Mapping[str, set[Any]] | None, common: Common
) -> dict[str, set[Any]]:
    """Upstream task runs of each parameter, as `_create_task_run_locally` finds them."""
    flow = FlowRunContext.get()
    tracked = bool(flow is not None and flow.run_results)
    out: dict[str, set[Any]] = {}
    parents = set(common.shipment.template.task_inputs.get("__parents__", ()))
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


def _assets(task: Task[Any, Any], number: UUID, inputs: dict[str, set[Any]]) -> dict[str, Any] | None:
    """The asset context, where the task or what it depends on has assets."""
    flow = FlowRunContext.get()
    if (
        not task.asset_deps
        and not isinstance(task, MaterializingTask)
        and not (flow and any(flow.task_run_assets.values()))
    ):
        return None  # fmt: skip
    found: dict[str, Any] = AssetContext.from_task_and_inputs(
        task=task, task_run_id=number, task_inputs=inputs, copy_to_child_ctx=True
    ).serialize()
    return found or None


def _unpicklable(task: Task[Any, Any], parameters: Mapping[str, Any], error: Exception) -> TaskError:
    """Names the parameter."""
    for name, value in parameters.items():
        try:
            packed(value)
        except Exception:  # the one that is looked for
            return TaskError(
                f"task {task.name!r} cannot be sent to a worker: parameter {name!r} ({type(value).__name__}) cannot be pickled ({error})"
            )
    return TaskError(f"task {task.name!r} cannot be sent to a worker: it cannot be pickled ({error})")
