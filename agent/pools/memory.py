"""A provider without machines, for tests and simulations: it grants what it is told to grant."""

from __future__ import annotations

from agent.errors import NoCapacityError
from agent.model.leases import EndCause
from agent.model.pools import Pool
from agent.pools.port import Gone, Report


class MemoryProvider:
    """Workers are names; `capacity` by pool is how many it grants (None: all)."""

    def __init__(self, capacity: dict[str, int] | None = None) -> None:
        self.capacity = capacity or {}
        self.workers: dict[str, str] = {}
        self.report: Report = lambda observation: None

    async def launch(self, pool: Pool, worker: str) -> None:
        """See `Provider`."""
        taken = sum(1 for name in self.workers.values() if name == pool.name)
        if taken >= self.capacity.get(pool.name, 2**31):
            raise NoCapacityError(f"{pool.name} has no capacity")
        self.workers[worker] = pool.name

    async def end(self, worker: str) -> None:
        """See `Provider`."""
        if self.workers.pop(worker, None) is not None:
            self.report(Gone(worker=worker, cause=EndCause.DRAINED))

    async def adopt(self, report: Report) -> dict[str, int | None]:
        """See `Provider`."""
        self.report = report
        return dict.fromkeys(self.workers)
