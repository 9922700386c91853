"""What the parts of the extension share: tasks, workers, pools, and how the governor is told of something."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.model.capacity import PoolSpec, WorkerCapacity
from agent.model.events import Event
from agent.model.outcomes import Result
from agent.scheduler import protocol
from agent.scheduler.delta_log import DeltaLog
from agent.scheduler.spec_registry import SpecRegistry


@dataclass(slots=True)
class GovernedTask:
    """A task the extension holds or has bound."""

    key: Any
    #: number of what it says
    spec: int
    #: resources its author asked for; given back at bind
    asked: dict[str, float] | None
    since_ms: int
    ready: bool = False
    #: address of the worker it is bound to, and since when, ms
    on: str | None = None
    bound_ms: int = 0
    withdrawing: bool = False
    #: the restriction its bind gave it; another object there means Dask pinned it (a shuffle's partition)
    ours: set[str] | None = None
    #: when its inputs were ready, seconds of the performance counter
    ready_at: float = 0.0
    #: its body has checkpoints, so it can leave; when the last one was written, ms, and its bytes
    checkpoint: tuple[int, int] | None = None
    #: why its body left its worker by itself
    left: Result | None = None


class Host:
    """Shared by the parts. What one of them needs of another beside this, it is given by name."""

    def __init__(self, scheduler: Any, mode: str) -> None:
        #: Dask's
        self.scheduler = scheduler
        #: of tasks whose flow says none: govern, shadow or off
        self.mode = mode
        self.tasks: dict[Any, GovernedTask] = {}
        #: address → what is taken on that worker
        self.workers: dict[str, WorkerCapacity] = {}
        #: the governor's pools by name
        self.pools: dict[str, PoolSpec] = {}
        self.log = DeltaLog()
        self.specs = SpecRegistry(self.log.tell)
        #: longest stretch of the scheduler's loop by ORC, ms, by what it did
        self.longest_ms = dict.fromkeys(("hold", "bind", "release", "copy", "watch"), 0.0)

    def tell(self, event: Event) -> None:
        """Have the governor told of something."""
        self.log.tell(event)

    def took(self, what: str, begin: float) -> None:
        """Note how long the loop was held, from an instant of its thread's own time.

        By the clock, other processes of a busy machine would count.
        """
        self.longest_ms[what] = max(self.longest_ms[what], (time.thread_time() - begin) * 1000)

    def mode_of(self, says: Mapping[str, Any] | None) -> str:
        """A flow's own word, else the scheduler's mode."""
        return (says.get(protocol.MODE) if says else None) or self.mode

    def governs(self, task: GovernedTask) -> bool:
        """Whether a governor decides where it runs."""
        return self.mode != "off" and self.mode_of(self.specs.says(task.spec)) == "govern"

    def members(self, pool: str) -> list[WorkerCapacity]:
        """The workers of a pool."""
        return [worker for worker in self.workers.values() if worker.pool == pool]

    def between(self, name: str, ours: Callable[..., Any]) -> None:
        """Have `ours(theirs, **message)` called where Dask's stream handler of that name was."""
        theirs = self.scheduler.stream_handlers[name]

        def handle(**message: Any) -> Any:
            return ours(theirs, **message)

        self.scheduler.stream_handlers[name] = handle
