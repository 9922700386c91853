"""The future of a governed task: a refusal, a cancellation and a lost scheduler end it in a true state."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import distributed
from distributed.client import FutureCancelledError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import get_logger
from prefect.states import Crashed, Failed
from prefect.tasks import Task
from prefect_dask.task_runners import PrefectDaskFuture

from agent.errors import InfrastructureLostError, OrcError


class GovernedFuture(PrefectDaskFuture[Any]):
    """A `PrefectDaskFuture` that knows its task, so that what never reached a worker is recorded all the same."""

    def __init__(self, *, wrapped_future: Any, task_run_id: Any, task: Task[Any, Any], flow_run_id: str) -> None:
        super().__init__(wrapped_future=wrapped_future, task_run_id=task_run_id)
        self._task, self._flow_run_id = task, flow_run_id

    def wait(self, timeout: float | None = None) -> None:
        """Until the task has ended or the time is up. Raises InfrastructureLostError when the scheduler is gone."""
        try:
            result = self._wrapped_future.result(timeout=timeout)
        except (FutureCancelledError, asyncio.CancelledError) as error:
            self._cancelled(error)
        except (distributed.KilledWorker, OrcError) as error:
            self._never_ran(error)
        except Exception:
            return
        else:
            if isinstance(result, State):
                self._final_state = result

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """The task's result. Raises what the task raised, OrcError when it was refused, TimeoutError."""
        try:
            return super().result(timeout=timeout, raise_on_failure=raise_on_failure)
        except (FutureCancelledError, asyncio.CancelledError) as error:
            self._cancelled(error)
            raise
        except (distributed.KilledWorker, OrcError) as error:
            self._never_ran(error)
            if raise_on_failure:
                raise
            return error

    def _cancelled(self, error: BaseException) -> None:
        client = self._wrapped_future.client
        if client.status not in ("running", "connecting") or "connection" in str(error) or not _reachable(client):
            raise InfrastructureLostError(
                f"the Dask scheduler {client.scheduler.address if client.scheduler else ''} is gone: {error}"
            ) from error
        self._end(Crashed(message=f"cancelled in Dask: {error}", data=error))

    def _never_ran(self, error: Exception) -> None:
        if self._final_state is None:
            name = "Refused" if isinstance(error, OrcError) else "Failed"
            self._end(Failed(name=name, message=str(error), data=error))

    def _end(self, state: State[Any]) -> None:
        """The state, here and on the server, where the task run may not exist yet."""
        self._final_state = state
        try:
            with get_client(sync_client=True) as client:
                client.create_task_run(
                    task=self._task,
                    id=self.task_run_id,
                    flow_run_id=UUID(self._flow_run_id) if self._flow_run_id else None,
                    dynamic_key=str(self.task_run_id),
                    name=f"{self._task.name}-refused",
                )
                client.set_task_run_state(self.task_run_id, state.model_copy(update={"data": None}), force=True)
        except Exception as error:
            get_logger("orc").warning("the state of task run %s could not be written: %s", self.task_run_id, error)


def _reachable(client: Any) -> bool:
    return client.scheduler_comm is not None and not client.scheduler_comm.comm.closed()
