"""The future of a governed task: a refusal, a cancellation and a lost scheduler end it in a true state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import distributed
from distributed.client import FutureCancelledError
from prefect._internal.result_records import ResultRecord
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Crashed, Failed
from prefect_dask.task_runners import PrefectDaskFuture

from agent.errors import OrcError, TaskError
from agent.runner.resubmission import CANCELLED, Resubmission
from agent.runner.results import SMALL, Results, is_away, size_of
from agent.runner.task_runs import PreparedTaskRun


class GovernedFuture(PrefectDaskFuture[Any]):
    """A `PrefectDaskFuture` that knows its task run, so that what never reached a worker is recorded all the same."""

    def __init__(
        self,
        *,
        wrapped_future: Any,
        prepared: PreparedTaskRun,
        results: Results,
        ended: Callable[[PreparedTaskRun, State[Any]], None],
        resubmission: Resubmission,
    ) -> None:
        super().__init__(wrapped_future=wrapped_future, task_run_id=prepared.run.id)
        self._prepared, self._results, self._ended = prepared.without_call(), results, ended
        self._resubmission = resubmission
        results.expect(self)

    @property
    def stored(self) -> bool:
        """Whether its result is in storage once it has ended."""
        return self._prepared.common.persisted

    @property
    def kind(self) -> str:
        """Of its task and run."""
        return self._prepared.common.name

    @property
    def known_state(self) -> State[Any] | None:
        """Its final state, once it is here; nobody is asked."""
        return self._final_state

    def settle(self, state: State[Any]) -> None:
        """Its final state, when it was fetched with others."""
        self._final_state = state
        self._results.drop(self._prepared.key)
        self._resubmission.ended(self._prepared.key, state if self.stored and size_of(state) <= SMALL else None)

    def replace(self, future: Any) -> None:
        """The Dask future of the same task run in a new scheduler."""
        self._wrapped_future = future
        self._results.expect(self)

    def wait(self, timeout: float | None = None) -> None:
        """Until the task has ended or the time is up. Raises InfrastructureLostError when the scheduler is gone."""
        if self._final_state is not None:
            return
        try:
            result = self._resolved(timeout)
        except (FutureCancelledError, asyncio.CancelledError) as error:
            self._cancelled(error)
        except TimeoutError:
            return
        except Exception as error:  # what Dask raises where a body could not be begun, or its result not be brought
            self._never_ran(error)
        else:
            if isinstance(result, State):
                self.settle(result)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """The task's result. Raises what the task raised, OrcError when it was refused, TimeoutError."""
        if self._final_state is None:
            try:
                result = self._resolved(timeout)
            except (FutureCancelledError, asyncio.CancelledError) as error:
                self._cancelled(error)
                raise
            except TimeoutError as error:
                raise TimeoutError(f"Task run {self.task_run_id} did not complete within {timeout} seconds") from error
            except Exception as error:  # KilledWorker, a refusal, what Dask raises where a body could not be begun
                self._never_ran(error)
                if raise_on_failure:
                    raise
                return error
            if not isinstance(result, State):
                return result
            self.settle(result)
        state = self._final_state
        if state.is_completed() and isinstance(state.data, ResultRecord):
            # what Prefect finds as well, by way of its event loop
            return state.data.result
        return cast(Any, state).result(raise_on_failure=raise_on_failure, _sync=True)

    def _resolved(self, timeout: float | None) -> Any:
        """The body's result. A task run that was lost with its scheduler is waited for in the new one."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            future = self._wrapped_future
            try:
                return self._once(future, None if until is None else max(0.0, until - time.monotonic()))
            except (FutureCancelledError, asyncio.CancelledError) as error:
                if not is_away(future.client, error):
                    raise
                self._resubmission.recover(future, error)

    def _once(self, future: Any, timeout: float | None) -> Any:
        if future.client.asynchronous:
            return future.result(timeout=timeout)
        if future.status == "pending":
            # waits without bringing the result
            future.exception(timeout=timeout)
        return self._results.fetch(self) if future.status == "finished" else future.result(timeout=timeout)

    def _cancelled(self, error: BaseException) -> None:
        if CANCELLED in str(error):
            self._end(Cancelled(message=CANCELLED, data=error))
        else:
            self._end(Crashed(message=f"cancelled in Dask: {error}", data=error))

    def _never_ran(self, error: Exception) -> None:
        if self._final_state is None:
            if isinstance(error, distributed.KilledWorker):
                self._end(Crashed(message=f"its workers died: {error}", data=error))
            else:
                refused = isinstance(error, OrcError) and not isinstance(error, TaskError)
                self._end(Failed(name="Refused" if refused else "Failed", message=str(error), data=error))

    def _end(self, state: State[Any]) -> None:
        """The state, here and on the server."""
        self.settle(state)
        self._ended(self._prepared, state)
