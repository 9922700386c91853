"""How a task run travels: what it has in common with others once, under a name; its code and its call with itself."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import cloudpickle
from dask.base import is_dask_collection
from distributed import Future
from prefect.client.schemas import TaskRun
from prefect.client.schemas.objects import State, StateDetails
from prefect.futures import PrefectFuture
from prefect.utilities.annotations import BaseAnnotation

from agent.worker.chunks import PLAIN, item
from agent.worker.credentials import Withheld
from agent.worker.flow_modules import FlowModules
from agent.worker.run_context import RunInfo

#: where in the scheduler's metadata
PLACE = "orc-payloads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What all task runs of one task in one flow run have in common, but for the task's own code."""

    #: a task run of it, to be copied
    template: TaskRun
    #: Prefect's serialized context, without credentials
    context: dict[str, Any]
    #: what is filled into its settings on the worker
    withheld: Withheld | None
    #: resources its events are related to; None: told in Prefect's own way
    related: Sequence[Mapping[str, str]] | None
    run: RunInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A payload as it lies in the scheduler: what reads it may need the modules first."""

    payload: bytes
    modules: FlowModules | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTaskRun:
    """A task run as its runner made it and told its Pending."""

    id: UUID
    dynamic_key: str
    inputs: dict[str, set[Any]]
    pending: UUID
    at: datetime
    #: the event that told it, as far as the next must know it; None: not told yet
    emitted: Any = None
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
    """What Dask can still bring to a worker; where it was lost with its scheduler, the state of the flow's process."""
    state = getattr(future, "_final_state", None)
    if state is not None and wrapped.status in ("cancelled", "lost"):
        return StoredResult(key=wrapped.key, state=state)
    return wrapped


def pack(parameters: Mapping[str, Any], wait_for: Any) -> tuple[bytes, list[Future | StoredResult]]:
    """What a task run is called with as bytes, and the Dask futures in it. Raises what pickling raises."""
    if wait_for is None and all(type(value) in PLAIN for value in parameters.values()):
        # looking for futures costs more than all the rest of a submit
        return pickle.dumps((parameters, None), protocol=5), []
    file, found = io.BytesIO(), list[Future | StoredResult]()
    _Packer(file, found).dump((parameters, wait_for))
    return file.getvalue(), found


def call_of(run: NewTaskRun, packed: bytes) -> bytes:
    """The task run before what it is called with."""
    return pickle.dumps(run, protocol=5) + packed


def packed_alone(value: Any) -> bytes:
    """One parameter as bytes, as in a call. Raises what pickling raises."""
    file = io.BytesIO()
    _Packer(file, []).dump(value)
    return file.getvalue()


def digest(data: bytes) -> str:
    """Name of what has this content."""
    return hashlib.sha256(data).hexdigest()[:32]


# ---------------------------------------------------------------------- unpacking, on the worker
class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, found: Sequence[Any]) -> None:
        super().__init__(file)
        self.found = found

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, bytes):
            return pickle.loads(pid)
        return item(self.found[pid[0]], pid[1]) if isinstance(pid, tuple) else self.found[pid]


def unpack(call: bytes, found: Sequence[Any]) -> tuple[NewTaskRun, dict[str, Any], Any]:
    """The task run, its parameters and `wait_for`, with results in place of futures."""
    file = io.BytesIO(call)
    run: NewTaskRun = pickle.load(file)
    parameters, wait_for = _Unpacker(file, found).load()
    return run, parameters, wait_for
