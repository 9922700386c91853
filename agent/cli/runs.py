"""`orc report`: what a run cost, and why its tasks ran where."""

from __future__ import annotations

from pathlib import Path
from statistics import median_high
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.terminal import console, picture, say, table
from agent.errors import ServiceError

if TYPE_CHECKING:
    from agent.report.run import LeaseRow, Row, RunReport


def report(
    run: Annotated[str, typer.Argument(help="id of a flow run, or its beginning")],
    svg: Annotated[Path | None, typer.Option(help="write it as a picture too")] = None,
) -> None:
    """What a run's tasks cost and why they ran where, beside all on demand."""
    import time

    from agent.cli.context import open_ledger
    from agent.ledger.history import declared_pools
    from agent.report import run as reports
    from agent.report.decisions import run_named
    from agent.settings import load

    ledger = open_ledger(load())
    made = reports.report(ledger, run_named(ledger, run), round(time.time() * 1000))
    if made is None:
        raise ServiceError(f"the ledger has nothing of run {run}")
    console().record = svg is not None
    show_report(made, any(pool.emulated for pool in declared_pools(ledger).values()))
    if svg is not None:
        svg.write_text(picture(f"orc report {run[:8]}"))


def show_report(made: RunReport, emulated: bool) -> None:
    """The report of a root run."""
    from agent.model.units import show_ms, show_usd

    columns = ["task class", "tasks", "pools considered", "chosen", "why (the last time)", "estimated"]
    columns += ["real, median", "moved", "cost"]
    right = {"tasks", "estimated", "real, median", "moved", "cost"}
    table("what ran where, and why", columns, [_class_row(row) for row in made.rows], right)
    if made.moves:
        moved = [
            [m.name, m.from_pool, m.result, show_ms(m.lost_ms), show_usd(m.usd_micros), m.to_pool or "not placed again"]
            for m in made.moves
        ]
        columns = ["task", "from", "cause", "work lost", "cost of it", "to"]
        table("moved: taken away while it ran, and run again", columns, moved, {"work lost", "cost of it"})
    columns = ["worker", "kind", "for", "start-up", "work", "idle", "sum", "ended"]
    right = {"for", "start-up", "work", "idle", "sum"}
    table("leases while it ran", columns, _lease_rows(made), right)
    if emulated:
        say("gpu (emulated): this machine has no GPU; the pool's price is real, its device is the CPU")


def _class_row(row: Row) -> list[object]:
    from agent.model.units import show_ms, show_usd

    return [
        row.name,
        row.tasks,
        ", ".join(row.considered),
        row.pool,
        row.reason,
        f"{show_ms(row.estimated_ms)} ({row.source})" if row.estimated_ms is not None else "",
        show_ms(median_high(row.real_ms)) if row.real_ms else "",
        row.moved or "",
        show_usd(row.usd_micros + row.moved_usd_micros),
    ]


def _lease_rows(made: RunReport) -> list[list[object]]:
    from agent.model.units import show_ms, show_usd

    rows = [_lease_row(entry, made.stop_ms) for entry in made.leases]
    sums = [
        show_usd(sum(getattr(entry, name) for entry in made.leases))
        for name in ("startup_usd_micros", "busy_usd_micros", "idle_usd_micros", "usd_micros")
    ]
    refused = f"{made.refused} launches refused" if made.refused else ""
    rows.append(["all", "", show_ms(made.stop_ms - made.start_ms), *sums, refused])
    if made.on_demand_usd_micros is not None:
        usd = show_usd(made.on_demand_usd_micros)
        same = f"the same executions on {made.on_demand_leases} leases"
        rows.append([f"all on {made.on_demand_pool}", "modelled", "", "", "", "", usd, same])
    return rows


def _lease_row(entry: LeaseRow, stop_ms: int) -> list[object]:
    from agent.model.units import show_ms, show_usd

    lease = entry.lease
    return [
        lease.worker,
        lease.kind,
        show_ms((lease.ended_ms or stop_ms) - (lease.granted_ms or lease.asked_ms)),
        show_usd(entry.startup_usd_micros),
        show_usd(entry.busy_usd_micros),
        show_usd(entry.idle_usd_micros),
        show_usd(entry.usd_micros),
        lease.cause if lease.ended_ms else "still up",
    ]
