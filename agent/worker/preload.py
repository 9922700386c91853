"""Loaded when a worker starts, so that its first task does not pay for imports."""

from __future__ import annotations

from typing import Any

import prefect.task_engine  # noqa: F401

import agent.worker.body  # noqa: F401
from agent.worker import leaving


def dask_setup(worker: Any) -> None:
    """Dask's hook for preloaded modules."""
    leaving.ready(worker)
