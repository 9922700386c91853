"""Markets of zones: what launches and losses taught of their capacity, tick by tick. No I/O."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

from agent.model.market import MarketBeliefs
from agent.model.pools import Pool
from agent.planner.long_job.beliefs import Beliefs
from agent.planner.long_job.setting import LIVE

#: a zone is looked at once in so long of the market's time, ms
TICK_MS = 300_000
TICK_H = TICK_MS / 3_600_000
#: capacity that nobody has asked for in so many ticks, a week, is as likely as ever
LONG = 2_016


class ZoneWatch:
    """Zones that sell workers of one size, each a spot pool: beliefs that are told what was seen.

    In each tick a zone is seen up when a worker is granted, or one that was granted is kept; down when one is refused,
    or taken away. A worker that runs through a tick says that its zone was up in it. Time is cut the same way whoever
    asks, so that what is rebuilt from the ledger is what was believed live.
    """

    def __init__(self, name: str, pools: Iterable[Pool]) -> None:
        pools = sorted(pools, key=lambda pool: pool.name)
        self.name, self.speed = name, pools[0].speed
        self.zones = tuple(pool.name for pool in pools)
        self._beliefs = Beliefs(len(self.zones), TICK_H, LIVE.prior, LIVE.regimes)
        #: zone → workers of it that are paid for
        self._kept: Counter[int] = Counter()
        self._tick: int | None = None
        #: times that something was seen, or a tick passed
        self.version = 0

    def granted(self, pool: str, now_ms: int) -> None:
        """A worker was granted there, or is seen there for the first time."""
        at = self._saw(pool, True, now_ms)
        self._kept[at] += 1

    def refused(self, pool: str, now_ms: int) -> None:
        """A worker was asked for and not granted."""
        self._saw(pool, False, now_ms)

    def ended(self, pool: str, interrupted: bool, now_ms: int) -> None:
        """A worker that was granted is no longer paid for."""
        at = self.zones.index(pool)
        self.pass_to(now_ms)
        self._kept[at] = max(0, self._kept[at] - 1)
        if interrupted:
            self._saw(pool, False, now_ms)

    def pass_to(self, now_ms: int) -> None:
        """Ticks pass until now."""
        tick = now_ms * self.speed // TICK_MS
        passed = tick - (tick if self._tick is None else self._tick)
        self._tick = max(tick, self._tick or 0)
        if passed <= 0:
            return
        self.version += 1
        if passed > LONG and not +self._kept:
            self._beliefs.pass_ticks(passed - LONG)
            passed = LONG
        for _ in range(passed):
            self._still_up(self._beliefs)
            self._beliefs.pass_ticks(1)

    def value(self, now_ms: int) -> MarketBeliefs:
        """All that is believed now."""
        self.pass_to(now_ms)
        assert self._tick is not None
        believed = copy.deepcopy(self._beliefs)
        self._still_up(believed)
        ends_ms = -(-(self._tick + 1) * TICK_MS // self.speed)
        return believed.value(self.zones, name=self.name, speed=self.speed, ends_ms=ends_ms)

    def _still_up(self, beliefs: Beliefs) -> None:
        """Workers that were not taken say so of their zones, at the end of a tick:
        within it they may still be taken.
        """
        for zone in sorted(+self._kept):
            if beliefs.now[zone] is None:
                beliefs.saw(zone, True)

    def _saw(self, pool: str, up: bool, now_ms: int) -> int:
        self.pass_to(now_ms)
        at = self.zones.index(pool)
        self._beliefs.saw(at, up)
        self.version += 1
        return at


class Markets:
    """The markets of some pools: spot pools of one size in at least two zones."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        by_size: dict[str, list[Pool]] = {}
        for pool in pools:
            if pool.market == "spot" and pool.zone:
                name = pool.shown_size if pool.speed == 1 else f"{pool.shown_size}, played {pool.speed} times as fast"
                by_size.setdefault(name, []).append(pool)
        self.all = tuple(
            ZoneWatch(name, of_it) for name, of_it in sorted(by_size.items()) if len({pool.zone for pool in of_it}) > 1
        )
        self._of = {pool: market for market in self.all for pool in market.zones}

    def granted(self, pool: str, now_ms: int) -> None:
        """See `ZoneWatch.granted`; of a pool in no market nothing is kept."""
        if (market := self._of.get(pool)) is not None:
            market.granted(pool, now_ms)

    def refused(self, pool: str, now_ms: int) -> None:
        """See `ZoneWatch.refused`."""
        if (market := self._of.get(pool)) is not None:
            market.refused(pool, now_ms)

    def ended(self, pool: str, interrupted: bool, now_ms: int) -> None:
        """See `ZoneWatch.ended`."""
        if (market := self._of.get(pool)) is not None:
            market.ended(pool, interrupted, now_ms)

    def version(self, now_ms: int) -> int:
        """Changes whenever something is believed that was not."""
        for market in self.all:
            market.pass_to(now_ms)
        return sum(market.version for market in self.all)

    def value(self, now_ms: int) -> tuple[MarketBeliefs, ...]:
        """All that is believed now."""
        return tuple(market.value(now_ms) for market in self.all)
