"""One root run: what ran where and why, what it cost, and what all on demand would have cost."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.unreadable import decision_of
from agent.model import codec
from agent.model.leases import EndCause, Lease
from agent.model.plans import Decision
from agent.model.pools import Pool
from agent.model.units import cost_micros
from agent.planner.explain import figures
from agent.report.pack import OnDemand, packed


@dataclass(slots=True, kw_only=True)
class Row:
    """One task class in one pool."""

    name: str
    task_class: str
    pool: str
    kind: str
    tasks: int = 0
    #: executions taken away or lost, and what was spent on them
    moved: int = 0
    moved_usd_micros: int = 0
    estimated_ms: int | None = None
    source: str = ""
    real_ms: list[int] = field(default_factory=list)
    usd_micros: int = 0
    considered: tuple[str, ...] = ()
    reason: str = ""
    #: the sums behind it
    figures: str = ""
    decision: int = 0


@dataclass(slots=True, kw_only=True)
class LeaseRow:
    """One worker's life, in the run's time."""

    lease: Lease
    usd_micros: int
    startup_usd_micros: int
    busy_usd_micros: int

    @property
    def idle_usd_micros(self) -> int:
        """What was paid while nothing of ours was on it, and while inner work of others was."""
        return max(0, self.usd_micros - self.startup_usd_micros - self.busy_usd_micros)


@dataclass(slots=True, kw_only=True)
class MovedTask:
    """A task that was taken away and bound again."""

    name: str
    key: str
    from_pool: str
    to_pool: str | None
    result: str
    lost_ms: int
    usd_micros: int


@dataclass(slots=True, kw_only=True)
class RunReport:
    """Everything of one root run."""

    root_run: str
    start_ms: int
    stop_ms: int
    rows: list[Row]
    leases: list[LeaseRow]
    refused: int
    moves: list[MovedTask]
    on_demand_usd_micros: int | None
    on_demand_leases: int
    on_demand_pool: str

    @property
    def usd_micros(self) -> int:
        """What the leases cost while the run lasted."""
        return sum(row.usd_micros for row in self.leases)


def report(ledger: Ledger, run: str, now_ms: int) -> RunReport | None:
    """The report of a flow run or of the root run it belongs to; None when nothing of it was placed."""
    with ledger.reading() as db:
        r = t.run.c
        found = db.execute(
            select(t.run).where(r.chain == ledger.chain, (r.flow_run == run) | (r.root_run == run))
        ).all()
        if not found:
            return None
        whole = any(row.root_run == run for row in found)
        numbers = [row.no for row in found]
        p, d, o = t.placement, t.decision, t.outcome
        joined = p.join(d, (d.c.chain == p.c.chain) & (d.c.id == p.c.decision)).outerjoin(
            o, (o.c.chain == p.c.chain) & (o.c.placement == p.c.id)
        )
        query = select(
            p.c.id,
            p.c.key,
            p.c.decision,
            d.c.pool,
            d.c.task_class,
            d.c.body,
            o.c.result,
            o.c.lease,
            o.c.start_ms,
            o.c.run_ms,
            o.c.usd_micros,
        ).select_from(joined)
        placed = db.execute(query.where(p.c.chain == ledger.chain, d.c.run.in_(numbers)).order_by(p.c.id)).all()
        asked = db.execute(
            select(t.decision.c.id).where(t.decision.c.chain == ledger.chain, t.decision.c.run.in_(numbers))
        ).all()
    if not placed and not asked:
        return None
    pools = declared_pools(ledger)
    bodies: dict[bytes, Decision] = {}
    rows: dict[tuple[str, str], Row] = {}
    moves: list[MovedTask] = []
    last: dict[str, MovedTask] = {}
    busy: dict[int, int] = defaultdict(int)
    executions: list[tuple[int, int]] = []
    begin, end = 2**62, 0
    for x in placed:
        if x.body not in bodies:
            found_body = decision_of(ledger, x.body, x.decision)
            bodies[x.body] = found_body if isinstance(found_body, Decision) else _unread(x, found_body)
        decision = bodies[x.body]
        result = t.RESULTS[x.result] if x.result is not None else "running"
        if result in ("not sent", "withdrawn", "unknown"):
            continue
        option = next((entry for entry in decision.options if entry.pool == x.pool), None)
        row = rows.setdefault(
            (x.task_class, x.pool),
            Row(name=decision.name, task_class=x.task_class, pool=x.pool, kind=option.kind if option else x.pool),
        )
        row.decision, row.reason, row.figures = x.decision, decision.reason, figures(decision.options)
        row.considered = tuple(
            f"{entry.pool}{'' if not entry.why_not else ' (no)'}"
            for entry in sorted(decision.options, key=lambda e: e.pool)
        )
        if row.estimated_ms is None and option is not None and option.estimate is not None:
            row.estimated_ms, row.source = option.estimate.median_ms, option.estimate.source
        if (before := last.pop(x.key, None)) is not None:
            before.to_pool = x.pool
        if x.start_ms:
            begin, end = min(begin, x.start_ms), max(end, x.start_ms + x.run_ms)
        busy[x.lease or 0] += x.usd_micros or 0
        if result in ("preempted", "lost"):
            row.moved, row.moved_usd_micros = row.moved + 1, row.moved_usd_micros + (x.usd_micros or 0)
            move = MovedTask(
                name=decision.name,
                key=x.key,
                from_pool=x.pool,
                to_pool=None,
                result=result,
                lost_ms=x.run_ms,
                usd_micros=x.usd_micros or 0,
            )
            moves.append(move)
            last[x.key] = move
            continue
        row.tasks += 1
        row.usd_micros += x.usd_micros or 0
        if x.run_ms:
            row.real_ms.append(x.run_ms)
            executions.append((x.start_ms, x.run_ms))
    if not end:
        begin, end = now_ms, now_ms
    leases, refused = _leases(ledger, pools, begin, end, busy)
    reference = _reference(pools)
    usd, count = packed(executions, reference) if reference is not None else (0, 0)
    return RunReport(
        root_run=run if whole else found[0].root_run,
        start_ms=begin,
        stop_ms=end,
        rows=list(rows.values()),
        leases=leases,
        refused=refused,
        moves=moves,
        on_demand_usd_micros=usd if reference is not None else None,
        on_demand_leases=count,
        on_demand_pool=reference.pool if reference is not None else "",
    )


def _unread(row: Any, why: str) -> Decision:
    """What stands in for a decision that cannot be read: the placement's own columns, and why."""
    return Decision(
        group="", task_class=row.task_class, name=row.task_class, root_run="", flow_run="", verb="bind", pool=row.pool,
        reason=why, options=(),
    )  # fmt: skip


