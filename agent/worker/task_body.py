"""The body of a governed Prefect task on the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Any

import dask
from distributed import Reschedule, get_worker
from prefect._internal.result_records import ResultRecord
from prefect.client.schemas.objects import State

from agent.model.outcomes import Result
from agent.scheduler import protocol
from agent.worker import lineage, preemption
from agent.worker.chunks import portable
from agent.worker.engine import run_async, run_sync
from agent.worker.hydration import at_home, load
from agent.worker.payload import unpack


def run_task(name: str, code: str | bytes, call: bytes, found: Sequence[Any]) -> Any:
    """Run one Prefect task; its own Dask work is marked as inner work of this key. Returns its final State.

    Args:
        name: of what it has in common with others.
        code: the task, pickled, or the name of that.
        call: its task run, parameters and `wait_for`, packed.
        found: states of the task runs it depends on.
    """
    worker = get_worker()
    key = worker.get_current_task()
    entry = worker.state.tasks.get(key)
    preemption.ready(worker)
    try:
        with lineage.collected() as named:
            state = copy_context().run(_run, (name, code, call), found, _held(entry))
    except preemption.Moved as moved:
        # told before the task comes back: both go to the scheduler by the same stream; Dask takes plain strings only
        worker.log_event(protocol.MOVED_TOPIC, {"key": key, "result": moved.result.value, "why": moved.why})
        raise Reschedule from None
    finally:
        preemption.forget(key)
    if entry is not None and isinstance(state, State):
        _make_portable(state)
        said = outcome(state)
        if named:
            said[protocol.LINEAGE] = named
        if said:
            entry.metadata[protocol.ANNOTATION] = said
    return state


def _held(entry: Any) -> bool:
    """Whether a governor decides where it runs, so that it may be decided anew."""
    says = (getattr(entry, "annotations", None) or {}).get(protocol.ANNOTATION)
    return isinstance(says, Mapping) and says.get(protocol.MODE) == "govern"


def outcome(state: State[Any]) -> dict[str, Any]:
    """What became of a task run, and why, for the decision record: Dask sees a State and calls it a result."""
    if state.is_failed() or state.is_crashed():
        cause = "out of memory" if _out_of_memory(state.data) else "broken"
        return {protocol.RESULT: Result.FAILED, protocol.CAUSE: cause}
    return {protocol.RESULT: Result.CACHED} if state.name == "Cached" else {}


def _out_of_memory(data: Any) -> bool:
    error = getattr(data, "result", data)
    return isinstance(error, MemoryError)


def _make_portable(state: State[Any]) -> None:
    """An exception that cannot be rebuilt in the flow's process would hide behind the error of that."""
    if not (state.is_failed() or state.is_crashed()):
        return
    if isinstance(state.data, ResultRecord):
        if isinstance(state.data.result, BaseException):
            state.data.result = portable(state.data.result)
    elif isinstance(state.data, BaseException):
        state.data = portable(state.data)


def _run(sent: tuple[str, str | bytes, bytes], found: Sequence[Any], moves: bool) -> Any:
    worker, (name, code, call) = get_worker(), sent
    payload, task, modules = load(worker, name, code)
    new, parameters, wait_for = unpack(call, found)
    run = new.run(payload.template)
    key = worker.get_current_task()
    with at_home(name, payload, modules, new.assets), dask.annotate(**{protocol.ANNOTATION: {protocol.INNER: key}}):
        if task.isasync:
            return asyncio.run(run_async(task, run, new.emitted, parameters, wait_for, moves))
        return run_sync(task, run, new.emitted, parameters, wait_for, moves)
