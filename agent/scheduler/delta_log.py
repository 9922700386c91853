"""What happened, in numbered deltas, kept until a governor has them on record."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any

from agent.scheduler import protocol as p

#: deltas kept for a governor that is away
KEPT = 500_000


class DeltaLog:
    """Deltas since the last that is on record; the governor follows them by their numbers."""

    def __init__(self) -> None:
        #: number of the newest delta
        self.seq = 0
        self.deltas: deque[p.Delta] = deque(maxlen=KEPT)
        self._wake = asyncio.Event()

    def tell(self, delta: p.Delta) -> None:
        """Number a delta and wake the governor."""
        self.seq += 1
        self.deltas.append(delta)
        self._wake.set()

    async def news(self, ack: int, wait: float, gather: float) -> None:
        """Until there is a delta after `ack`, at most `wait` seconds; then `gather` seconds more, for company."""
        if ack != self.seq:
            return
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), wait)
            await asyncio.sleep(gather)
        except TimeoutError:
            pass

    def after(self, ack: int, most: int) -> dict[str, Any]:
        """Deltas after `ack`, at most so many; those up to it are on record, and forgotten. A gap: some are lost."""
        first = self.seq - len(self.deltas)
        if not first <= ack <= self.seq:
            return {"gap": True}
        for _ in range(ack - first):
            self.deltas.popleft()
        out = list(itertools.islice(self.deltas, most))
        return {"ack": ack + len(out), "deltas": out}

    def of(self, kind: str) -> Iterable[p.Delta]:
        """Deltas of a kind that are not on record yet."""
        return [delta for delta in self.deltas if delta[0] == kind]