def declared_pools(ledger: Ledger) -> dict[str, Pool]:
    """The pools as the newest governor had them."""
    with ledger.reading() as db:
        seq = db.execute(
            select(t.record.c.seq)
            .where(t.record.c.chain == ledger.chain, t.record.c.kind == "start")
            .order_by(t.record.c.seq.desc())
            .limit(1)
        ).scalar()
    if seq is None:
        return {}
    said = ledger.records(after=seq - 1, limit=1)[0].body["pools"]
    pools = [codec.decode(Pool, body.encode()) for body in said]
    return {pool.name: pool for pool in pools}


def _leases(
    ledger: Ledger, pools: dict[str, Pool], begin: int, end: int, busy: dict[int, int]
) -> tuple[list[LeaseRow], int]:
    """Leases alive in the run's time: from their grant, or the run's begin, to their end, or the run's end."""
    out, refused = [], 0
    first_ask = begin - max((pool.startup_ms for pool in pools.values()), default=0) - 5_000
    for lease in ledger.leases(first_ask):
        if lease.asked_ms > end:
            continue
        if lease.granted_ms is None:
            refused += lease.end == EndCause.REFUSED
            continue
        start, stop = max(lease.granted_ms, first_ask), min(lease.ended_ms or end, end)
        if stop <= start:
            continue
        ready = max(start, min(lease.ready_ms or stop, stop))
        price = _price(lease, start, stop)
        out.append(
            LeaseRow(
                lease=lease,
                usd_micros=price,
                startup_usd_micros=_price(lease, start, ready),
                busy_usd_micros=min(busy.get(lease.id, 0), price),
            )
        )
    return out, refused


def _price(lease: Lease, start: int, stop: int) -> int:
    steps = json.loads(lease.price)["steps"]
    edges = [start, *(since for since, _ in steps if start < since < stop), stop]
    at = [max((s for s in steps if s[0] <= edge), key=lambda s: s[0], default=steps[0])[1] for edge in edges[:-1]]
    return sum(cost_micros(price, b - a) for price, a, b in zip(at, edges, edges[1:], strict=False))


def _reference(pools: dict[str, Pool]) -> OnDemand | None:
    """The cheapest on-demand pool without GPUs, else the cheapest on-demand one."""
    found = sorted(
        (p for p in pools.values() if p.market == "on-demand"),
        key=lambda p: (p.gpus > 0, p.price[-1].usd_micros_per_hour, p.name),
    )
    if not found:
        return None
    pool = found[0]
    return OnDemand(
        pool=pool.name,
        usd_micros_per_hour=pool.price[-1].usd_micros_per_hour,
        slots=pool.slots,
        startup_ms=pool.startup_ms,
        idle_ms=pool.idle_ms,
        min_billing_ms=pool.min_billing_ms,
    )
