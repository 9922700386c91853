"""Leases from asking for a worker on: what was asked of providers, what they answered, and what it cost. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import orjson

from agent.model.leases import INTERRUPTIONS, OBSERVED, EndCause, Lease
from agent.model.pools import Pool
from agent.state.markets import Markets
from agent.state.statistics import Statistics
from agent.state.tally import Tally

#: longest pause between launch attempts in a pool that refuses, ms
RETRY_MOST_MS = 60_000


@dataclass(slots=True)
class PoolStatus:
    """A declared pool, what was asked of its provider, and what it answered."""

    pool: Pool
    #: workers that were asked for and have not joined → since when, ms
    starting: dict[str, int] = field(default_factory=dict)
    #: first of the refusals since the last grant, ms
    refused_since_ms: int | None = None
    #: launch attempts in a row that gave no worker
    failures: int = 0
    #: no launch is tried before, ms
    retry_ms: int = 0
    #: why the last launch failed, where it was not the market; ""
    fault: str = ""
    #: price of a worker now, micro-dollars an hour; None: as declared
    price: int | None = None


class Leases:
    """Every open lease, by number."""

    def __init__(self, pools: Mapping[str, PoolStatus], statistics: Statistics, tally: Tally, markets: Markets) -> None:
        self.pools = pools
        self.open: dict[int, Lease] = {}
        self.next_id = 1
        self.retry_most_ms = RETRY_MOST_MS
        #: numbers of those that are not on record as they are
        self._changed: set[int] = set()
        self._statistics, self._tally, self.markets = statistics, tally, markets

    # ------------------------------------------------------------------ on record
    def unrecorded(self) -> list[Lease]:
        """Those that are not on record as they are, by number."""
        return [self.open[number] for number in sorted(self._changed)]

    def recorded(self, leases: Iterable[Lease]) -> None:
        """These are on record; what has ended is let go."""
        for lease in leases:
            if self.open.get(lease.id) is lease:
                self._changed.discard(lease.id)
                if lease.ended_ms is not None:
                    del self.open[lease.id]

    def restore(self, leases: Iterable[Lease]) -> None:
        """Leases that an earlier governor left open."""
        self.open.update((lease.id, lease) for lease in leases)

    # ------------------------------------------------------------------ a lease's life
    def draft(self, pool: Pool, now_ms: int, why: str) -> Lease:
        """A lease for a worker that may be asked for, under a name that no other worker has had.

        Nothing is changed yet.
        """
        number, self.next_id = self.next_id, self.next_id + 1
        return _lease(number, pool, f"{pool.name}-{number}", now_ms, why)

    def ask(self, lease: Lease) -> None:
        """A lease is on record, and its worker is asked for."""
        self.open[lease.id] = lease
        self.pools[lease.pool].starting[lease.worker] = lease.asked_ms

    def observe(self, pool: Pool, worker: str, now_ms: int) -> Lease:
        """A worker joined that somebody else started: it is paid for from now on."""
        number, self.next_id = self.next_id, self.next_id + 1
        self.markets.granted(pool.name, now_ms)
        return self._put(replace(_lease(number, pool, worker, now_ms, OBSERVED), granted_ms=now_ms))

    def of_worker(self, worker: str, pool: str) -> Lease | None:
        """The open lease of a worker."""
        of_it = (x for x in self.open.values() if x.worker == worker and x.pool == pool and x.ended_ms is None)
        return next(of_it, None)

    def granted(self, number: int, now_ms: int) -> None:
        """The provider gave a worker; billing starts."""
        lease = self.open[number]
        if lease.granted_ms is not None or lease.ended_ms is not None:
            # it joined, or ended, before the provider's answer was heard
            return
        status = self.pools[lease.pool]
        status.fault = ""
        if status.pool.market == "spot":
            # capacity is there; a worker that then fails to come up is another matter
            if status.refused_since_ms is not None:
                self._statistics.record_refusal(lease.pool, now_ms - status.refused_since_ms, True)
            status.refused_since_ms = None
        self.markets.granted(lease.pool, now_ms)
        self._put(replace(lease, granted_ms=now_ms))

    def ready(self, number: int, now_ms: int) -> None:
        """Its worker joined: so there is capacity."""
        if self.open[number].granted_ms is None:
            # its governor ended before it heard of the grant
            self.granted(number, now_ms)
        lease = self.open[number]
        status = self.pools[lease.pool]
        status.starting.pop(lease.worker, None)
        status.refused_since_ms, status.failures, status.retry_ms = None, 0, 0
        if lease.ready_ms is None:
            if lease.cause != OBSERVED:
                self._statistics.record_startup(lease.pool, now_ms - lease.asked_ms)
            self._put(replace(lease, ready_ms=now_ms))

    def refused(self, number: int, now_ms: int, why: str) -> None:
        """The market has no capacity; ask again later, each time later."""
        status = self._not_given(number, now_ms, EndCause.REFUSED, f"refused: {why}")
        self.markets.refused(status.pool.name, now_ms)
        status.refused_since_ms = status.refused_since_ms if status.refused_since_ms is not None else now_ms

    def failed(self, number: int, now_ms: int, why: str) -> None:
        """The launch failed by a fault that says nothing of the market: it is named,
        and tried again each time later.
        """
        self._not_given(number, now_ms, EndCause.FAULT, f"failed: {why}").fault = why

    def _not_given(self, number: int, now_ms: int, end: EndCause, words: str) -> PoolStatus:
        lease = self.open[number]
        status = self.pools[lease.pool]
        status.starting.pop(lease.worker, None)
        _put_off(status, now_ms, self.retry_most_ms)
        self._put(replace(lease, ended_ms=now_ms, cause=words, end=end))
        return status

    def end(self, number: int, now_ms: int, end: EndCause, words: str = "") -> None:
        """The worker is gone; what it cost is known."""
        lease = self.open.get(number)
        if lease is None or lease.ended_ms is not None:
            return
        status = self.pools.get(lease.pool)
        usd = 0
        if status is not None:
            usd = status.pool.billed(lease.granted_ms, now_ms) if lease.granted_ms is not None else 0
            status.starting.pop(lease.worker, None)
            if lease.ready_ms is None:
                # it never came up: as good as a refusal, or it would be launched again at once, for ever
                _put_off(status, now_ms, self.retry_most_ms)
                status.refused_since_ms = status.refused_since_ms if status.refused_since_ms is not None else now_ms
        if lease.granted_ms is not None:
            self.markets.ended(lease.pool, end == EndCause.INTERRUPTED, now_ms)
        lived_ms = now_ms - (lease.granted_ms or now_ms)
        self._statistics.record_worker_life(lease.pool, lived_ms, end in INTERRUPTIONS)
        ended = replace(lease, ended_ms=now_ms, cause=words or str(end), end=end, usd_micros=usd)
        self._tally.lease_usd_micros[lease.pool, str(end)] += usd
        self._put(ended)

    def _put(self, lease: Lease) -> Lease:
        self.open[lease.id] = lease
        self._changed.add(lease.id)
        return lease

    def open_usd_micros(self, now_ms: int) -> int:
        """What the open leases cost so far."""
        return sum(
            status.pool.billed(lease.granted_ms, now_ms)
            for lease in self.open.values()
            if (status := self.pools.get(lease.pool)) is not None
            and lease.granted_ms is not None
            and lease.ended_ms is None
        )

    @property
    def dirty(self) -> bool:
        """Some are not on record as they are."""
        return bool(self._changed)


def _put_off(status: PoolStatus, now_ms: int, most_ms: int) -> None:
    """The next launch attempt comes later, each time later."""
    if status.retry_ms <= now_ms:
        status.failures += 1
        status.retry_ms = now_ms + min(most_ms, 1_000 * 2 ** min(status.failures, 20))


def _lease(number: int, pool: Pool, worker: str, now_ms: int, why: str) -> Lease:
    price = orjson.dumps(
        {"steps": [[s.since_ms, s.usd_micros_per_hour] for s in pool.price], "min_billing_ms": pool.min_billing_ms}
    ).decode()
    return Lease(
        id=number, pool=pool.name, kind=pool.shown_kind, worker=worker, asked_ms=now_ms, cause=why, price=price
    )
