"""Loaded when a worker starts, so that its first task does not pay for imports."""

from __future__ import annotations

import logging
from typing import Any

import prefect.main
import prefect.task_engine  # noqa: F401
from prefect.logging.configuration import ensure_logging_setup
from prefect.logging.handlers import PrefectConsoleHandler

import agent.worker.body  # noqa: F401
from agent.worker import leaving


def dask_setup(worker: Any) -> None:
    """Dask's hook for preloaded modules."""
    leaving.ready(worker)
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


class _Written(PrefectConsoleHandler):
    """Lines as they are."""

    emit = logging.StreamHandler.emit
