"""What the tasks of a run have in common travels once; each call names it by its digest."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import cloudpickle
from dask.base import is_dask_collection
from distributed import Future
from distributed.utils import sync
from prefect.client.schemas import TaskRun
from prefect.client.schemas.objects import State, StateDetails
from prefect.context import (
    AssetContext,
    FlowRunContext,
    SettingsContext,
    SyncClientContext,
    TagsContext,
    TaskRunContext,
    _deployment_id,
    _deployment_parameters,
    hydrated_context,
)
from prefect.futures import PrefectFuture
from prefect.logging.configuration import ensure_logging_setup
from prefect.settings import PREFECT_API_URL
from prefect.tasks import Task
from prefect.utilities.annotations import BaseAnnotation

from agent.errors import InfrastructureLostError
from agent.prefect_events.event import related
from agent.worker.chunks import item
from agent.worker.run_context import RunInfo, current_run

logger = logging.getLogger("orc.shipped")

#: where in the scheduler's metadata
PLACE = "orc-shipped"
#: kept in a worker process, and hydrated in each of its threads
KEPT = 64
#: types whose values hold no future
PLAIN = (int, float, str, bytes, bool, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What all task runs of one task in one flow run have in common."""

    task: Task[Any, Any]
    #: a task run of it, to be copied
    template: TaskRun
    #: Prefect's serialized context
    context: dict[str, Any]
    #: resources its events are related to; None: told in Prefect's own way
    related: Sequence[Mapping[str, str]] | None
    run: RunInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTaskRun:
    """A task run as its runner made it and told its Pending."""

    id: UUID
    dynamic_key: str
    inputs: dict[str, set[Any]]
    pending: UUID
    at: datetime
    #: the event that told it, as far as the next must know it
    told: Any
    assets: dict[str, Any] | None = None

    def run(self, template: TaskRun) -> TaskRun:
        """The task run, Pending."""
        assert template.state is not None
        state = template.state.model_copy(
            update={
                "id": self.pending,
                "timestamp": self.at,
                "state_details": StateDetails(task_run_id=self.id, flow_run_id=template.flow_run_id),
            }
        )
        return template.model_copy(
            update={
                "id": self.id,
                "name": f"{template.name}-{self.dynamic_key[:3]}" if template.flow_run_id else template.name,
                "dynamic_key": self.dynamic_key,
                "task_inputs": {name: list(values) for name, values in self.inputs.items()},
                "expected_start_time": self.at,
                "created": self.at,
                "updated": self.at,
                "state": state,
                "state_id": state.id,
                "labels": dict(template.labels),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """A task run that ended and is no longer in Dask: its state travels by value."""

    key: str
    state: State[Any]


# ---------------------------------------------------------------------- packing, in the flow's process
class _Packer(cloudpickle.Pickler):
    """Takes the futures out; Dask brings their results to the worker."""

    def __init__(self, file: io.BytesIO, found: list[Future | StoredResult]) -> None:
        super().__init__(file, protocol=5)
        self.found = found

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, PrefectFuture):
            future = getattr(obj, "wrapped_future", None)
            if isinstance(future, Future):
                return self._at(_alive(obj, future))
            chunk, at = getattr(obj, "chunk", None), getattr(obj, "at", 0)
            if chunk is not None:
                return (self._at(_alive(chunk, chunk.wrapped_future)), at)
        elif isinstance(obj, Future):
            return self._at(obj)
        elif is_dask_collection(obj):
            # the futures of a persisted collection stay where they are
            return cloudpickle.dumps(obj)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, BaseAnnotation):
            # a tuple of one, which unpickles as an annotated tuple otherwise
            return type(obj), (obj.unwrap(),)
        return super().reducer_override(obj)

    def _at(self, future: Future | StoredResult) -> int:
        self.found.append(future)
        return len(self.found) - 1


def _alive(future: Any, wrapped: Future) -> Future | StoredResult:
    """What Dask can still bring to a worker; where it was lost with its scheduler, the state that the flow's process has."""
    state = getattr(future, "_final_state", None)
    if state is not None and wrapped.status in ("cancelled", "lost"):
        return StoredResult(key=wrapped.key, state=state)
    return wrapped


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, found: Sequence[Any]) -> None:
        super().__init__(file)
        self.found = found

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, bytes):
            return pickle.loads(pid)
        return item(self.found[pid[0]], pid[1]) if isinstance(pid, tuple) else self.found[pid]


def pack(born: NewTaskRun, parameters: Mapping[str, Any], wait_for: Any) -> tuple[bytes, list[Future | StoredResult]]:
    """A call as bytes, and the Dask futures in it. Raises what pickling raises."""
    file, found = io.BytesIO(pickle.dumps(born, protocol=5)), list[Future | StoredResult]()
    file.seek(0, io.SEEK_END)
    if wait_for is None and all(type(value) in PLAIN for value in parameters.values()):
        # looking for futures costs more than all the rest of a submit
        pickle.dump((parameters, None), file, protocol=5)
    else:
        _Packer(file, found).dump((parameters, wait_for))
    return file.getvalue(), found


