"""The workers: declared pools and what their providers answered, who joined, and the leases they are paid by. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from agent.model.pools import DEFAULT, Pool, PriceStep
from agent.model.records import Lease
from agent.model.snapshot import PoolState, Starting, Worker
from agent.scheduler.counts import Counts
from agent.state.statistics import Statistics
from agent.state.tally import Tally

#: longest pause between launch attempts in a pool that refuses, ms
RETRY_MOST_MS = 60_000


@dataclass(slots=True)
class PoolStatus:
    """A declared pool, what was asked of its provider, and what it answered."""

    pool: Pool
    starting: dict[str, int] = field(default_factory=dict)
    refused_since_ms: int | None = None
    refusals: int = 0
    retry_ms: int = 0
    price: int | None = None


@dataclass(slots=True)
class Live:
    """A worker that joined."""

    counts: Counts
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
    """Workers by pool and address, and leases from asking for a worker on."""

    def __init__(self, pools: Iterable[Pool], statistics: Statistics, tally: Tally) -> None:
        self.pools = {pool.name: PoolStatus(pool) for pool in pools}
        self.live: dict[str, Live] = {}
        self.leases: dict[int, Lease] = {}
        self.lease_of: dict[str, int] = {}
        self.next_lease = 1
        self.changed_leases: set[int] = set()
        #: launched workers that left the scheduler, and why; their processes may still be there
        self.left: list[tuple[Lease, str]] = []
        self.retry_most_ms = RETRY_MOST_MS
        #: a spot worker joined since running tasks were looked at
        self.came = False
        #: something happened that may change the plan
        self.dirty = True
        self._statistics, self._tally = statistics, tally

    def joined(self, worker: Mapping[str, Any], now_ms: int) -> None:
        """A worker is on the scheduler, anew or as before."""
        name, pool, address = worker["name"], worker["pool"], worker["address"]
        view = self.pools.get(pool)
        old = self.live.get(address)
        size = view.pool if view is not None else None
        counts = Counts(
            address,
            name,
            pool,
            worker["slots"],
            size.cpus if size else worker["slots"],
            size.memory_mib if size else worker["memory_mib"] or 2**40,
            size.gpus if size else 0,
            draining=worker["draining"],
            paused=worker["paused"],
        )
        if old is not None:
            counts.bound, counts.lent = old.counts.bound, old.counts.lent
        live = Live(counts, now_ms, None if counts.bound else now_ms)
        live.others_since_ms = old.others_since_ms if old is not None else None
        live.runs_others(worker.get("others", 0), worker.get("other_slots", 0), now_ms)
        live.noticed = old.noticed if old is not None else False
        self.live[address] = live
        if view is not None:
            asked = view.starting.pop(name, None)
            view.refused_since_ms, view.refusals, view.retry_ms = None, 0, 0
            self.came = self.came or view.pool.market == "spot"
            if asked is not None:
                self._statistics.record_startup(pool, now_ms - asked)
        lease = next(
            (x for x in self.leases.values() if x.worker == name and x.pool == pool and x.ended_ms is None), None
        )
        if lease is None and view is not None:
            lease = self.new_lease(view.pool, name, now_ms, "observed", granted=True)
        if lease is not None:
            if lease.ready_ms is None:
                self._lease(replace(lease, ready_ms=now_ms))
            live.lease = lease.id
            self.lease_of[address] = lease.id

    def gone(self, address: str, why: str, now_ms: int) -> None:
        """A worker left the scheduler. A launched one's lease ends when its provider says so."""
        live = self.live.pop(address)
        lease = self.leases.get(live.lease) if live.lease is not None else None
        if lease is not None and lease.cause == "observed":
            self.end_lease(lease.id, now_ms, why or "left")
        elif lease is not None and lease.ended_ms is None:
            self.left.append((lease, why))

    def new_lease(self, pool: Pool, worker: str, now_ms: int, cause: str, granted: bool = False) -> Lease:
        """A lease from asking for a worker on."""
        self.next_lease += 1
        price = orjson.dumps(
            {"steps": [[s.since_ms, s.usd_micros_per_hour] for s in pool.price], "min_billing_ms": pool.min_billing_ms}
        ).decode()
        lease = Lease(
            id=self.next_lease - 1,
            pool=pool.name,
            kind=pool.shown_kind,
            worker=worker,
            asked_ms=now_ms,
            granted_ms=now_ms if granted else None,
            cause=cause,
            price=price,
        )
        self._lease(lease)
        return lease

    def _lease(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self.changed_leases.add(lease.id)
        self.dirty = True

    def granted(self, lease_id: int, now_ms: int) -> None:
        """The provider gave a worker; billing starts."""
        lease = self.leases[lease_id]
        view = self.pools[lease.pool]
        if view.pool.market == "spot":
            # capacity is there; a worker that then fails to come up is another matter
            if view.refused_since_ms is not None:
                self._statistics.record_refusal(lease.pool, now_ms - view.refused_since_ms, True)
            view.refused_since_ms = None
        self._lease(replace(lease, granted_ms=now_ms))

    def refused(self, lease_id: int, now_ms: int, why: str) -> None:
        """The provider has no capacity; ask again later, each time later."""
        lease = self.leases[lease_id]
        view = self.pools[lease.pool]
        view.starting.pop(lease.worker, None)
        self._put_off(view, now_ms)
        self._lease(replace(lease, ended_ms=now_ms, cause=f"refused: {why}"))

    def _put_off(self, view: PoolStatus, now_ms: int) -> None:
        """The next launch attempt comes later, each time later."""
        if view.retry_ms <= now_ms:
            view.refusals += 1
            view.refused_since_ms = view.refused_since_ms if view.refused_since_ms is not None else now_ms
            view.retry_ms = now_ms + min(self.retry_most_ms, 1_000 * 2 ** min(view.refusals, 20))

    def end_lease(self, lease_id: int, now_ms: int, cause: str) -> None:
        """The worker is gone; what it cost is known."""
        lease = self.leases.get(lease_id)
        if lease is None or lease.ended_ms is not None:
            return
        view = self.pools.get(lease.pool)
        usd = view.pool.billed(lease.granted_ms, now_ms) if view is not None and lease.granted_ms is not None else 0
        if view is not None:
            view.starting.pop(lease.worker, None)
            self._statistics.record_worker_life(
                lease.pool, now_ms - (lease.granted_ms or now_ms), "taken" in cause or "died" in cause
            )
            if lease.ready_ms is None:
                # it never came up: as good as a refusal, or it would be launched again at once, for ever
                self._put_off(view, now_ms)
        self._tally.lease_usd_micros[lease.pool, cause] += usd
        self._lease(replace(lease, ended_ms=now_ms, cause=cause, usd_micros=usd))

    def open_usd_micros(self, now: int) -> int:
        """What the open leases cost so far."""
        return sum(
            view.pool.billed(lease.granted_ms, now)
            for lease in self.leases.values()
            if (view := self.pools.get(lease.pool)) is not None
            and lease.granted_ms is not None
            and lease.ended_ms is None
        )

    def price(self, pool: str, now: int) -> int:
        """Of a worker now, micro-dollars an hour."""
        view = self.pools.get(pool)
        return (view.price if view.price is not None else view.pool.price_at(now)) if view is not None else 0

    def noticed(self, worker: str) -> str | None:
        """A worker is to be taken away: it gets no more work. Its address, when it has joined."""
        for address, live in self.live.items():
            if live.counts.name == worker:
                live.notice()
                self.dirty = True
                return address
        return None

    def seen(self, workers: Iterable[Mapping[str, Any]]) -> None:
        """The workers that the scheduler has now: no other gets work, though what became of them is still to be heard."""
        there = {worker["address"]: worker for worker in workers}
        for address, live in self.live.items():
            worker = there.get(address)
            if worker is None or worker["draining"]:
                live.counts.draining = True
            else:
                live.counts.paused = worker["paused"]
        self.dirty = True

    def state_of(self, name: str) -> PoolState | None:
        """A pool as far as its declaration goes."""
        view = self.pools.get(name)
        pool = view.pool if view is not None else self._default_pool()
        return PoolState(pool=pool, usd_micros_per_hour=0) if pool is not None else None

    def states(self, now_ms: int, ends: Mapping[str, list[int]]) -> tuple[PoolState, ...]:
        """Every declared pool, and `default` when workers belong to none.

        Args:
            ends: address → when its tasks are expected to end, ms.
        """
        workers: dict[str, list[Worker]] = {}
        for address in sorted(self.live):
            live = self.live[address]
            _, cpus, memory, gpus = live.counts.free()
            until = sorted([*ends.get(address, ()), *live.others_end(now_ms)])
            lease = self.leases.get(live.lease) if live.lease is not None else None
            workers.setdefault(live.counts.pool, []).append(
                Worker(
                    name=live.counts.name,
                    address=address,
                    slots=live.counts.slots,
                    bound=live.counts.used,
                    cpus_free=cpus,
                    memory_free_mib=memory,
                    gpus_free=gpus,
                    idle_since_ms=live.idle_since_ms,
                    launched_ms=(lease.granted_ms if lease else None) or live.joined_ms,
                    frees_ms=until[0] if until else None,
                    ends_ms=tuple(until),
                    draining=live.counts.draining or live.counts.paused,
                )
            )
        out = []
        for name, view in sorted(self.pools.items()):
            pool = view.pool
            out.append(
                PoolState(
                    pool=pool,
                    usd_micros_per_hour=view.price if view.price is not None else pool.price_at(now_ms),
                    workers=tuple(workers.get(name, ())),
                    starting=tuple(Starting(name=n, asked_ms=at) for n, at in sorted(view.starting.items())),
                    refused_since_ms=view.refused_since_ms,
                    retry_ms=view.retry_ms,
                    hazard_per_hour=self._statistics.hazard(
                        name,
                        pool.interruptions_per_1000_hours,
                        sum(now_ms - w.launched_ms for w in workers.get(name, ())) / 3_600_000,
                    )
                    if pool.market == "spot"
                    else 0.0,
                    startup_ms=round(self._statistics.startups.get(name, pool.startup_ms)),
                    returns_per_hour=self._statistics.returns(name) if pool.market == "spot" else 0.0,
                )
            )
        if DEFAULT in workers and (default := self._default_pool()) is not None:
            out.append(
                PoolState(pool=default, usd_micros_per_hour=default.price_at(now_ms), workers=tuple(workers[DEFAULT]))
            )
        return tuple(out)

    def _default_pool(self) -> Pool | None:
        found = [live.counts for live in self.live.values() if live.counts.pool == DEFAULT]
        if not found:
            return None
        # nobody said what they cost: they count as the dearest, so that a declared pool is preferred
        dearest = max((view.pool.price[-1].usd_micros_per_hour for view in self.pools.values()), default=0)
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
