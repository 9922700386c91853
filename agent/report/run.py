"""One root run: what ran where and why, what it cost, and what all on demand would have cost."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field

from agent.ledger import history
from agent.ledger.reader import Reader
from agent.ledger.views import RunExecution
from agent.model.leases import EndCause, Lease
from agent.model.pools import Pool
from agent.model.units import cost_micros
from agent.planner.explain import figures
from agent.report.pack import OnDemand, packed

#: results of placements that no worker took up
_NEVER_RAN = ("not sent", "withdrawn", "unknown")


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


def report(reader: Reader, run: str, now_ms: int) -> RunReport | None:
    """The report of a flow run or of the root run it belongs to; None when nothing of it was placed."""
    runs = history.runs_of(reader, run)
    placed = history.executions_of(reader, runs) if runs else []
    if not placed and not (runs and history.has_decisions(reader, runs)):
        return None
    work = _Work()
    for execution in placed:
        if execution.result not in _NEVER_RAN:
            work.add(execution)
    begin, end = (work.begin_ms, work.end_ms) if work.end_ms else (now_ms, now_ms)
    pools = history.declared_pools(reader)
    leases, refused = _leases(reader, pools, begin, end, work.busy_usd_micros)
    reference = _reference(pools)
    usd, count = packed(work.executions, reference) if reference is not None else (0, 0)
    return RunReport(
        root_run=run if any(found.root_run == run for found in runs) else runs[0].root_run,
        start_ms=begin,
        stop_ms=end,
        rows=list(work.rows.values()),
        leases=leases,
        refused=refused,
        moves=work.moves,
        on_demand_usd_micros=usd if reference is not None else None,
        on_demand_leases=count,
        on_demand_pool=reference.pool if reference is not None else "",
    )


class _Work:
    """What a run's placements add up to, taken in one after another in their order."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.moves: list[MovedTask] = []
        #: lease → what the run's tasks on it cost
        self.busy_usd_micros: dict[int, int] = defaultdict(int)
        #: (start ms, run ms) of those that went their way
        self.executions: list[tuple[int, int]] = []
        self.begin_ms, self.end_ms = 2**62, 0
        #: key → how it was taken away last, and not bound again yet
        self._taken_away: dict[str, MovedTask] = {}

    def add(self, x: RunExecution) -> None:
        """One placement that ran, or runs."""
        row = self._row(x)
        if (before := self._taken_away.pop(x.key, None)) is not None:
            before.to_pool = x.pool
        if x.start_ms:
            self.begin_ms, self.end_ms = min(self.begin_ms, x.start_ms), max(self.end_ms, x.start_ms + x.run_ms)
        self.busy_usd_micros[x.lease] += x.usd_micros
        if x.result in ("preempted", "lost"):
            self._moved(x, row)
            return
        row.tasks += 1
        row.usd_micros += x.usd_micros
        if x.run_ms:
            row.real_ms.append(x.run_ms)
            self.executions.append((x.start_ms, x.run_ms))

    def _row(self, x: RunExecution) -> Row:
        """The row of a placement's class and pool, with what its newest decision says."""
        decided = x.decided
        option = next((entry for entry in decided.options if entry.pool == x.pool), None)
        row = self.rows.setdefault(
            (x.task_class, x.pool),
            Row(name=decided.name, task_class=x.task_class, pool=x.pool, kind=option.kind if option else x.pool),
        )
        row.decision, row.reason, row.figures = x.decision, decided.reason, figures(decided.options)
        options = sorted(decided.options, key=lambda entry: entry.pool)
        row.considered = tuple(f"{entry.pool}{' (no)' if entry.why_not else ''}" for entry in options)
        if row.estimated_ms is None and option is not None and option.estimate is not None:
            row.estimated_ms, row.source = option.estimate.median_ms, option.estimate.source
        return row

    def _moved(self, x: RunExecution, row: Row) -> None:
        """It was taken away: what was spent on it is lost, and where it goes on is seen later."""
        row.moved, row.moved_usd_micros = row.moved + 1, row.moved_usd_micros + x.usd_micros
        move = MovedTask(
            name=x.decided.name,
            key=x.key,
            from_pool=x.pool,
            to_pool=None,
            result=x.result,
            lost_ms=x.run_ms,
            usd_micros=x.usd_micros,
        )
        self.moves.append(move)
        self._taken_away[x.key] = move


def _leases(
    reader: Reader, pools: dict[str, Pool], begin: int, end: int, busy: dict[int, int]
) -> tuple[list[LeaseRow], int]:
    """Leases alive in the run's time: from their grant, or the run's begin, to their end, or the run's end."""
    out, refused = [], 0
    first_ask = begin - max((pool.startup_ms for pool in pools.values()), default=0) - 5_000
    for lease in reader.leases(first_ask):
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