def packed(value: Any) -> bytes:
    """One parameter as bytes, as in a call. Raises what pickling raises."""
    file = io.BytesIO()
    _Packer(file, []).dump(value)
    return file.getvalue()


def digest(data: bytes) -> str:
    """Name of a shipment."""
    return hashlib.sha256(data).hexdigest()[:32]


# ---------------------------------------------------------------------- unpacking, on the worker
_shipments: OrderedDict[str, Payload] = OrderedDict()
#: what was said, and the settings it made
_last_settings: list[Any] = []
_lock = threading.Lock()


class _Thread(threading.local):
    """Of each worker thread: one Prefect client, and the contexts it has hydrated."""

    def __init__(self) -> None:
        self.clients: dict[str, SyncClientContext] = {}
        self.hydrated: OrderedDict[str, list[tuple[ContextVar[Any], Any]]] = OrderedDict()


_thread = _Thread()


def unpack(call: bytes, found: Sequence[Any]) -> tuple[NewTaskRun, dict[str, Any], Any]:
    """The task run, its parameters and `wait_for`, with results in place of futures."""
    file = io.BytesIO(call)
    born: NewTaskRun = pickle.load(file)
    parameters, wait_for = _Unpacker(file, found).load()
    return born, parameters, wait_for


def shipment(worker: Any, name: str) -> Payload:
    """The shipment of that digest, fetched once for a process. Raises InfrastructureLostError when the scheduler has lost it."""
    with _lock:
        if (known := _shipments.get(name)) is not None:
            _shipments.move_to_end(name)
            return known
    data = sync(worker.loop, worker.scheduler.get_metadata, keys=[PLACE, name], default=None)
    if data is None:
        raise InfrastructureLostError(f"the scheduler no longer has what task {name} needs: its flow has ended")
    made: Payload = pickle.loads(data)
    with _lock:
        _shipments[name] = made
        while len(_shipments) > KEPT:
            _shipments.popitem(last=False)
    return made


def _hydrate(name: str, shipped: Payload) -> list[tuple[ContextVar[Any], Any]]:
    """Prefect's context variables for the shipment, set up once for a thread."""
    if (known := _thread.hydrated.get(name)) is not None:
        return known
    before = copy_context()
    inside = before.copy()
    inside.run(_enter, shipped)
    found = [(var, value) for var, value in inside.items() if var not in before or before[var] is not value]
    _thread.hydrated[name] = found
    while len(_thread.hydrated) > KEPT:
        _thread.hydrated.popitem(last=False)
    return found


def _enter(shipped: Payload) -> None:
    """What `prefect.context.hydrated_context` does, but for leaving it: that is leaving the Context it was entered in."""
    said = shipped.context
    with hydrated_context(None):
        ensure_logging_setup()
    if said.get("settings_context"):
        SettingsContext.__var__.set(_settings(said["settings_context"]))
    url = PREFECT_API_URL.value() or ""
    if (client := _thread.clients.get(url)) is None:
        client = _thread.clients[url] = SyncClientContext()
        _open(client)
    SyncClientContext.__var__.set(client)
    if flow := said.get("flow_run_context"):
        context = FlowRunContext(**flow, client=client.client, task_runner=flow["flow"].task_runner, detached=True)
        FlowRunContext.__var__.set(context)
    if parent := said.get("task_run_context"):
        TaskRunContext.__var__.set(TaskRunContext(**parent, client=client.client))
    if tagged := said.get("tags_context"):
        TagsContext.__var__.set(TagsContext(current_tags=set(tagged["current_tags"])))
    if deployment := said.get("deployment_id"):
        _deployment_id.set(UUID(deployment))
    if parameters := said.get("deployment_parameters"):
        _deployment_parameters.set(parameters)


def _settings(said: Mapping[str, Any]) -> SettingsContext:
    """Of that content. Reading settings takes hundreds of ms, and most flow runs have those of the last."""
    with _lock:
        if _last_settings and _last_settings[0] == said:
            return _last_settings[1]
    made = SettingsContext(**said)
    with _lock:
        _last_settings[:] = [said, made]
    return made


def _open(client: SyncClientContext) -> None:
    """Enter it. A server that is away for a while fails no task: what bodies and engines tell it waits until it is back."""
    try:
        copy_context().run(client.__enter__)
    except RuntimeError as error:
        # the client itself is open by then; what failed is the check of the server's version
        if "Failed to reach API" not in str(error):
            raise
        logger.warning("%s; tasks run, and what they tell it waits", error)


@contextmanager
def at_home(name: str, shipped: Payload, assets: Mapping[str, Any] | None) -> Iterator[None]:
    """The context of a task run: as in its flow, with a task runner of its own. To be entered in a copied Context."""
    for var, value in _hydrate(name, shipped):
        var.set(value)
    related.set(shipped.related)
    current_run.set(shipped.run)
    with ExitStack() as stack:
        flow = FlowRunContext.get()
        if flow is not None:
            runner = stack.enter_context(flow.task_runner.duplicate())
            fresh = flow.model_copy(
                update={"task_runner": runner, "run_results": {}, "task_run_dynamic_keys": {}, "task_run_assets": {}}
            )
            stack.enter_context(fresh)
        if assets is not None:
            stack.enter_context(AssetContext(**assets))
        yield
