"""State changes of task runs, told to the Prefect server in batches, again until it has them."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, cast
from uuid import UUID

import httpx
import orjson
from prefect._internal.result_records import ResultRecord
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import TaskRun
from prefect.client.schemas.objects import State
from prefect.context import SyncClientContext
from prefect.events.worker import EventsWorker, emit_events_to_cloud
from prefect.results import should_persist_result
from prefect.settings import PREFECT_API_URL
from prefect.utilities.engine import emit_task_run_state_change_event

from agent.worker.receipts import Receipts, last_of

logger = logging.getLogger("orc.events")

#: seconds a state change waits for company, and at most while more keep coming: a request costs the server as much as several
GATHER, LONGEST = 0.05, 0.25
#: events in one request
MOST = 400
#: events kept while the server is away; the oldest are dropped first
KEPT = 200_000
#: seconds between attempts while the server is away
PATIENCE = 2.0
#: seconds to deliver what is left when the process ends
LAST_WORDS = 10.0
#: state changes of one process that the server may have taken and not recorded: its queue takes 10,000, of all processes together
UNSURE = 2_000
#: seconds between two looks at what it has recorded
LOOK = 0.5
#: seconds of quiet after which the last ones are looked after too
QUIET = 5.0
#: seconds without progress until what is not recorded is sent again, twice as many each time; and how often it is
LOST, TRIES = 15.0, 5
_MESSAGE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A state change that was told; the next one follows it. Has what Prefect reads of an event."""

    id: UUID
    occurred: datetime


class Queue(Protocol):
    """Takes events."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take one."""


