"""State changes of task runs, told to the Prefect server in batches, again until it has them."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Any, cast

import httpx
import orjson
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import TaskRun
from prefect.client.schemas.objects import State
from prefect.context import SyncClientContext
from prefect.events.worker import EventsWorker, emit_events_to_cloud
from prefect.settings import PREFECT_API_URL
from prefect.utilities.engine import emit_task_run_state_change_event

from agent.prefect_events.confirmation import Confirmation, last_of
from agent.prefect_events.event import emit_to, related

logger = logging.getLogger("orc.events")

#: seconds a state change waits for company, and at most while more keep coming: a request costs the server as much as
#: several
GATHER, LONGEST = 0.05, 0.25
#: events in one request
MOST = 400
#: events kept while the server is away; the oldest are dropped first
KEPT = 200_000
#: seconds between attempts while the server is away
PATIENCE = 2.0
#: seconds to deliver what is left when the process ends
LAST_WORDS = 10.0
#: state changes of one process that the server may have taken and not recorded: its queue takes 10,000, of all
#: processes together
UNSURE = 2_000
#: seconds between two looks at what it has recorded
LOOK = 0.5
#: seconds of quiet after which the last ones are looked after too
QUIET = 5.0
#: seconds without progress until what is not recorded is sent again, twice as many each time; and how often it is
LOST, TRIES = 15.0, 5


class EventQueue:
    """One for a process and server: a queue, and a thread that empties it in the order it was filled.

    The server answers when it has queued an event, in memory; what does not fit, or is there when its process is
    killed, it loses without a word. So no more than it can queue is sent ahead of what it has recorded, and what it
    lost is sent again.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._unconfirmed = Confirmation(self._ask)
        self._doubt = self._wanted = False
        self._queue: deque[bytes] = deque(maxlen=KEPT)
        self._some, self._sent = threading.Event(), threading.Condition()
        self._away = False
        self._closing = False
        context = copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._deliver,), name="orc-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, event: Mapping[str, Any]) -> None:
        """EventSink one event; never waits."""
        if len(self._queue) == KEPT:
            logger.warning("the Prefect server has been away for too long: the oldest of %s events is dropped", KEPT)
        self._queue.append(orjson.dumps(event, default=str))
        self._some.set()

    @property
    def left(self) -> int:
        """EventQueue that the server is not known to have recorded."""
        return len(self._queue) + len(self._unconfirmed)

    def settle(self, seconds: float) -> bool:
        """Wait until everything told so far is recorded; False when the time is up."""
        self._wanted = True
        self._some.set()
        with self._sent:
            return self._sent.wait_for(lambda: not self.left, seconds)

    def flush(self, seconds: float) -> bool:
        """Wait until everything told so far is with the server; False when the time is up."""
        with self._sent:
            return self._sent.wait_for(lambda: not self._queue, seconds)

    def close(self) -> None:
        """Deliver what is left, for a while."""
        self._closing = True
        self._some.set()
        if not self.flush(LAST_WORDS):
            logger.error("%s state changes did not reach the Prefect server", len(self._queue))

    def _deliver(self) -> None:
        while True:
            if not self._some.wait(QUIET if self._unconfirmed else None):
                self._wanted = True
            self._some.clear()
            while self._queue:
                self._gather()
                batch = [self._queue[at] for at in range(min(MOST, len(self._queue)))]
                if not self._send(batch):
                    time.sleep(0.2 if self._closing else PATIENCE)
                    continue
                for _ in batch:
                    self._queue.popleft()
                self._unconfirmed.add(batch)
                if self._doubt:
                    self._doubt = False
                    self._settle(len(batch), 0.0)
                elif len(self._unconfirmed) >= UNSURE:
                    self._settle(UNSURE // 2)
            if self._wanted:
                self._wanted = False
                self._settle(0)
            with self._sent:
                self._sent.notify_all()

    def _settle(self, rest: int, patience: float | None = None) -> None:  # noqa: C901
        """Wait until all but the last `rest` of what the server took is recorded; send again what it has lost.

        Only where no more can be sent ahead does it keep what is told meanwhile from being sent.
        """
        number = len(self._unconfirmed) - rest
        changes = self._unconfirmed.oldest(number)
        last = last_of(changes)
        best, since, tries = -1, time.monotonic(), 0
        patience = LOST if patience is None else patience
        while changes and not self._closing:
            try:
                done = self._unconfirmed.recorded(last)
                if done >= len(last):
                    break
                if done > best and patience:
                    best, since = done, time.monotonic()
                elif time.monotonic() - since >= patience:
                    missing = self._unconfirmed.missing(changes, last)
                    if not missing:
                        break
                    if tries == TRIES:
                        logger.error("%s state changes do not get recorded by the Prefect server", len(missing))
                        break
                    logger.info("%s state changes are not recorded; they are sent again", len(missing))
                    for at in range(0, len(missing), MOST):
                        self._send(missing[at : at + MOST])
                    tries, since = tries + 1, time.monotonic()
                    patience = LOST * 2**tries
            except httpx.HTTPStatusError as error:
                if not _passes(error):
                    logger.warning("the Prefect server does not say what it has recorded: %s", error)
                    break
                self._waits(error)
            except (httpx.HTTPError, OSError, RuntimeError) as error:
                self._waits(error)
                # a new process begins with an empty queue
                patience = 0.0
            if self._queue and len(self._unconfirmed) < UNSURE:
                return
            time.sleep(LOOK)
        self._unconfirmed.forget(number)

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        return self._client._client.post(path, json=body).json()

    def _gather(self) -> None:
        until, had = time.monotonic() + LONGEST, -1
        while not self._closing and had < len(self._queue) < MOST and time.monotonic() < until:
            had = len(self._queue)
            time.sleep(GATHER)

    def _send(self, batch: Sequence[bytes]) -> bool:
        """False when it must be sent again."""
        try:
            self._client._client.post(
                "/events", content=b"[" + b",".join(batch) + b"]", headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPStatusError as error:
            if not _passes(error):
                if len(batch) == 1:
                    logger.error("the Prefect server refuses a state change: %s", error.response.text[:500])
                    return True
                # one of them is wrong, or they are too many at once
                half = len(batch) // 2
                return self._send(batch[:half]) and self._send(batch[half:])
            self._waits(error)
            return False
        except (httpx.HTTPError, OSError, RuntimeError) as error:  # RuntimeError: of a client that is being closed
            self._waits(error)
            return False
        if self._away:
            self._away, self._doubt = False, True
            logger.warning("the Prefect server is back; state changes are delivered")
        return True

    def _waits(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            logger.warning("the Prefect server does not take state changes (%s); they are kept and sent again", error)


def _passes(error: httpx.HTTPStatusError) -> bool:
    """Whether the same request may be answered later."""
    return error.response.status_code in (401, 403, 408, 429) or error.response.status_code >= 500


_queues: dict[tuple[str, int], EventQueue] = {}
_lock = threading.Lock()


def current_queue() -> EventQueue | None:
    """The queue for the server of the present settings.

    None where Prefect's own way must be taken (Cloud, no server, tests).
    """
    url = PREFECT_API_URL.value()
    if not url or EventsWorker._client_override is not None or emit_events_to_cloud():
        return None
    found = _queues.get(key := (url, os.getpid()))
    if found is None:
        with _lock:
            found = _queues.get(key)
            if found is None:
                found = _queues[key] = EventQueue(_own_client())
    return found


def _own_client() -> SyncPrefectClient:
    """A client that no flow run closes."""
    context = copy_context()
    context.run(SyncClientContext.__var__.set, cast(Any, None))
    client: SyncPrefectClient = context.run(get_client, sync_client=True)
    return client


def emit(task_run: TaskRun, before: State[Any] | None, state: State[Any], follows: Any = None) -> Any:
    """Tell a state change of a task run, in a batch.

    As `prefect.utilities.engine.emit_task_run_state_change_event` does for one.
    """
    about = related.get()
    queue = current_queue() if about is not None else None
    if queue is None or about is None:
        return emit_task_run_state_change_event(task_run, before, state, follows)
    return emit_to(queue, about, task_run, before, state, follows)
