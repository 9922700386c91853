"""The future of a governed task: a refusal, a cancellation and a lost scheduler end it in a true state."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, cast

import distributed
from dask.sizeof import sizeof
from distributed.client import FutureCancelledError
from prefect._internal.result_records import ResultRecord
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Crashed, Failed
from prefect_dask.task_runners import PrefectDaskFuture

from agent.errors import OrcError
from agent.runner.resubmission import CANCELLED, SMALL, Resubmission
from agent.runner.task_runs import Prepared

logger = logging.getLogger("orc.runner")

#: seconds between two looks for results that are there
LOOK = 0.5
#: seconds between two fetches while many are awaited, so that what ends meanwhile comes along
PAUSE, _MANY = 0.03, 16
#: fetched at once, at most
_MOST, _BYTES = 256, 16 * 2**20


class Results:
    """Fetches results of finished tasks many at a time: one by one, each costs three messages."""

    def __init__(self) -> None:
        #: in the order they were made
        self._open: dict[str, weakref.ref[GovernedFuture]] = {}
        self._bytes, self._fetched, self._fetched_at = 0, 0, 0.0
        #: results of each kind of task that were taken in, and their bytes
        self._sizes: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        #: those to be taken in, also where the flow drops them before: nobody else could tell a state that was lost
        self._kept: dict[str, GovernedFuture] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(LOOK + 5)
            self._thread = None
        self._kept.clear()

    def _look(self) -> None:
        while not self._closed.wait(LOOK):
            try:
                while not self._closed.is_set() and self.take_in():
                    pass
            except Exception as error:  # the scheduler is away or the client closed: whoever waits for a result is told
                logger.debug("results are not taken in now: %r", error)

    def expect(self, future: GovernedFuture) -> None:
        """A future whose result may be asked for."""
        self._open[future.wrapped_future.key] = weakref.ref(future)
        if future.stored and self._thread is None and not future.wrapped_future.client.asynchronous:
            self._closed.clear()
            self._thread = threading.Thread(target=self._look, name="orc-results", daemon=True)
            self._thread.start()
        if future.stored and self._thread is not None:
            self._kept[future.wrapped_future.key] = future

    def drop(self, key: str) -> None:
        """Its end is known, or it is not to be taken in."""
        self._kept.pop(key, None)

    def take_in(self) -> int:
        """Settle small stored results that are there, before anybody asks; how many.

        Lost with a worker or the scheduler, each would have to be brought back by a run of its task that finds it stored.
        """
        found: list[tuple[GovernedFuture, Any]] = []
        asked: Counter[str] = Counter()
        for key, ref in list(self._open.items()):
            if len(found) >= _MOST:
                break
            future = ref()
            if future is None or future._final_state is not None:
                self._open.pop(key, None)
                self.drop(key)
                continue
            if not future.stored:
                continue
            kind = future._prepared.common.digest
            count, size = self._sizes[kind]
            if future.wrapped_future.status == "error" or (count and size > SMALL * count):
                self.drop(key)
                continue
            if (theirs := future.wrapped_future).status != "finished" or (not count and asked[kind] >= 8):
                continue
            asked[kind] += 1
            found.append((future, theirs))
        if not found:
            return 0
        states = found[0][1].client.gather([theirs for _, theirs in found], errors="skip")
        if len(states) < len(found):
            return 0  # some were lost on the way; they come back
        for (future, theirs), state in zip(found, states, strict=True):
            count, size = self._sizes[future._prepared.common.digest]
            self._sizes[future._prepared.common.digest] = count + 1, size + _size(state)
            if isinstance(state, State):
                future.settle(state)
            self._open.pop(theirs.key, None)
            self.drop(theirs.key)
        return len(found)

    def fetch(self, wanted: GovernedFuture) -> Any:
        """The result of a finished future, and with it those of the finished ones that follow, while they are small."""
        if len(self._open) > _MANY and (early := self._fetched_at + PAUSE - time.monotonic()) > 0:
            time.sleep(early)
        self._fetched_at = time.monotonic()
        most = _MOST if not self._fetched else max(1, min(_MOST, _BYTES * self._fetched // max(1, self._bytes)))
        some = [wanted]
        if not self._fetched:
            most = 8
        for at, (key, ref) in enumerate(list(self._open.items())):
            if len(some) >= most or at > 4 * _MOST:
                break
            future = ref()
            if future is None or future._final_state is not None:
                self._open.pop(key, None)
            elif future is not wanted and future.wrapped_future.status == "finished":
                some.append(future)
        found = wanted.wrapped_future.client.gather([future.wrapped_future for future in some], errors="skip")
        self._open.pop(wanted.wrapped_future.key, None)
        if len(found) < len(some):
            # one was lost on the way; its own future says so when it is asked
            return wanted.wrapped_future.result()
        for future, state in zip(some, found, strict=True):
            self._fetched += 1
            self._bytes += _size(state)
            if isinstance(state, State):
                future.settle(state)
                self._open.pop(future.wrapped_future.key, None)
        return found[0]


def _size(state: Any) -> int:
    data = getattr(state, "data", None)
    return 2000 + sizeof(getattr(data, "result", data))


class GovernedFuture(PrefectDaskFuture[Any]):
    """A `PrefectDaskFuture` that knows its task run, so that what never reached a worker is recorded all the same."""

    def __init__(
        self, *, wrapped_future: Any, task_run_id: Any, prepared: Prepared, results: Results,
        ended: Callable[[Prepared, State[Any]], None], resubmission: Resubmission,
    ) -> None:  # fmt: skip
        super().__init__(wrapped_future=wrapped_future, task_run_id=task_run_id)
        self._prepared, self._results, self._ended, self._resubmission = (
            prepared.without_call(),
            results,
            ended,
            resubmission,
        )
        results.expect(self)

    @property
    def stored(self) -> bool:
        """Whether its result is in storage once it has ended."""
        return self._prepared.common.persisted

    def settle(self, state: State[Any]) -> None:
        """Its final state, when it was fetched with others."""
        self._final_state = state
        self._results.drop(self._prepared.key)
        self._resubmission.ended(self._prepared.key, state if self.stored and _size(state) <= SMALL else None)

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
                if not _lost(future.client, error):
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
                name = "Refused" if isinstance(error, OrcError) else "Failed"
                self._end(Failed(name=name, message=str(error), data=error))

    def _end(self, state: State[Any]) -> None:
        """The state, here and on the server."""
        self.settle(state)
        self._ended(self._prepared, state)


def _lost(client: Any, error: BaseException) -> bool:
    """Whether it was the scheduler that went away, and not the task that was cancelled."""
    reachable = client.scheduler_comm is not None and not client.scheduler_comm.comm.closed()
    return client.status not in ("running", "connecting") or "connection" in str(error) or not reachable
