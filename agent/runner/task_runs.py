"""Task runs made in the flow's process: Pending is told here, and what they share is sent once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import cloudpickle
import orjson
from distributed import Future
from prefect._internal.uuid7 import uuid7
from prefect.client.schemas.objects import State
from prefect.context import (
    EngineContext,
    FlowRunContext,
    SettingsContext,
    TagsContext,
    TaskRunContext,
    serialize_context,
)
from prefect.logging import get_logger
from prefect.results import should_persist_result
from prefect.settings.context import get_current_settings
from prefect.task_engine import _create_task_run_locally
from prefect.tasks import Task
from prefect.utilities.asyncutils import run_coro_as_sync

from agent.errors import TaskError
from agent.prefect_events.event import EmittedEvent, EventList, emit_to, related
from agent.prefect_events.queue import current_queue, emit
from agent.runner.credentials import Credentials
from agent.runner.pending_events import completed_pending, related_resources
from agent.runner.task_inputs import assets_of, inputs_of
from agent.worker.credentials import Withheld
from agent.worker.flow_modules import MOST, FlowModules, beside, current_modules
from agent.worker.payload import Envelope, NewTaskRun, Payload, StoredResult, call_of, digest, pack, packed_alone
from agent.worker.run_context import RunInfo, current_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What the task runs of one task in a run share, as the flow's process holds it."""

    payload: Payload
    name: str
    #: whether results outlive the workers
    persisted: bool
    #: its Pending event, to be completed for each task run
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTaskRun:
    """A task run that is ready to be sent."""

    key: str
    common: Common
    #: the task as it was at its submit, pickled, or the name of that in the scheduler
    code: str | bytes
    run: NewTaskRun
    #: what it is called with; the task run before it, once that is told
    call: bytes
    found: Sequence[Future | StoredResult]

    def without_futures(self) -> PreparedTaskRun:
        """The same, holding nothing on the cluster."""
        return replace(self, found=())

    def without_call(self) -> PreparedTaskRun:
        """The same, holding neither that nor its code and parameters."""
        return replace(self, found=(), call=b"", code=b"")


