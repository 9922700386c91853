"""Does this scheduler have what the extension relies on? Asked once, before anything is held."""

from __future__ import annotations

from typing import Any

import dask
import distributed
from distributed.scheduler import Scheduler, TaskState

#: releases of distributed the extension's tests have run on, by year and month
TESTED = ("2026.1", "2026.8")
#: what to do about Adaptive
ADAPTIVE = "give its limits to a pool instead (workers.min and workers.max in pools.yaml), and end the Adaptive"

_METHODS = (
    "_transitions",
    "transitions",
    "transition",
    "send_all",
    "valid_workers",
    "handle_long_running",
    "request_acquire_replicas",
)
_ATTRIBUTES = ("unrunnable", "tasks", "workers", "running", "stream_handlers", "stream_comms", "handlers", "extensions")
_TASK = (
    "state",
    "run_spec",
    "actor",
    "worker_restrictions",
    "host_restrictions",
    "resource_restrictions",
    "annotations",
    "priority",
    "processing_on",
    "suspicious",
)


def problems(scheduler: Any, allow_untested: bool = False) -> list[str]:
    """Why the scheduler cannot be governed; empty when it can."""
    out = [f"distributed's Scheduler has no {name}" for name in _METHODS if not hasattr(Scheduler, name)]
    out += [f"the scheduler has no {name}" for name in _ATTRIBUTES if not hasattr(scheduler, name)]
    out += [f"distributed's TaskState has no {name}" for name in _TASK if not hasattr(TaskState, name)]
    version = ".".join(distributed.__version__.split(".")[:2])
    if version not in TESTED and not allow_untested:
        out.append(
            f"distributed {distributed.__version__} is untested (tested: {', '.join(TESTED)}); "
            "set ORC_ALLOW_UNTESTED=true to govern it all the same"
        )
    return out


def warnings() -> list[str]:
    """Settings of Dask that mean something else on a governed scheduler."""
    out = []
    if timeout := dask.config.get("distributed.scheduler.no-workers-timeout", None):
        out.append(
            f"distributed.scheduler.no-workers-timeout={timeout} does not count the time a task is held by ORC; "
            "use deadlines or `orc why` instead"
        )
    return out
