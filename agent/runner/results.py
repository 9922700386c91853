"""Results of finished tasks, fetched many at a time: one by one, each costs three messages. Each stands for itself."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from dask.sizeof import sizeof
from prefect.client.schemas.objects import State

logger = logging.getLogger("orc.runner")

#: bytes of a result or of parameters that are kept by the flow's process for as long as it runs
SMALL = 64 * 1024
#: seconds between two looks for results that are there
LOOK = 0.5
#: seconds between two fetches while many are awaited, so that what ends meanwhile comes along
PAUSE, _MANY = 0.03, 16
#: fetched at once, at most
_MOST, _BYTES = 256, 16 * 2**20


class Fetchable(Protocol):
    """A future whose result is fetched."""

    @property
    def wrapped_future(self) -> Any:
        """Dask's."""

    @property
    def known_state(self) -> State[Any] | None:
        """Its final state, once it is here."""

    @property
    def stored(self) -> bool:
        """Whether its result is in storage once it has ended."""

    @property
    def kind(self) -> str:
        """Equal where results are likely to be of one size."""

    def settle(self, state: State[Any]) -> None:
        """Its final state, when it was fetched with others."""


class Results:
    """Those of one task runner."""

    def __init__(self) -> None:
        #: in the order they were made
        self._open: dict[str, weakref.ref[Fetchable]] = {}
        self._bytes, self._fetched, self._fetched_at = 0, 0, 0.0
        #: results of each kind of task that were taken in, and their bytes
        self._sizes: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        #: those to be taken in, also where the flow drops them before: nobody else could tell a state that was lost
        self._kept: dict[str, Fetchable] = {}
        #: keys of those that cannot be read: in company they would keep the others from being read
        self._unreadable: set[str] = set()
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

    def expect(self, future: Fetchable) -> None:
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

        Lost with a worker or the scheduler, each would have to be brought back by a run of its task that finds it
        stored.
        """
        some = self._to_take_in()
        taken = 0
        for future, state in self._gathered(some):
            count, size = self._sizes[future.kind]
            self._sizes[future.kind] = count + 1, size + size_of(state)
            if isinstance(state, State):
                future.settle(state)
            self._open.pop(future.wrapped_future.key, None)
            self.drop(future.wrapped_future.key)
            taken += 1
        return taken

    def _to_take_in(self) -> list[Fetchable]:
        found: list[Fetchable] = []
        asked: Counter[str] = Counter()
        for key, ref in list(self._open.items()):
            if len(found) >= _MOST:
                break
            future = ref()
            if future is None or future.known_state is not None or key in self._unreadable:
                if future is None or future.known_state is not None:
                    self._open.pop(key, None)
                self.drop(key)
                continue
            if not future.stored:
                continue
            count, size = self._sizes[future.kind]
            status = future.wrapped_future.status
            if status == "error" or (count and size > SMALL * count):
                self.drop(key)
            elif status == "finished" and (count or asked[future.kind] < 8):
                asked[future.kind] += 1
                found.append(future)
        return found

    def _gathered(self, some: Sequence[Fetchable]) -> list[tuple[Fetchable, Any]]:
        """The results that could be fetched. In one message, unless one of them cannot be read: then each by itself."""
        if not some:
            return []
        client = some[0].wrapped_future.client
        try:
            found = client.gather([future.wrapped_future for future in some], errors="skip")
        except Exception as error:  # whatever a user's object raises while it is rebuilt, and Dask when it is away
            if is_away(client, error):
                raise
        else:
            # some were lost on the way: they come back
            return list(zip(some, found, strict=True)) if len(found) == len(some) else []
        out: list[tuple[Fetchable, Any]] = []
        for future in some:
            try:
                alone = client.gather([future.wrapped_future], errors="skip")
            except Exception as error:  # the same
                if is_away(client, error):
                    raise
                logger.debug("the result of %s cannot be read here: %r", future.wrapped_future.key, error)
                self._unreadable.add(future.wrapped_future.key)
            else:
                out += [(future, state) for state in alone]
        return out

    def fetch(self, wanted: Fetchable) -> Any:
        """The result of a finished future, and with it those of the finished ones that follow, while they are small."""
        if len(self._open) > _MANY and (early := self._fetched_at + PAUSE - time.monotonic()) > 0:
            time.sleep(early)
        self._fetched_at = time.monotonic()
        key = wanted.wrapped_future.key
        found = dict[str, Any]()
        if key not in self._unreadable:
            for future, state in self._gathered([wanted, *self._company(wanted)]):
                self._fetched += 1
                self._bytes += size_of(state)
                found[future.wrapped_future.key] = state
                if isinstance(state, State):
                    future.settle(state)
                    self._open.pop(future.wrapped_future.key, None)
        self._open.pop(key, None)
        # one that was lost on the way, or cannot be read, says so itself
        return found[key] if key in found else wanted.wrapped_future.result()

    def _company(self, wanted: Fetchable) -> list[Fetchable]:
        most = _MOST if not self._fetched else max(1, min(_MOST, _BYTES * self._fetched // max(1, self._bytes)))
        if not self._fetched:
            most = 8
        some: list[Fetchable] = []
        for at, (key, ref) in enumerate(list(self._open.items())):
            if len(some) + 1 >= most or at > 4 * _MOST:
                break
            future = ref()
            if future is None or future.known_state is not None:
                self._open.pop(key, None)
            elif future is not wanted and key not in self._unreadable and future.wrapped_future.status == "finished":
                some.append(future)
        return some


def size_of(state: Any) -> int:
    """Bytes of a state with its result, about."""
    data = getattr(state, "data", None)
    return 2000 + sizeof(getattr(data, "result", data))


def is_away(client: Any, error: BaseException) -> bool:
    """Whether it was the scheduler that went away, and not the task that failed or was cancelled."""
    reachable = client.scheduler_comm is not None and not client.scheduler_comm.comm.closed()
    return client.status not in ("running", "connecting") or "connection" in str(error) or not reachable
