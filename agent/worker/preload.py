"""Loaded when a worker starts, so that its first task does not pay for imports."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from typing import Any

import prefect.main
import prefect.task_engine  # noqa: F401
from prefect.logging.configuration import ensure_logging_setup
from prefect.logging.handlers import PrefectConsoleHandler

import agent.worker.task_body  # noqa: F401
from agent.worker import preemption, settings

#: seconds that the process of a closing worker may take to end: Dask gives bodies 30, last states take 10; what a body
#: left behind may hold it for ever
LAST = 45.0


def dask_setup(worker: Any) -> None:
    """Dask's hook for preloaded modules."""
    preemption.ready(worker)
    atexit.register(_say_ended)
    ensure_logging_setup()
    for name in (None, *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if (
                type(handler) is PrefectConsoleHandler
                and not handler.console.is_terminal
                and not handler.console._markup
            ):
                # without a terminal Rich writes the same text, and takes a millisecond for each line
                handler.__class__ = _Written


def dask_teardown(worker: Any) -> None:
    """Dask's hook for a worker that has closed: its process, where it is one that a pool pays for, ends in any case."""
    _say_ended()
    if settings.load().worker_pool:
        end = threading.Timer(LAST, os._exit, (0,))
        end.daemon = True
        end.start()


def _say_ended() -> None:
    """For who pays for the machine: a governor may be away now."""
    if (file := settings.load().worker_ended) is not None:
        with contextlib.suppress(OSError):
            file.touch()


class _Written(PrefectConsoleHandler):
    """Writes a line as it is, without Rich."""

    emit = logging.StreamHandler.emit
