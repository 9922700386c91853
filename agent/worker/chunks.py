"""Many small items in one task run: each has an outcome of its own, as if it were alone."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.states import Completed, Failed
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import Task
from prefect.utilities.annotations import opaque
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.callables import parameters_to_args_kwargs
from prefect.utilities.math import clamped_poisson_interval
from prefect.utilities.timeout import timeout, timeout_async

from agent.errors import ItemsFailedError
from agent.worker.module_state import is_stateless

logger = logging.getLogger("orc.chunk")

#: types whose values always travel, and hold nothing of others
PLAIN = (int, float, str, bytes, bool, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What became of a chunk's items, in their order."""

    #: results, or what the item raised; those that are not plain are `Parcel`s once they have travelled
    values: Sequence[Any]
    #: positions of those that failed
    failed: frozenset[int]
    #: of the bodies together
    seconds: float

    def __reduce__(self) -> Any:
        return _outcomes, ([_parcel(value) for value in self.values], self.failed, self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A value that travels by itself, so that one that cannot be read keeps nobody from the others."""

    data: bytes
    #: why it cannot be sent
    fault: str = ""

    def opened(self) -> Any:
        """The value. Raises whatever reading it raises."""
        if self.fault:
            raise TypeError(self.fault)
        return pickle.loads(self.data)


def _outcomes(values: Sequence[Any], failed: frozenset[int], seconds: float) -> Outcomes:
    return Outcomes(values=values, failed=failed, seconds=seconds)


def _parcel(value: Any) -> Any:
    if type(value) in PLAIN or type(value) is Parcel:
        return value
    try:
        return Parcel(data=cloudpickle.dumps(value))
    except Exception as error:  # whatever a user's object raises while it is pickled
        return Parcel(data=b"", fault=f"{type(value).__name__} cannot be sent back: {error}")


def chunked(task: Task[Any, Any]) -> Task[Any, Any]:
    """The task that runs `items` of another one after the other.

    Each has the other's retries, their conditions and its time-out; cache and storage are the chunk's.
    """
    made = task.with_options(retries=0, task_run_name=None)
    made.timeout_seconds, made.retry_condition_fn = None, None
    made.fn = all_of(task)
    return made


def all_of(task: Task[Any, Any]) -> Callable[..., Any]:
    """The body of a chunk of a task, as the task is now."""
    code, alike = cloudpickle.dumps(task), is_stateless(task.fn)

    if task.isasync:

        async def each_async(items: Sequence[Mapping[str, Any]]) -> Outcomes:
            begin, out = time.perf_counter(), []
            for its, item in zip(_tasks(code, alike), _plain(items), strict=False):
                out.append(await _run_async(its, item))
            return _told(out, time.perf_counter() - begin)

        each: Callable[..., Any] = each_async
    else:

        def each_sync(items: Sequence[Mapping[str, Any]]) -> Outcomes:
            begin, out = time.perf_counter(), []
            for its, item in zip(_tasks(code, alike), _plain(items), strict=False):
                out.append(_run_sync(its, item))
            return _told(out, time.perf_counter() - begin)

        each = each_sync
    functools.update_wrapper(each, task.fn)
    del each.__wrapped__  # type: ignore[attr-defined]
    parameter = inspect.Parameter("items", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    each.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return each


def _tasks(code: bytes, alike: bool) -> Iterator[Task[Any, Any]]:
    """The task for each item: made anew, as that of a task run is, where items could see what the others left."""
    task = pickle.loads(code)
    while True:
        yield task
        if not alike:
            task = pickle.loads(code)


def _plain(items: Any) -> Sequence[Mapping[str, Any]]:
    # they come wrapped, so that Prefect does not look for futures in each of them
    found: Sequence[Mapping[str, Any]] = items.unwrap() if isinstance(items, opaque) else items
    return found


def _run_sync(task: Task[Any, Any], item: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether the item went well, and its result or error."""
    arguments, named = parameters_to_args_kwargs(task.fn, dict(item))
    for attempt in range(task.retries + 1):
        try:
            if task.timeout_seconds is None:
                return True, task.fn(*arguments, **named)
            with timeout(task.timeout_seconds, TaskRunTimeoutError):
                return True, task.fn(*arguments, **named)
        except Exception as error:  # the item's own
            got = error
        if attempt == task.retries or not (again := _may_retry(task, got)):
            break
        if again is not True and not run_coro_as_sync(again):
            break
        time.sleep(_pause(task, attempt))
    return False, got


async def _run_async(task: Task[Any, Any], item: Mapping[str, Any]) -> tuple[bool, Any]:
    arguments, named = parameters_to_args_kwargs(task.fn, dict(item))
    for attempt in range(task.retries + 1):
        try:
            with timeout_async(task.timeout_seconds, TaskRunTimeoutError):
                return True, await task.fn(*arguments, **named)
        except Exception as error:  # the item's own
            got = error
        if attempt == task.retries or not (again := _may_retry(task, got)):
            break
        if again is not True and not await again:
            break
        await asyncio.sleep(_pause(task, attempt))
    return False, got


def _may_retry(task: Task[Any, Any], error: Exception) -> Any:
    """Whether the task's own condition lets the item try again; where it is async, what is to be awaited."""
    context = TaskRunContext.get()
    if task.retry_condition_fn is None or context is None:
        return True
    state: State[Any] = Failed(data=error, message=f"Task run encountered unexpected exception: {error!r}")
    try:
        said = task.retry_condition_fn(task, context.task_run, state)
        return said if inspect.isawaitable(said) else bool(said)
    except Exception:  # the condition is a user's code; Prefect does not try again either
        logger.exception("retry_condition_fn of task %r failed: the item is not tried again", task.name)
        return False


def _pause(task: Task[Any, Any], attempt: int) -> float:
    delay: Any = task.retry_delay_seconds
    if isinstance(delay, Sequence):
        delay = delay[min(attempt, len(delay) - 1)] if delay else 0
    delay = float(delay or 0)
    if task.retry_jitter_factor and delay > 0:
        return clamped_poisson_interval(delay, clamping_factor=task.retry_jitter_factor)
    return delay


def _told(out: Sequence[tuple[bool, Any]], seconds: float) -> Outcomes:
    """The outcomes. Raises ItemsFailedError with them when an item failed, so that the chunk is not cached as done."""
    failed = frozenset(at for at, (well, _) in enumerate(out) if not well)
    values = [value if well else portable(value) for well, value in out]
    made = Outcomes(values=values, failed=failed, seconds=seconds)
    if failed:
        first = min(failed)
        raise ItemsFailedError(
            f"{len(failed)} of {len(out)} items failed; the first is item {first}: {values[first]!r}", made
        )
    return made


def portable(error: BaseException) -> BaseException:
    """An exception that can be rebuilt elsewhere: itself, or one that says the same."""
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:  # whatever a user's exception does when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def item(state: State[Any], at: int) -> State[Any]:
    """The state of one item, from its chunk's."""
    data = getattr(state.data, "result", state.data)
    outcomes = data.outcomes if isinstance(data, ItemsFailedError) else data
    if not isinstance(outcomes, Outcomes):
        return state  # the chunk never came to its items
    details = state.state_details.model_copy()
    value, failed = outcomes.values[at], at in outcomes.failed
    if isinstance(value, Parcel):
        try:
            value = value.opened()
        except Exception as error:  # whatever a user's object raises while it is rebuilt
            value, failed = error, True
    if failed:
        name = "TimedOut" if isinstance(value, TaskRunTimeoutError) else None
        return Failed(name=name, message=f"item {at} of its chunk raised {value!r}", data=value, state_details=details)
    return Completed(message=f"item {at} of its chunk", data=value, state_details=details)
