"""Prefect's task engine, telling its state changes in batches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from prefect._internal.result_records import ResultRecord
from prefect.client.schemas import TaskRun
from prefect.client.schemas.objects import State
from prefect.states import Pending
from prefect.task_engine import AsyncTaskRunEngine, SyncTaskRunEngine
from prefect.tasks import Task
from prefect.utilities.engine import link_state_to_task_run_result

from agent.model.outcomes import Result
from agent.prefect_events.queue import emit
from agent.worker.preemption import Moved


def _enter(engine: Any, state: State[Any]) -> State[Any]:
    """What both of Prefect's engines do in `set_state`, but for how the change is told."""
    run: TaskRun = engine.task_run
    last = engine.state
    run.state = state
    if last.timestamp == state.timestamp:
        state.timestamp = cast(Any, state.timestamp + timedelta(microseconds=1))
    state.state_details.task_run_id = run.id
    state.state_details.flow_run_id = run.flow_run_id
    run.state_id, run.state_type, run.state_name = state.id, state.type, state.name
    if last.is_running():
        run.total_run_time += state.timestamp - last.timestamp
    if state.is_running():
        run.run_count += 1
    if state.is_final():
        if run.start_time and not run.end_time:
            run.end_time = cast(Any, state.timestamp)
        link_state_to_task_run_result(state, state.data.result if isinstance(state.data, ResultRecord) else state.data)
    engine._last_event = emit(run, last, state, engine._last_event)
    engine._telemetry.update_state(state)
    return state


def _elsewhere(error: BaseException, moves: bool) -> None:
    """A body that ran out of memory is not retried where it did. Raises Moved."""
    if moves and isinstance(error, MemoryError):
        raise Moved(Result.OUT_OF_MEMORY, f"ran out of memory: {error}") from error


def _moved(error: BaseException) -> State[Any] | None:
    """The state of a task run that goes on elsewhere."""
    return Pending(name="Moved", message=error.why) if isinstance(error, Moved) else None


@dataclass
class Engine(SyncTaskRunEngine[Any, Any]):
    """Of sync tasks."""

    #: it may be decided anew
    moves: bool = False

    def handle_exception(self, exc: Exception) -> None:
        """See `SyncTaskRunEngine`."""
        _elsewhere(exc, self.moves)
        super().handle_exception(exc)

    def handle_crash(self, exc: BaseException) -> None:
        """See `SyncTaskRunEngine`."""
        if (state := _moved(exc)) is not None:
            self.set_state(state, force=True)
        else:
            super().handle_crash(exc)

    def set_state(self, state: State[Any], force: bool = False) -> State[Any]:
        """See `SyncTaskRunEngine`."""
        return _enter(self, state)


@dataclass
class AsyncEngine(AsyncTaskRunEngine[Any, Any]):
    """Of async tasks."""

    #: it may be decided anew
    moves: bool = False

    async def handle_exception(self, exc: Exception) -> None:
        """See `AsyncTaskRunEngine`."""
        _elsewhere(exc, self.moves)
        await super().handle_exception(exc)

    async def handle_crash(self, exc: BaseException) -> None:
        """See `AsyncTaskRunEngine`."""
        if (state := _moved(exc)) is not None:
            await self.set_state(state, force=True)
        else:
            await super().handle_crash(exc)

    async def set_state(self, state: State[Any], force: bool = False) -> State[Any]:
        """See `AsyncTaskRunEngine`."""
        return _enter(self, state)


def run_sync(
    task: Task[Any, Any], run: TaskRun, pending: Any, parameters: dict[str, Any], wait_for: Any, moves: bool
) -> State[Any]:
    """`prefect.task_engine.run_task_sync`, of a task run whose Pending was told already. Returns its last state.

    Raises Moved where it goes on elsewhere, which only one that `moves` does.
    """
    engine = Engine(task=task, parameters=parameters, task_run=run, wait_for=wait_for, moves=moves)
    engine._last_event = pending
    try:
        with engine.start():
            while engine.is_running():
                engine.wait_until_ready()
                with engine.asset_context(), engine.run_context(), engine.transaction_context() as transaction:
                    engine.call_task_fn(transaction)
    except (KeyboardInterrupt, SystemExit):
        _exited(engine)
    return engine.state


async def run_async(
    task: Task[Any, Any], run: TaskRun, pending: Any, parameters: dict[str, Any], wait_for: Any, moves: bool
) -> State[Any]:
    """`prefect.task_engine.run_task_async`, likewise."""
    engine = AsyncEngine(task=task, parameters=parameters, task_run=run, wait_for=wait_for, moves=moves)
    engine._last_event = pending
    try:
        async with engine.start():
            while engine.is_running():
                await engine.wait_until_ready()
                async with engine.asset_context(), engine.run_context(), engine.transaction_context() as transaction:
                    await engine.call_task_fn(transaction)
    except (KeyboardInterrupt, SystemExit):
        _exited(engine)
    return engine.state


def _exited(engine: Any) -> None:
    """A body that ends its process, as it thinks, crashes its task run.

    Let through, Dask would end the worker with it, and the next.
    """
    if not engine.state.is_crashed():
        raise
