"""Workers that are waited for without a task that could be held: `wait_for_workers`, `scatter`, `ncores`, an actor."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from agent.model.events import WorkersWanted
from agent.scheduler.compatibility import ADAPTIVE
from agent.scheduler.host import Host

logger = logging.getLogger("orc.extension")

#: `wait_for_workers` asks for all workers each tenth of a second and says no number: so many questions in so long,
#: seconds
ASKED, WITHIN = 5, 1.5
#: of a loop around `ncores`, which has no pace of its own
COUNTED, COUNTED_WITHIN = 3, 5.0
#: seconds between two looks
LOOK = 0.5


class Demand:
    """Tells how many workers somebody waits for; 0 when nobody does any more.

    How many a client waits for it does not say. While it goes on asking, one more than there are is wanted, from four
    on by halves: a fleet comes up in few steps, and is at most half too large.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        #: an Adaptive has asked for its target
        self.adaptive = False
        self.wanted = 0
        self.why = ""
        self._asked: deque[float] = deque(maxlen=ASKED)
        self._counted: deque[float] = deque(maxlen=COUNTED)
        self._scattering = 0
        self._looking = False

    def wrap(self, handlers: dict[str, Callable[..., Any]]) -> None:
        """Hear of the questions by which clients wait for workers."""
        identity, scatter = handlers["identity"], handlers["scatter"]

        def asked(n_workers: int = -1, **rest: Any) -> Any:
            if n_workers == -1:
                self._asked.append(time.monotonic())
                self._soon()
            return identity(n_workers=n_workers, **rest)

        async def scattering(*args: Any, **kwargs: Any) -> Any:
            self._scattering += 1
            self._soon()
            try:
                return await scatter(*args, **kwargs)
            finally:
                self._scattering -= 1

        handlers["identity"], handlers["scatter"] = asked, scattering
        for name in ("ncores", "ncores_running"):
            handlers[name] = self._counting(handlers[name])
        handlers["adaptive_target"] = self._adaptive

    def _adaptive(self, *args: Any, **kwargs: Any) -> Any:
        """Dask's `Adaptive` asks how many workers there should be; it takes held tasks for demand."""
        if not self.adaptive:
            self.adaptive = True
            logger.warning("ORC: an Adaptive scales this cluster and takes held tasks for demand; %s", ADAPTIVE)
        return self.host.scheduler.adaptive_target(*args, **kwargs)

    def _counting(self, theirs: Callable[..., Any]) -> Callable[..., Any]:
        assert not inspect.iscoroutinefunction(theirs)

        def counted(**arguments: Any) -> Any:
            self._counted.append(time.monotonic())
            self._soon()
            return theirs(**arguments)

        return counted

    def waits(self) -> None:
        """A task that is not held has no worker."""
        self._soon()

    def _soon(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        running = len(self.host.scheduler.running)
        wanted, why = self._count(running)
        if wanted != self.wanted:
            self.wanted, self.why = wanted, why
            self.host.tell(WorkersWanted(wanted, why))
        if wanted or self._scattering or _often(self._asked, 1, WITHIN) or _often(self._counted, 1, COUNTED_WITHIN):
            self._soon()

    def _count(self, running: int) -> tuple[int, str]:
        if _often(self._asked, ASKED, WITHIN):
            return running + max(1, running // 2), "a client waits for workers"
        if running:
            return 0, ""
        if self._scattering:
            return 1, "data is to be scattered"
        if _often(self._counted, COUNTED, COUNTED_WITHIN):
            return 1, "a client asks for workers again and again"
        if self._stranded():
            return 1, "a task that is not held waits for a worker"
        return 0, ""

    def _stranded(self) -> bool:
        """Whether a task that any worker could take has none: an actor, or one of a run that is not governed."""
        some = itertools.islice(self.host.scheduler.unrunnable, 100)
        free = (not (ts.worker_restrictions or ts.host_restrictions or ts.resource_restrictions) for ts in some)
        return any(free) or bool(self.host.scheduler.queued)


def _often(times: Sequence[float], least: int, within: float) -> bool:
    """Whether the last so many were within so many seconds, up to now."""
    return len(times) >= least and time.monotonic() - times[-least] <= within
