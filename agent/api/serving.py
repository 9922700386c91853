"""An API on a loop that somebody else runs: it listens before it is told of, and leaves the signals alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process has its own way to end."""
        yield


class Serving:
    """One listening API. `port` is known before anything is answered."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        """Listen.

        Args:
            port: 0: any free one.

        Raises:
            OSError: the port is taken.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)
        self._server = _Quiet(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        """Answer what was asked, and no more."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
