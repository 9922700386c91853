"""The governor's hand on the ledger: one thread that writes, one lease that is renewed whatever else happens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from agent.errors import LedgerAwayError
from agent.governor.timers import Timer
from agent.ledger.ledger import Ledger
from agent.model.records import Entry
from agent.model.snapshot import Budget

logger = logging.getLogger("orc.governor")

#: another governor may take over when this one was not seen for so long
STALE_MS = 10_000
#: so often the lease is renewed, ms
RENEW_MS = 3_000

T = TypeVar("T")


class Journal:
    """Appends entries in order, from one thread, and keeps the right to."""

    def __init__(self, ledger: Ledger, holder: str, budgets: Mapping[str, Budget]) -> None:
        self.ledger, self.holder, self.declared_budgets = ledger, holder, budgets
        #: time of the newest commits, ms
        self.commit_ms: deque[float] = deque(maxlen=1_000)
        self._renewal = Timer(RENEW_MS)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="orc-ledger")

    async def call(self, call: Callable[..., T], *arguments: Any) -> T:
        """Something of the ledger's, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, partial(call, *arguments))

    # ------------------------------------------------------------------ the lease
    async def acquire(self, now_ms: int) -> int | None:
        """Take the lease: the epoch, or None while another governor holds it, or nobody can take it."""
        try:
            epoch: int | None = await self.call(self.ledger.acquire_lease, self.holder, now_ms, STALE_MS)
        except LedgerAwayError as error:
            if self.ledger.spool is None:
                raise
            logger.warning("%s; nobody can take over until it is back", error)
            return None
        if epoch is not None:
            self._renewal.restart(now_ms)
            limits = {name: budget.limit_usd_micros for name, budget in self.declared_budgets.items()}
            await self.call(self.ledger.declare_budgets, limits)
        return epoch

    async def renew(self, now_ms: int) -> None:
        """Keep the lease, when it is time to. Raises FencedError when another has taken it."""
        if self._renewal.take(now_ms):
            await self.call(self.ledger.renew_lease, now_ms)

    async def resign(self) -> None:
        """Let the next governor take over at once."""
        await self.call(self.ledger.release_lease)

    def close(self) -> None:
        """End the thread and give the connections back, whether it ever had the lease or not."""
        self._writer.shutdown()
        self.ledger.close()

    # ------------------------------------------------------------------ writing
    async def commit(self, entry: Entry) -> None:
        """Append an entry, durably.

        Raises:
            FencedError: another governor has taken over.
            BudgetTakenError, LedgerAwayError: nothing was written, and nothing may follow from it.
        """
        begin = time.perf_counter()
        await self.call(self.ledger.append, entry)
        self._renewal.restart(entry.at_ms)
        self.commit_ms.append((time.perf_counter() - begin) * 1000)

    def may_wait(self, error: Exception) -> bool:
        """Whether a refused commit may be tried again: another was faster, or the database is away and there is a
        spool.
        """
        return not isinstance(error, LedgerAwayError) or self.ledger.spool is not None

    async def budgets(self) -> tuple[Budget, ...]:
        """Every declared budget as it stands; closed while the database is away, when nobody can know."""
        declared = sorted(self.declared_budgets.items())
        try:
            stored = await self.call(self.ledger.budgets)
        except LedgerAwayError:
            return tuple(replace(budget, closed=True) for _, budget in declared)
        return tuple(
            replace(stored[name], max_runtime_ms=b.max_runtime_ms, closed=self.ledger.away)
            for name, b in declared
            if name in stored
        )
