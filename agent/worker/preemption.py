"""A worker that will be taken away: its tasks leave at their next checkpoint, and end elsewhere.

Three signs start it: SIGTERM, a notice of the cloud (`ORC_NOTICE`, asked every two seconds), or the governor's own
drain. The scheduler is told first, so that nothing new is sent; then the worker waits for what it runs, for as long as
it has.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from agent.model.outcomes import Result
from agent.scheduler import protocol
from agent.worker import settings

logger = logging.getLogger("orc.preemption")

#: seconds between two looks at a cloud's notice
LOOK = 2.0
#: where clouds put their notice; the answer that means that there is none
CLOUDS = {
    "aws": "http://169.254.169.254/latest/meta-data/spot/instance-action",
    "gcp": "http://metadata.google.internal/computeMetadata/v1/instance/preempted",
}
TOLD = "it was told to end (SIGTERM)"
_NONE = ("", "FALSE", "NONE")

#: key → why its task is to leave
_asked: dict[Any, str] = {}


class Moved(BaseException):
    """A task run leaves this worker, to go on elsewhere.

    Not an Exception: a body's own `except` must not take it for a failure.

    Args:
        result: what the ledger calls it.
        why: for people.
    """

    def __init__(self, result: Result, why: str) -> None:
        super().__init__(why)
        self.result, self.why = result, why


def asked(key: Any) -> str:
    """Why the task of a key is to leave; "" when it may stay."""
    return _asked.get(key, "")


def forget(key: Any) -> None:
    """The task has ended."""
    _asked.pop(key, None)


def ready(worker: Any) -> None:
    """From now on this worker hears that tasks are to leave, and tells when it is to be taken away itself.

    Once for a process.
    """
    if protocol.LEAVE in worker.stream_handlers:
        return
    worker.stream_handlers[protocol.LEAVE] = _leave
    worker.close = _graceful(worker, worker.close)
    worker.loop.add_callback(_hear_signals, worker)
    if sign := settings.load().notice:
        worker.loop.add_callback(_watch, worker, sign)


def _leave(key: Any, why: str, **_: Any) -> None:
    _asked[key] = why


def _graceful(worker: Any, close: Callable[..., Any]) -> Callable[..., Any]:
    """`Worker.close`, which after SIGTERM lets running tasks end or leave first."""

    @functools.wraps(close)
    async def closing(*args: Any, **kwargs: Any) -> Any:
        if str(kwargs.get("reason", "")).startswith("signal-15") and worker.state.executing_count:
            await _notice(worker, settings.load().grace, TOLD)
        return await close(*args, **kwargs)

    return closing


def _hear_signals(worker: Any) -> None:
    """A worker process without a nanny ends at SIGTERM without a word; it gives notice first."""
    if threading.current_thread() is not threading.main_thread():
        return
    theirs, told = signal.getsignal(signal.SIGTERM), False
    if not callable(theirs):
        return  # a nanny's child: its nanny closes it

    async def end(number: int, frame: FrameType | None) -> None:
        await _notice(worker, settings.load().grace, TOLD)
        theirs(number, frame)

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told or not worker.state.executing_count:
            theirs(number, frame)
        else:
            told = True
            worker.loop.add_callback_from_signal(end, number, frame)

    signal.signal(signal.SIGTERM, hear)


async def _notice(worker: Any, seconds: float, why: str) -> None:
    """Tell the scheduler, and wait until nothing runs here or the time is up."""
    until = time.monotonic() + seconds
    worker.log_event(protocol.NOTICE_TOPIC, {"left_ms": round(seconds * 1000), "why": why})
    while worker.state.executing_count and time.monotonic() < until:
        await asyncio.sleep(0.05)


async def _watch(worker: Any, sign: str) -> None:
    """Look for a notice until there is one: a cloud's name, a URL, or a file that appears."""
    look = functools.partial(_there, CLOUDS.get(sign, sign))
    while worker.status.name in ("running", "paused", "init"):
        if await asyncio.to_thread(look):
            logger.warning("this worker will be taken away: %s", sign)
            await _notice(worker, 0.0, f"notice of {sign}")
            return
        await asyncio.sleep(LOOK)


def _there(sign: str) -> bool:
    if "://" not in sign:
        return Path(sign).exists()
    request = urllib.request.Request(sign, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=1) as answer:
            return answer.read().decode().strip().upper() not in _NONE
    except (urllib.error.URLError, OSError):
        # 404 while there is none; an address that does not answer is none either
        return False