class Kept:
    """Keeps events, as JSON."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def tell(self, event: Mapping[str, Any]) -> None:
        """See `Queue`."""
        self.events.append(orjson.dumps(event, default=str))


class Events:
    """One for a process and server: a queue, and a thread that empties it in the order it was filled.

    The server answers when it has queued an event, in memory; what does not fit, or is there when its process is killed, it
    loses without a word. So no more than it can queue is sent ahead of what it has recorded, and what it lost is sent again.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._receipts = Receipts(self._ask)
        self._doubt = self._wanted = False
        self._queue: deque[bytes] = deque(maxlen=KEPT)
        self._some, self._sent = threading.Event(), threading.Condition()
        self._away = False
        self._closing = False
        context = copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._deliver,), name="orc-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Queue one event; never waits."""
        if len(self._queue) == KEPT:
            logger.warning("the Prefect server has been away for too long: the oldest of %s events is dropped", KEPT)
        self._queue.append(orjson.dumps(event, default=str))
        self._some.set()

    @property
    def left(self) -> int:
        """Events that the server is not known to have recorded."""
        return len(self._queue) + len(self._receipts)

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
            if not self._some.wait(QUIET if self._receipts else None):
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
                self._receipts.add(batch)
                if self._doubt:
                    self._doubt = False
                    self._settle(len(batch), 0.0)
                elif len(self._receipts) >= UNSURE:
                    self._settle(UNSURE // 2)
            if self._wanted:
                self._wanted = False
                self._settle(0)
            with self._sent:
                self._sent.notify_all()

    def _settle(self, rest: int, patience: float | None = None) -> None:
        """Wait until all but the last `rest` of what the server took is recorded; send again what it has lost.

        Only where no more can be sent ahead does it keep what is told meanwhile from being sent.
        """
        number = len(self._receipts) - rest
        changes = self._receipts.oldest(number)
        last = last_of(changes)
        best, since, tries = -1, time.monotonic(), 0
        patience = LOST if patience is None else patience
        while changes and not self._closing:
            try:
                done = self._receipts.recorded(last)
                if done >= len(last):
                    break
                if done > best and patience:
                    best, since = done, time.monotonic()
                elif time.monotonic() - since >= patience:
                    missing = self._receipts.missing(changes, last)
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
            if self._queue and len(self._receipts) < UNSURE:
                return
            time.sleep(LOOK)
        self._receipts.forget(number)

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


_all: dict[tuple[str, int], Events] = {}
_lock = threading.Lock()

#: resources that the flow run's events are related to, as its runner found them; None: Prefect's own way
related: ContextVar[Sequence[Mapping[str, str]] | None] = ContextVar("orc_related", default=None)


def events() -> Events | None:
    """The queue for the server of the present settings; None where Prefect's own way must be taken (Cloud, no server, tests)."""
    url = PREFECT_API_URL.value()
    if not url or EventsWorker._client_override is not None or emit_events_to_cloud():
        return None
    found = _all.get(key := (url, os.getpid()))
    if found is None:
        with _lock:
            found = _all.get(key)
            if found is None:
                found = _all[key] = Events(_own_client())
    return found


def _own_client() -> SyncPrefectClient:
    """A client that no flow run closes."""
    context = copy_context()
    context.run(SyncClientContext.__var__.set, cast(Any, None))
    client: SyncPrefectClient = context.run(get_client, sync_client=True)
    return client


def tell(task_run: TaskRun, before: State[Any] | None, state: State[Any], follows: Any = None) -> Any:
    """Tell a state change of a task run, as `prefect.utilities.engine.emit_task_run_state_change_event` does, in a batch."""
    about = related.get()
    queue = events() if about is not None else None
    if queue is None or about is None:
        return emit_task_run_state_change_event(task_run, before, state, follows)
    return tell_to(queue, about, task_run, before, state, follows)


def tell_to(
    queue: Queue, about: Sequence[Mapping[str, str]], task_run: TaskRun, before: State[Any] | None, state: State[Any], follows: Any = None
) -> Told:  # fmt: skip
    """The event of a state change, related to those resources, into a queue."""
    data = None
    if isinstance(state.data, ResultRecord) and should_persist_result():
        data = state.data.metadata.model_dump(mode="json")
    known = {each["prefect.resource.id"] for each in about}
    tags = [f"prefect.tag.{tag}" for tag in sorted(task_run.tags)]
    at = state.timestamp.isoformat()
    message = (state.message or "")[:_MESSAGE] or state.message
    event: dict[str, Any] = {
        "id": str(state.id),
        "occurred": at,
        "event": f"prefect.task-run.{state.name}",
        "payload": {
            "intended": {"from": before.type.value if before else None, "to": state.type.value},
            "initial_state": {
                "type": before.type.value,
                "name": before.name,
                "message": (before.message or "")[:_MESSAGE] or before.message,
                "state_details": _details(before),
            }
            if before
            else None,
            "validated_state": {
                "type": state.type.value,
                "name": state.name,
                "message": message,
                "state_details": _details(state),
                "data": data,
            },
            "task_run": task_run.model_dump(mode="json", exclude_none=True, exclude=_NOT_TOLD),
        },
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{task_run.id}",
            "prefect.resource.name": task_run.name,
            "prefect.run-count": str(task_run.run_count),
            "prefect.state-message": message or "",
            "prefect.state-name": state.name or "",
            "prefect.state-timestamp": at,
            "prefect.state-type": state.type.value,
            "prefect.orchestration": "client",
        },
        "related": [
            *({"prefect.resource.id": tag, "prefect.resource.role": "tag"} for tag in tags if tag not in known),
            *about,
        ],
    }
    if follows is not None and abs((state.timestamp - follows.occurred).total_seconds()) < 300:
        event["follows"] = str(follows.id)
    queue.tell(event)
    return Told(id=state.id, occurred=state.timestamp)


_NOT_TOLD = {
    "id", "created", "updated", "flow_run_id", "state_id", "state_type", "state_name", "state",
    "estimated_start_time_delta", "estimated_run_time",
}  # fmt: skip


def _details(state: State[Any]) -> dict[str, Any]:
    said: dict[str, Any] = state.state_details.model_dump(
        mode="json", exclude_none=True, exclude_unset=True, exclude={"flow_run_id", "task_run_id"}
    )
    return said
