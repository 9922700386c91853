"""What a task run finds on its worker: its payload and code, fetched once, and Prefect's context as in its flow."""

from __future__ import annotations

import logging
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

from distributed import get_worker
from distributed.utils import sync
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
from prefect.logging.configuration import ensure_logging_setup
from prefect.settings import PREFECT_API_URL
from prefect.tasks import Task

from agent.errors import InfrastructureLostError
from agent.prefect_events.event import related
from agent.worker import credentials, flow_modules
from agent.worker.flow_modules import FlowModules, current_modules
from agent.worker.payload import PLACE, Envelope, Payload
from agent.worker.run_context import current_run

logger = logging.getLogger("orc.hydration")

#: payloads kept in a worker process, and hydrated in each of its threads; codes of tasks
KEPT, CODES = 64, 512

T = TypeVar("T")


class Recent(Generic[T]):
    """The values used last, by name."""

    def __init__(self, most: int) -> None:
        self._most, self._values = most, OrderedDict[str, T]()

    def get(self, name: str) -> T | None:
        """The value of a name, where it is kept."""
        if (known := self._values.get(name)) is not None:
            self._values.move_to_end(name)
        return known

    def keep(self, name: str, value: T) -> None:
        """Keep it, in place of the one that was not used for longest."""
        self._values[name] = value
        while len(self._values) > self._most:
            self._values.popitem(last=False)


_payloads: Recent[tuple[Payload, FlowModules | None]] = Recent(KEPT)
_codes: Recent[bytes] = Recent(CODES)
#: what was said, and the settings it made
_last_settings: list[Any] = []
_lock = threading.Lock()


class _Thread(threading.local):
    """Of each worker thread: one Prefect client, and the contexts it has hydrated."""

    def __init__(self) -> None:
        self.clients: dict[str, SyncClientContext] = {}
        self.hydrated: Recent[list[tuple[ContextVar[Any], Any]]] = Recent(KEPT)


_thread = _Thread()


def load(worker: Any, name: str, code: str | bytes) -> tuple[Payload, Task[Any, Any], FlowModules | None]:
    """The payload of that name, and the task, made anew: no run of it sees what another left in its globals.

    Args:
        code: the task, pickled, or the name of that.

    Raises:
        InfrastructureLostError: the scheduler has lost it.
        TaskError: a module that the task needs is not here.
    """
    with _lock:
        known, data = _payloads.get(name), code if isinstance(code, bytes) else _codes.get(code)
    if data is None:
        data = _fetched(worker, str(code))
        with _lock:
            _codes.keep(str(code), data)
    if known is None:
        envelope: Envelope = pickle.loads(_fetched(worker, name))
        modules = envelope.modules
    else:
        modules = known[1]
    # unpickling imports: while it does, the modules of another flow must not take their place
    with flow_modules.lock:
        flow_modules.provide(modules, partial(_fetch, worker), Path(worker.local_directory))
        try:
            if known is None:
                known = pickle.loads(envelope.payload), modules
            task: Task[Any, Any] = pickle.loads(data)
        except ModuleNotFoundError as error:
            raise flow_modules.lacking(error, str(worker.get_current_task()).rpartition("-")[0]) from error
    with _lock:
        _payloads.keep(name, known)
    return known[0], task, modules


def _fetched(worker: Any, name: str) -> bytes:
    if (data := _fetch(worker, name)) is None:
        raise InfrastructureLostError(f"the scheduler no longer has what task {name} needs: its flow has ended")
    return data


def _fetch(worker: Any, name: str) -> bytes | None:
    found: bytes | None = sync(worker.loop, worker.scheduler.get_metadata, keys=[PLACE, name], default=None)
    return found


def _hydrate(name: str, payload: Payload) -> list[tuple[ContextVar[Any], Any]]:
    """Prefect's context variables for the payload, set up once for a thread."""
    if (known := _thread.hydrated.get(name)) is not None:
        return known
    before = copy_context()
    inside = before.copy()
    inside.run(_enter, payload)
    found = [(var, value) for var, value in inside.items() if var not in before or before[var] is not value]
    _thread.hydrated.keep(name, found)
    return found


def _enter(payload: Payload) -> None:
    """What `prefect.context.hydrated_context` does, but for leaving it.

    That is leaving the Context it was entered in.
    """
    said = payload.context
    with hydrated_context(None):
        ensure_logging_setup()
    if said.get("settings_context"):
        full = credentials.filled(said["settings_context"], payload.withheld, get_worker())
        SettingsContext.__var__.set(_settings(full))
    url = PREFECT_API_URL.value() or ""
    if (client := _thread.clients.get(url)) is None:
        client = _thread.clients[url] = SyncClientContext()
        open_client(client)
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
    """Prefect's settings of that content.

    Reading them takes hundreds of ms, and most flow runs have those of the last.
    """
    with _lock:
        if _last_settings and _last_settings[0] == said:
            return _last_settings[1]
    made = SettingsContext(**said)
    with _lock:
        _last_settings[:] = [said, made]
    return made


def open_client(client: SyncClientContext) -> None:
    """Enter it.

    A server that is away for a while fails no task: what bodies and engines tell it waits until it is back.
    """
    try:
        copy_context().run(client.__enter__)
    except RuntimeError as error:
        # the client itself is open by then; what failed is the check of the server's version
        if "Failed to reach API" not in str(error):
            raise
        logger.warning("%s; tasks run, and what they tell it waits", error)


@contextmanager
def at_home(
    name: str, payload: Payload, modules: FlowModules | None, assets: Mapping[str, Any] | None
) -> Iterator[None]:
    """The context of a task run: as in its flow, with a task runner of its own. To be entered in a copied Context."""
    for var, value in _hydrate(name, payload):
        var.set(value)
    related.set(payload.related)
    current_run.set(payload.run)
    current_modules.set(modules)
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
