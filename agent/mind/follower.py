"""Following the ledger: each consumer at its own pace, with its own cursor, through its own outages."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from agent.errors import LedgerError

logger = logging.getLogger("orc.mind")

#: seconds between looks at the ledger
LOOK = 0.5
#: longest pause between two tries at something that is away, seconds
PAUSE = 30.0


class Consumer(Protocol):
    """One reader of the ledger. What it could not tell stays behind its cursor and is told later."""

    @property
    def name(self) -> str:
        """What people read."""

    @property
    def away(self) -> tuple[type[Exception], ...]:
        """Errors that mean "it is away now": the look is tried again."""

    async def look(self) -> bool:
        """Take in what is new; True when there may be more at once."""

    async def leave(self) -> None:
        """Give connections back; called after each outage and at the end."""


async def follow(consumer: Consumer, stopping: asyncio.Event) -> None:
    """Until stopped. An outage delays, never loses."""
    pause = LOOK
    away: tuple[type[Exception], ...] = (*consumer.away, LedgerError)
    while not stopping.is_set():
        try:
            more = await consumer.look()
            pause = LOOK
            if not more:
                await rest(stopping, LOOK)
        except away as error:
            logger.warning("%s is away (%s); trying again in %.1f s", consumer.name, error, pause)
            await consumer.leave()
            await rest(stopping, pause)
            pause = min(PAUSE, pause * 2)
    await consumer.leave()


async def rest(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, or less when stopped."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
