"""Thousands of tasks that a client lets go of at once, in slices: the scheduler's loop is not held for long.

Dask releases them in one piece, and cancels in a time that grows with the square of their number.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

#: keys let go of in one piece
PIECE = 32
#: a slice of the loop, seconds
SLICE = 0.005
#: from so many keys on
MANY = 8 * PIECE


class BatchedRelease:
    """Goes between a scheduler and what its clients let go of.

    What a client asks for stays in its order: a new graph from it waits for nothing, what is left is done first.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        #: client → pieces still to do
        self._left: dict[str, deque[Callable[[], Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: seconds spent on small ones in this turn of the loop
        self._spent = 0.0
        handlers = scheduler.stream_handlers
        handlers["cancel-keys"] = self._by_keys(handlers["cancel-keys"])
        handlers["client-releases-keys"] = self._by_keys(handlers["client-releases-keys"])
        handlers["update-graph"] = self._after(handlers["update-graph"])
        self._remove = scheduler.remove_client
        scheduler.remove_client = handlers["close-client"] = self._remove_client

    def _by_keys(self, theirs: Callable[..., Any]) -> Callable[..., Any]:
        def handle(keys: Any, client: str, **rest: Any) -> Any:
            begin = time.perf_counter()
            if client not in self._left and len(keys) < MANY and self._spent < SLICE:
                answer = theirs(keys=keys, client=client, **rest)
                # a client that drops its futures one by one sends a message for each, and Dask reads them all at once
                self._spend(time.perf_counter() - begin)
                return answer
            keys = list(keys)
            for at in range(0, len(keys), PIECE):
                self._put(client, partial(theirs, keys=keys[at : at + PIECE], client=client, **rest))
            return None

        return handle

    def _after(self, theirs: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(theirs):

            async def handle_async(client: str = "", **message: Any) -> Any:
                self.finish(client)
                return await theirs(client=client, **message)

            return handle_async

        def handle(client: str = "", **message: Any) -> Any:
            self.finish(client)
            return theirs(client=client, **message)

        return handle

    def _remove_client(self, client: str, stimulus_id: str | None = None) -> None:
        state = self.scheduler.clients.get(client)
        running = self.scheduler.status.name == "running"
        if state is None or not running or (len(state.wants_what) < MANY and client not in self._left):
            self.finish(client)
            return self._remove(client, stimulus_id)
        keys = [ts.key for ts in state.wants_what]
        for at in range(0, len(keys), PIECE):
            self._put(client, partial(self.scheduler.client_releases_keys, keys=keys[at : at + PIECE], client=client))
        self._put(client, partial(self._remove, client, stimulus_id))
        return None

    # ------------------------------------------------------------------ in slices
    def _spend(self, seconds: float) -> None:
        if not self._spent:
            asyncio.get_running_loop().call_soon(self._turn)
        self._spent += seconds

    def _turn(self) -> None:
        self._spent = 0.0

    def finish(self, client: str) -> None:
        """Do what is left of a client's now."""
        for piece in self._left.pop(client, ()):
            self._do(client, piece)

    def _do(self, client: str, piece: Callable[[], Any]) -> None:
        # a client is removed more than once: when it says goodbye, and when its connection ends
        if client in self.scheduler.clients:
            piece()

    def _put(self, client: str, piece: Callable[[], Any]) -> None:
        if client not in self._left:
            self._left[client] = deque()
            task = asyncio.ensure_future(self._work(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._left[client].append(piece)

    async def _work(self, client: str) -> None:
        while True:
            begin = time.perf_counter()
            while time.perf_counter() - begin < SLICE:
                left = self._left.get(client)
                if not left:
                    self._left.pop(client, None)
                    return
                # first out, then done: what it does may ask for the rest
                self._do(client, left.popleft())
            await asyncio.sleep(0)
