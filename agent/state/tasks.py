"""Tasks as the governor holds them: ready and waiting, or bound to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.model.capacity import NO_LOAD, Load


@dataclass(slots=True)
class ReadyTask:
    """A task that is ready and not bound."""

    key: Any
    spec: int
    #: what it takes in, rounded up to a power of two
    input_mib: int
    since_ms: int
    #: placements whose results it takes in, as the ledger stores them
    upstream: str = ""
    #: what its author said by Dask's `priority=`, in thousandths
    dask_priority: int = 0


@dataclass(slots=True)
class BoundTask:
    """A task that was sent to a worker."""

    task: ReadyTask
    placement: int
    group: str
    pool: str
    address: str
    at_ms: int
    expected_ms: int
    usd_micros_per_hour: int
    load: Load = NO_LOAD
    #: its last checkpoint, ms and bytes; None: it has none to leave at
    saved: tuple[int, int] | None = None
    #: it is slow when it has run for so long, ms
    slow_ms: int = 0
    #: whether spot would do the rest for less is looked at again when it has run for so long, ms
    back_ms: int = 0


@dataclass(frozen=True, slots=True)
class SavedWork:
    """What a checkpoint keeps of a task that was interrupted."""

    done_ms: int
    #: the pool it was left in
    pool: str
    mib: int


@dataclass(frozen=True, slots=True)
class TaskPast:
    """What befell a task, and what comes behind it: tasks of another past are another group."""

    preemptions: int = 0
    losses: int = 0
    saved: SavedWork | None = None
    #: longest path behind it, ms
    tail_ms: int = 0


def input_bucket(input_bytes: int) -> int:
    """MiB rounded up to a power of two; 0 below one."""
    mib = input_bytes // 2**20
    return 0 if mib <= 0 else 1 << (mib - 1).bit_length() if mib > 1 else 1
