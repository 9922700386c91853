"""The end of a flow run: its server gets every final state that the flow knows, also what lost workers took along."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from prefect._internal.uuid7 import uuid7

from agent.prefect_events.queue import UNSURE, EventQueue
from agent.runner import flow_run as flow_runs
from agent.runner.task_runs import PreparedTaskRun

Logger = logging.Logger | logging.LoggerAdapter[Any]

#: seconds without progress until the server is not waited for any longer, and between two lines that say so
STUCK, REMIND = 120.0, 30.0
#: seconds in which a state change comes from a worker to the server, where both keep up
ON_ITS_WAY = 3.0
#: times that what the server does not have is told
TRIES = 3


def many(told: int) -> bool:
    """Whether so many state changes were told that a server which is slower may have dropped some."""
    return told > UNSURE


def redeliver(
    flow_run: str,
    *,
    asked: Callable[[], bool],
    ends: Callable[[], Mapping[str, tuple[PreparedTaskRun, Any]]],
    emit: Callable[[PreparedTaskRun, Any], None],
    queue: EventQueue | None,
    logger: Logger,
) -> None:
    """A worker that is killed takes states along that it had not delivered. What the flow knows of them is told again.

    The server takes a state that it has already for the same.

    Args:
        asked: whether it is worth asking the server: workers, or the scheduler, were lost, or there were many.
        ends: task run → what it was made of and its final state, where the flow has it.
        emit: tells one.
        queue: of this process, where it delivers state changes itself.
    """
    try:
        if asked():
            _tell_again(flow_run, ends, emit, queue, logger)
    except Exception as error:  # neither may keep the flow run from its own end
        logger.warning("states that lost workers did not deliver are not told again: %s", error)


def _tell_again(
    flow_run: str,
    ends: Callable[[], Mapping[str, tuple[PreparedTaskRun, Any]]],
    emit: Callable[[PreparedTaskRun, Any], None],
    queue: EventQueue | None,
    logger: Logger,
) -> None:
    """Wait until the server has recorded what it was told, then tell the final states that it lacks."""
    for _ in range(TRIES):
        if queue is not None:
            _settled(queue, logger)
        _wait(lambda: flow_runs.open_task_runs(flow_run), ON_ITS_WAY, logger)
        known, again = ends(), 0
        for number, since in flow_runs.unended(flow_run).items():
            if number in known:
                prepared, state = known[number]
                if since > state.timestamp:
                    # it ran once more for its result, and the server keeps the newest
                    state = state.model_copy(update={"id": uuid7(), "timestamp": datetime.now(UTC)})
                emit(prepared, state)
                again += 1
        if not again or queue is None:
            return


def _settled(queue: EventQueue, logger: Logger) -> None:
    def left() -> int:
        return 0 if queue.settle(1.0) else queue.left

    _wait(left, STUCK, logger)


def _wait(left: Callable[[], int], stuck: float, logger: Logger) -> None:
    """Until nothing is left, or for so many seconds nothing became less."""
    least, since, said = left(), time.monotonic(), time.monotonic()
    while least and time.monotonic() - since < stuck:
        time.sleep(0.5)
        if (now := left()) < least:
            least, since = now, time.monotonic()
        if time.monotonic() - said > REMIND:
            said = time.monotonic()
            logger.info("the Prefect server has still to record the ends of task runs; %s are left", now)
