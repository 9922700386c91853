"""What ORC would have done with what ran in shadow mode: the executions packed onto the pools it chose. Modelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.ledger import history
from agent.ledger.reader import Reader
from agent.model.pools import DEFAULT, Pool
from agent.report.pack import OnDemand, packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One pool's part of the work, on leases of its own."""

    pool: str
    kind: str
    tasks: int
    #: time the bodies took, ms
    run_ms: int
    #: workers it is packed onto, first fit, start-up and idle paid
    leases: int
    usd_micros: int
    #: start-ups that tasks would have waited for, ms in all
    startup_ms: int
    #: expected interruptions, at the declared rate
    interruptions: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """The same executions twice, packed by the same rule: as they were placed, and as ORC would have placed them."""

    since_ms: int
    until_ms: int
    today: tuple[Side, ...]
    orc: tuple[Side, ...]
    #: tasks ORC would have held for a person, or refused
    asked: int
    refused: int
    #: executions on workers whose price nobody said; they count as the dearest declared one
    unpriced: int

    @property
    def today_usd_micros(self) -> int:
        """Packed as they were placed."""
        return sum(side.usd_micros for side in self.today)

    @property
    def orc_usd_micros(self) -> int:
        """Packed as ORC would have placed them."""
        return sum(side.usd_micros for side in self.orc)


def shadow_report(reader: Reader, since_ms: int, now_ms: int) -> ShadowReport | None:
    """Everything that ended in shadow mode since an instant; None when nothing did."""
    rows = history.shadowed_since(reader, since_ms)
    if not rows:
        return None
    pools = history.declared_pools(reader)
    today: dict[str, list[tuple[int, int]]] = defaultdict(list)
    orc: dict[str, list[tuple[int, int]]] = defaultdict(list)
    asked = refused = 0
    for row in rows:
        execution = (row.start_ms, row.run_ms)
        today[row.ran_in or DEFAULT].append(execution)
        asked, refused = asked + (row.verb == "ask"), refused + (row.verb == "refuse")
        # a task that ORC refuses would not have run; it stays where it was, so that both sides do the same work
        orc[row.pool or row.ran_in or DEFAULT].append(execution)
    return ShadowReport(
        since_ms=min(row.start_ms for row in rows),
        until_ms=max(row.start_ms + row.run_ms for row in rows),
        today=_sides(today, pools),
        orc=_sides(orc, pools),
        asked=asked,
        refused=refused,
        unpriced=len(today.get(DEFAULT, ())),
    )


def _sides(work: Mapping[str, Sequence[tuple[int, int]]], pools: Mapping[str, Pool]) -> tuple[Side, ...]:
    return tuple(_side(name, executions, pools) for name, executions in sorted(work.items()))


def _side(name: str, executions: Sequence[tuple[int, int]], pools: Mapping[str, Pool]) -> Side:
    pool = pools.get(name)
    dearest = max((p.price[-1].usd_micros_per_hour for p in pools.values()), default=0)
    on = OnDemand(
        pool=name,
        usd_micros_per_hour=pool.price_at(executions[0][0]) if pool is not None else dearest,
        slots=pool.slots if pool is not None else 1,
        startup_ms=pool.startup_ms if pool is not None else 0,
        idle_ms=pool.idle_ms if pool is not None else 0,
        min_billing_ms=pool.min_billing_ms if pool is not None else 0,
    )
    usd, leases = packed(executions, on)
    run = sum(ms for _, ms in executions)
    hazard = pool.interruptions_per_1000_hours / 1000 if pool is not None else 0.0
    return Side(
        pool=name,
        kind=pool.shown_kind if pool is not None else "observed",
        tasks=len(executions),
        run_ms=run,
        leases=leases,
        usd_micros=usd,
        startup_ms=leases * on.startup_ms,
        interruptions=hazard * run / 3_600_000,
    )
