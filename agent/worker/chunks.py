"""Many small items in one task run: each has an outcome of its own, as if it were alone."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.tasks import Task
from prefect.utilities.annotations import opaque
from prefect.utilities.callables import parameters_to_args_kwargs

from agent.errors import ItemsFailedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What became of a chunk's items, in their order."""

    #: results, or what the item raised
    values: Sequence[Any]
    #: positions of those that failed
    failed: frozenset[int]
    #: of the bodies together
    seconds: float


def chunked(task: Task[Any, Any]) -> Task[Any, Any]:
    """The task that runs `items` of another one after the other. Each has the other's retries; its cache and storage are the chunk's."""
    made = task.with_options(retries=0, task_run_name=None, timeout_seconds=None)
    made.fn = _all(task)
    return made


def _all(task: Task[Any, Any]) -> Callable[..., Any]:
    function, retries, delay = task.fn, task.retries, task.retry_delay_seconds

    if task.isasync:

        @functools.wraps(function)
        async def each_async(items: Sequence[Mapping[str, Any]]) -> Outcomes:
            begin, out = time.perf_counter(), []
            for item in _plain(items):
                arguments, named = parameters_to_args_kwargs(function, dict(item))
                for attempt in range(retries + 1):
                    try:
                        got = (True, await function(*arguments, **named))
                        break
                    except Exception as error:  # the item's own
                        got = (False, error)
                        if attempt < retries:
                            await asyncio.sleep(_pause(delay, attempt))
                out.append(got)
            return _told(out, time.perf_counter() - begin)

        each: Callable[..., Any] = each_async
    else:

        @functools.wraps(function)
        def each_sync(items: Sequence[Mapping[str, Any]]) -> Outcomes:
            begin, out = time.perf_counter(), []
            for item in _plain(items):
                arguments, named = parameters_to_args_kwargs(function, dict(item))
                for attempt in range(retries + 1):
                    try:
                        got = (True, function(*arguments, **named))
                        break
                    except Exception as error:  # the item's own
                        got = (False, error)
                        if attempt < retries:
                            time.sleep(_pause(delay, attempt))
                out.append(got)
            return _told(out, time.perf_counter() - begin)

        each = each_sync
    parameter = inspect.Parameter("items", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    each.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return each


def _plain(items: Any) -> Sequence[Mapping[str, Any]]:
    # they come wrapped, so that Prefect does not look for futures in each of them
    found: Sequence[Mapping[str, Any]] = items.unwrap() if isinstance(items, opaque) else items
    return found


def _pause(delay: Any, attempt: int) -> float:
    if isinstance(delay, Sequence):
        return float(delay[min(attempt, len(delay) - 1)]) if delay else 0.0
    return float(delay or 0)


def _told(out: Sequence[tuple[bool, Any]], seconds: float) -> Outcomes:
    """The outcomes. Raises ItemsFailedError with them when an item failed, so that the chunk is not cached as done."""
    failed = frozenset(at for at, (well, _) in enumerate(out) if not well)
    values = [value if well else _portable(value) for well, value in out]
    made = Outcomes(values=values, failed=failed, seconds=seconds)
    if failed:
        first = min(failed)
        raise ItemsFailedError(
            f"{len(failed)} of {len(out)} items failed; the first is item {first}: {values[first]!r}", made
        )
    return made


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
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
    value = outcomes.values[at]
    if at in outcomes.failed:
        return Failed(message=f"item {at} of its chunk raised {value!r}", data=value, state_details=details)
    return Completed(message=f"item {at} of its chunk", data=value, state_details=details)
