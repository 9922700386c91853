"""The workers: declared pools, who joined, and how a plan sees them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.model.capacity import Load, WorkerCapacity
from agent.model.leases import OBSERVED, EndCause, Lease
from agent.model.pools import DEFAULT, Pool, PriceStep
from agent.model.snapshot import Group, PoolState, Starting, Worker
from agent.planner.room import load_of
from agent.state.leases import Leases, PoolStatus
from agent.state.markets import Markets
from agent.state.statistics import Statistics
from agent.state.tally import Tally


@dataclass(slots=True)
class LiveWorker:
    """A worker that joined."""

    counts: WorkerCapacity
    joined_ms: int
    idle_since_ms: int | None
    lease: int | None = None
    #: it was told that it is taken away
    noticed: bool = False
    #: since when it has tasks that no governor placed, ms
    others_since_ms: int | None = None

    def notice(self) -> None:
        """It is to be taken away, and gets no more work."""
        self.noticed = self.counts.draining = True

    @property
    def busy(self) -> bool:
        """Whether anything runs there, whoever sent it."""
        return bool(self.counts.bound or self.counts.others)

    def runs_others(self, others: int, slots: int, now_ms: int) -> None:
        """So many tasks and actors are on it that no governor placed, and take so many slots."""
        before = self.busy
        self.counts.others, self.counts.other_slots = others, slots
        if not others:
            self.others_since_ms = None
        elif self.others_since_ms is None:
            self.others_since_ms = now_ms
        if self.busy:
            self.idle_since_ms = None
        elif before:
            self.idle_since_ms = now_ms

    def others_end(self, now_ms: int) -> list[int]:
        """When the slots of such tasks are expected to be free, ms: nobody said, so as late again as they have run."""
        since = self.others_since_ms if self.others_since_ms is not None else now_ms
        return [now_ms + max(1_000, now_ms - since)] * min(self.counts.slots, self.counts.other_slots)


class Fleet:
    """Workers by pool and address."""

    def __init__(self, pools: Iterable[Pool], statistics: Statistics, tally: Tally) -> None:
        self.pools = {pool.name: PoolStatus(pool) for pool in pools}
        self.markets = Markets(status.pool for status in self.pools.values())
        self.leases = Leases(self.pools, statistics, tally, self.markets)
        self.live: dict[str, LiveWorker] = {}
        #: address → the lease of the worker that is, or was, there
        self.lease_of: dict[str, int] = {}
        #: a spot worker joined since running tasks were looked at
        self.came = False
        #: workers that somebody waits for without a task that could be held, in all, and who
        self.wanted, self.wanted_why = 0, ""
        self._statistics = statistics

    def joined(self, worker: Mapping[str, Any], now_ms: int) -> None:
        """A worker is on the scheduler, anew or as before."""
        name, pool, address = worker["name"], worker["pool"], worker["address"]
        status = self.pools.get(pool)
        old = self.live.get(address)
        size = status.pool if status is not None else None
        counts = WorkerCapacity(
            address=address,
            name=name,
            pool=pool,
            slots=worker["slots"],
            cpus=size.cpus if size else worker["slots"],
            memory_mib=size.memory_mib if size else worker["memory_mib"] or 2**40,
            gpus=size.gpus if size else 0,
            draining=worker["draining"],
            paused=worker["paused"],
        )
        if old is not None:
            counts.bound, counts.seceded = old.counts.bound, old.counts.seceded
        live = LiveWorker(counts, now_ms, None if counts.bound else now_ms)
        live.others_since_ms = old.others_since_ms if old is not None else None
        live.runs_others(worker.get("others", 0), worker.get("other_slots", 0), now_ms)
        live.noticed = old.noticed if old is not None else False
        self.live[address] = live
        if status is None:
            return
        self.came = self.came or status.pool.market == "spot"
        lease = self.leases.of_worker(name, pool) or self.leases.observe(status.pool, name, now_ms)
        self.leases.ready(lease.id, now_ms)
        live.lease = self.lease_of[address] = lease.id

    def gone(self, address: str, why: str, now_ms: int) -> Lease | None:
        """A worker left the scheduler. The lease of a launched one, which ends when its provider says so."""
        live = self.live.pop(address)
        lease = self.leases.open.get(live.lease) if live.lease is not None else None
        if lease is None or lease.ended_ms is not None:
            return None
        if lease.cause == OBSERVED:
            self.leases.end(lease.id, now_ms, EndCause.LEFT, why)
            return None
        return lease

    def price(self, pool: str, now_ms: int) -> int:
        """What a worker of the pool costs now, micro-dollars an hour."""
        status = self.pools.get(pool)
        if status is None:
            return 0
        return status.price if status.price is not None else status.pool.price_at(now_ms)

    def noticed(self, worker: str) -> str | None:
        """A worker is to be taken away: it gets no more work. Its address, when it has joined."""
        for address, live in self.live.items():
            if live.counts.name == worker:
                live.notice()
                return address
        return None

    def sighted(self, workers: Iterable[Mapping[str, Any]]) -> None:
        """The workers that the scheduler has now: no other gets work,
        though what became of them is still to be heard.
        """
        there = {worker["address"]: worker for worker in workers}
        for address, live in self.live.items():
            worker = there.get(address)
            if worker is None or worker["draining"]:
                live.counts.draining = True
            else:
                live.counts.paused = worker["paused"]

    def state_of(self, name: str) -> PoolState | None:
        """A pool as far as its declaration goes."""
        status = self.pools.get(name)
        pool = status.pool if status is not None else self._default_pool()
        return PoolState(pool=pool, usd_micros_per_hour=0) if pool is not None else None

    def load(self, group: Group, pool: str) -> Load:
        """What one task of the group takes on a worker of the pool."""
        state = self.state_of(pool)
        assert state is not None
        return load_of(group, state.pool)

    def states(self, now_ms: int, ends: Mapping[str, list[int]]) -> tuple[PoolState, ...]:
        """Every declared pool, and `default` when workers belong to none.

        Args:
            ends: address → when its tasks are expected to end, ms.
        """
        workers: dict[str, list[Worker]] = {}
        for address in sorted(self.live):
            live = self.live[address]
            workers.setdefault(live.counts.pool, []).append(
                self._worker(address, live, sorted([*ends.get(address, ()), *live.others_end(now_ms)]))
            )
        out = [self._pool(status, tuple(workers.get(name, ())), now_ms) for name, status in sorted(self.pools.items())]
        if DEFAULT in workers and (default := self._default_pool()) is not None:
            price = default.price_at(now_ms)
            out.append(PoolState(pool=default, usd_micros_per_hour=price, workers=tuple(workers[DEFAULT])))
        return tuple(out)

    def _worker(self, address: str, live: LiveWorker, ends: list[int]) -> Worker:
        free = live.counts.free()
        lease = self.leases.open.get(live.lease) if live.lease is not None else None
        return Worker(
            name=live.counts.name,
            address=address,
            slots=live.counts.slots,
            bound=live.counts.used,
            cpus_free=free.cpus,
            memory_free_mib=free.memory_mib,
            gpus_free=free.gpus,
            idle_since_ms=live.idle_since_ms,
            launched_ms=(lease.granted_ms if lease else None) or live.joined_ms,
            frees_ms=ends[0] if ends else None,
            ends_ms=tuple(ends),
            draining=live.counts.draining or live.counts.paused,
        )

    def _pool(self, status: PoolStatus, workers: tuple[Worker, ...], now_ms: int) -> PoolState:
        pool, statistics = status.pool, self._statistics
        spot = pool.market == "spot"
        running_hours = sum(now_ms - w.launched_ms for w in workers) / 3_600_000
        declared = pool.interruptions_per_1000_hours
        return PoolState(
            pool=pool,
            usd_micros_per_hour=status.price if status.price is not None else pool.price_at(now_ms),
            workers=workers,
            starting=tuple(Starting(name=n, asked_ms=at) for n, at in sorted(status.starting.items())),
            refused_since_ms=status.refused_since_ms,
            retry_ms=status.retry_ms,
            fault=status.fault,
            hazard_per_hour=statistics.hazard(pool.name, declared, running_hours) if spot else 0.0,
            startup_ms=round(statistics.startups.get(pool.name, pool.startup_ms)),
            returns_per_hour=statistics.returns(pool.name) if spot else 0.0,
        )

    def _default_pool(self) -> Pool | None:
        found = [live.counts for live in self.live.values() if live.counts.pool == DEFAULT]
        if not found:
            return None
        # nobody said what they cost: they count as the dearest, so that a declared pool is preferred
        dearest = max((status.pool.price[-1].usd_micros_per_hour for status in self.pools.values()), default=0)
        slots = max(c.slots for c in found)
        return Pool(
            name=DEFAULT,
            market="on-demand",
            cpus=slots,
            memory_mib=max(c.memory_mib for c in found),
            slots=slots,
            priced=False,
            price=(PriceStep(since_ms=0, usd_micros_per_hour=dearest),),
        )