class TaskRunFactory:
    """Makes task runs for one task runner.

    Args:
        put: puts bytes into the scheduler under a name.
    """

    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self._put = put
        #: two runs that put the same must not take it from each other
        self._prefix = uuid4().hex[:8]
        self.credentials = Credentials()
        self._context: tuple[dict[str, Any], Withheld | None] | None = None
        self._related: list[dict[str, str]] | None = None
        self._asked = False
        self._commons: dict[Any, tuple[Task[Any, Any], Common]] = {}
        #: tasks whose code was put into the scheduler, by id
        self._shipped_tasks: dict[int, Task[Any, Any]] = {}
        self._modules: FlowModules | None = None
        self._looked_beside = False
        #: what was put into the scheduler
        self.shipped: dict[str, bytes] = {}
        #: state changes told
        self.emitted = 0

    # ------------------------------------------------------------------ task runs
    def prepare(
        self,
        task: Task[Any, Any],
        run: RunInfo | None,
        parameters: Mapping[str, Any],
        wait_for: Any,
        dependencies: Mapping[str, set[Any]] | None,
        code: str | bytes | None = None,
    ) -> PreparedTaskRun:
        """Make a task run; nobody is told of it yet. Raises TaskError where it cannot be pickled.

        Args:
            code: what `code` has answered for the task in this call.
        """
        common = self._common(task, run)
        code = self.code(task) if code is None else code
        inputs = inputs_of(parameters, wait_for, dependencies, common.payload.template)
        try:
            packed, found = pack(dict(parameters), wait_for)
        except Exception as error:  # whatever a user's object raises while it is pickled
            raise _unpicklable(task, parameters, error) from error
        number, dynamic_key = uuid4(), str(uuid4())
        made = NewTaskRun(
            id=number, dynamic_key=dynamic_key, inputs=inputs, pending=uuid7(), at=datetime.now(UTC),
            assets=assets_of(task, number, inputs),
        )  # fmt: skip
        key = f"{task.name}-{number.hex}"
        return PreparedTaskRun(key=key, common=common, code=code, run=made, call=packed, found=found)

    def announce(self, prepared: PreparedTaskRun) -> PreparedTaskRun:
        """Tell its Pending; the task run as it travels."""
        run = replace(prepared.run, emitted=self._emit_pending(prepared.common, prepared.run))
        self.emitted += 1
        return replace(prepared, run=run, call=call_of(run, prepared.call))

    def emit_state(self, prepared: PreparedTaskRun, state: State[Any]) -> None:
        """Tell a state of a task run that no worker can tell: its end, or why it waits."""
        token = related.set(prepared.common.payload.related)
        try:
            run = prepared.run.run(prepared.common.payload.template)
            before = run.state
            run.state, run.state_id, run.state_type, run.state_name = state, state.id, state.type, state.name
            if state.is_final():
                run.end_time = cast(Any, state.timestamp)
            state.state_details.task_run_id, state.state_details.flow_run_id = run.id, run.flow_run_id
            emit(run, before, state, prepared.run.emitted)
            self.emitted += 1
        finally:
            related.reset(token)

    def code(self, task: Task[Any, Any]) -> str | bytes:
        """The task as it is now, for its worker: the name of what was put; where it has changed since, itself.

        Its function travels with the globals it uses, and those may change from submit to submit.
        """
        try:
            data = cloudpickle.dumps(task)
        except Exception as error:  # whatever a user's object raises while it is pickled
            raise TaskError(f"task {task.name!r} cannot be sent to a worker: it cannot be pickled ({error})") from error
        name = self._name(data)
        if name in self.shipped:
            return name
        if id(task) in self._shipped_tasks:
            # what changes from call to call would stay in the scheduler for as long as the flow runs
            return data
        self._shipped_tasks[id(task)] = task
        self._ship(name, data)
        return name

    # ------------------------------------------------------------------ what is shared
    def _name(self, data: bytes) -> str:
        return f"{self._prefix}-{digest(data)}"

    def _ship(self, name: str, data: bytes) -> str:
        self._put(name, data)
        self.shipped[name] = data
        return name

    def _common(self, task: Task[Any, Any], run: RunInfo | None) -> Common:
        tags, parent = TagsContext.get(), TaskRunContext.get()
        key = (id(task), frozenset(tags.current_tags) if tags else None, parent.task_run.id if parent else None)
        if (known := self._commons.get(key)) is None:
            # with the task, whose id is not given to another one meanwhile
            known = self._commons[key] = task, self._make(task, run)
        return known[1]

    def _make(self, task: Task[Any, Any], run: RunInfo | None) -> Common:
        flow, parent, tags = FlowRunContext.get(), TaskRunContext.get(), TagsContext.get()
        template = _create_task_run_locally(
            task=task, id=uuid4(), parameters={}, flow_run_context=flow, parent_task_run_context=parent
        )
        template.name = task.name
        context, withheld = self._serialized()
        context = {
            **context,
            "tags_context": tags.serialize() if tags else {},
            "task_run_context": parent.serialize() if parent else {},
            "asset_context": {},
        }
        about = self._about()
        payload = Payload(template=template, context=context, withheld=withheld, related=about, run=run)
        try:
            packed = cloudpickle.dumps(payload)
        except Exception as error:  # whatever a user's object raises while it is pickled
            raise TaskError(
                f"task {task.name!r} cannot be sent to a worker: the flow it belongs to cannot be pickled ({error})"
            ) from error
        data = cloudpickle.dumps(Envelope(payload=packed, modules=self._beside()))
        event: dict[str, Any] = {}
        if about is not None:
            assert template.state is not None
            probe = EventList()
            emit_to(probe, about, template, None, template.state)
            event = orjson.loads(probe.events[0])
        name = self._ship(self._name(data), data)
        return Common(payload=payload, name=name, persisted=_persisted(task), event=event)

    def _beside(self) -> FlowModules | None:
        """What lies beside the flow's script, put into the scheduler.

        For a task below a task, what lies beside that.
        """
        if (known := current_modules.get()) is not None or current_run.get() is not None:
            return known
        flow = FlowRunContext.get()
        code = getattr(getattr(flow.flow, "fn", None), "__code__", None) if flow is not None else None
        if self._looked_beside or code is None:
            return self._modules
        self._looked_beside = True
        sources = beside(code.co_filename)
        if sources.too_large:
            get_logger("orc").warning(
                "what lies beside %s is more than %s MiB and does not travel to the workers: install it there, or "
                "start them with PYTHONPATH",
                code.co_filename,
                MOST >> 20,
            )
        if sources.files:
            data = sources.packed()
            name = self._ship(self._name(data), data)
            self._modules = FlowModules(digest=digest(data), name=name, tops=sources.tops)
        return self._modules

    def _serialized(self) -> tuple[dict[str, Any], Withheld | None]:
        """Prefect's context. Dumping the settings takes most of a submit's time, so it is done once for a flow run."""
        if EngineContext.get() is None or SettingsContext.get() is None:
            return self.credentials.withhold(serialize_context())
        if self._context is None:
            self._context = self.credentials.withhold(serialize_context())
        return self._context

    def _about(self) -> list[dict[str, str]] | None:
        """Resources that each event of the flow run names; asked for once."""
        if not self._asked:
            self._asked = True
            known, here, flow = related.get(), current_run.get(), FlowRunContext.get()
            run = flow.flow_run if flow is not None else None
            same = here is not None and run is not None and str(run.id) == here.flow_run
            if known is not None and same:
                self._related = [dict(each) for each in known]
            elif current_queue() is not None:
                context = copy_context()
                context.run(TaskRunContext.__var__.set, cast(Any, None))
                self._related = context.run(run_coro_as_sync, related_resources())
        return self._related

    @staticmethod
    def _emit_pending(common: Common, run: NewTaskRun) -> Any:
        """Tell Pending, by completing the event that the task runs share."""
        queue = current_queue() if common.event else None
        if queue is None:
            task_run = run.run(common.payload.template)
            assert task_run.state is not None
            return emit(task_run, None, task_run.state)
        queue.emit(completed_pending(common.event, common.payload.template, run))
        return EmittedEvent(id=run.pending, occurred=run.at)


def _persisted(task: Task[Any, Any]) -> bool:
    """Whether its results are written to storage, as Prefect's engine decides it."""
    if task.persist_result is not None:
        return bool(task.persist_result)
    default = get_current_settings().tasks.default_persist_result
    return bool(default) if default is not None else should_persist_result()


def _unpicklable(task: Task[Any, Any], parameters: Mapping[str, Any], error: Exception) -> TaskError:
    """Names the parameter."""
    for name, value in parameters.items():
        try:
            packed_alone(value)
        except Exception:  # the one that is looked for
            return TaskError(
                f"task {task.name!r} cannot be sent to a worker: parameter {name!r} ({type(value).__name__}) "
                f"cannot be pickled ({error})"
            )
    return TaskError(f"task {task.name!r} cannot be sent to a worker: it cannot be pickled ({error})")
