"""What happened, in numbered events, kept until a governor has them on record."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any

from agent.model.events import Event, WireEvent, to_wire

#: events kept for a governor that is away
KEPT = 500_000


class DeltaLog:
    """Events since the last that is on record: the deltas that the governor follows by their numbers."""

    def __init__(self) -> None:
        #: number of the newest event
        self.seq = 0
        self.deltas: deque[Event] = deque(maxlen=KEPT)
        self._wake = asyncio.Event()

    def tell(self, event: Event) -> None:
        """Number an event and wake the governor."""
        self.seq += 1
        self.deltas.append(event)
        self._wake.set()

    async def news(self, ack: int, wait: float, gather: float) -> None:
        """Until there is one after `ack`, at most `wait` seconds; then `gather` seconds more, for company."""
        if ack != self.seq:
            return
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), wait)
            await asyncio.sleep(gather)
        except TimeoutError:
            pass

    def after(self, ack: int, most: int) -> dict[str, Any]:
        """Those after `ack`, at most so many; those up to it are on record, and forgotten. A gap: some are lost."""
        first = self.seq - len(self.deltas)
        if not first <= ack <= self.seq:
            return {"gap": True}
        for _ in range(ack - first):
            self.deltas.popleft()
        out = [to_wire(event) for event in itertools.islice(self.deltas, most)]
        return {"ack": ack + len(out), "deltas": out}

    def unrecorded(self, kind: type[Event]) -> list[WireEvent]:
        """Those of a kind that are not on record yet."""
        return [to_wire(event) for event in self.deltas if type(event) is kind]
