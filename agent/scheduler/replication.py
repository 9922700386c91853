"""Copies of small results that a worker alone has which may be taken away.

Lost, each costs a run that finds it stored, or all of its work.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from agent.scheduler.host import Host

#: results of up to so many bytes get one
SMALL = 64 * 1024
#: seconds they wait for company
GATHER = 0.5
#: asked for in one stretch of the loop
MOST = 1000


class Replication:
    """Has results of spot workers copied to workers that stay, where there are any."""

    def __init__(self, host: Host) -> None:
        self.host = host
        #: keys whose results want a copy
        self.wanted: deque[Any] = deque()
        #: copies asked for so far
        self.asked = 0

    def stored(self, key: Any, address: str) -> None:
        """A result is on that worker now."""
        if self._safe(address):
            return
        self.wanted.append(key)
        if len(self.wanted) == 1:
            asyncio.get_running_loop().call_later(GATHER, self._ask)

    def _safe(self, address: str) -> bool:
        worker = self.host.workers.get(address)
        pool = self.host.pools.get(worker.pool) if worker is not None else None
        return pool is None or pool.safe

    def _ask(self) -> None:
        scheduler, begin = self.host.scheduler, time.thread_time()
        going = [
            c.address
            for c in self.host.workers.values()
            if not (c.draining or c.paused) and c.address in scheduler.workers
        ]
        some = [address for address in going if self._safe(address)] or going
        asked: dict[str, list[Any]] = {}
        for _ in range(min(MOST, len(self.wanted))):
            ts = scheduler.tasks.get(self.wanted.popleft())
            if ts is None or ts.state != "memory" or len(ts.who_has) != 1 or ts.nbytes > SMALL:
                continue
            (holder,) = (ws.address for ws in ts.who_has)
            if others := [address for address in some if address != holder]:
                self.asked += 1
                asked.setdefault(others[self.asked % len(others)], []).append(ts.key)
        for address, keys in asked.items():
            scheduler.request_acquire_replicas(address, keys, stimulus_id="orc-copy")
        if self.wanted:
            asyncio.get_running_loop().call_later(GATHER, self._ask)
        self.host.took("copy", begin)
