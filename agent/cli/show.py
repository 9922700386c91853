"""Tables for people."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.model.units import show_ms, show_usd
from agent.report import page
from agent.report.run import RunReport
from agent.report.shadow import ShadowReport, Side

console = Console(highlight=False, width=None if os.isatty(1) else 160)


def table(title: str, columns: list[str], rows: list[list[Any]], right: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Print one table."""
    out = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", show_lines=False, expand=False
    )
    for column in columns:
        out.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        out.add_row(*(str(cell) for cell in row))
    console.print(out)


def picture(title: str) -> str:
    """What was printed while `console.record` was set, as SVG; with the viewer's own font, so that nothing is fetched."""
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL).replace(
        "Fira Code", "monospace"
    )


def when(ms: int) -> str:
    """Local time of day."""
    return datetime.fromtimestamp(ms / 1000).strftime("%H:%M:%S")


def status(said: dict[str, Any]) -> None:
    """What `orc status` shows."""
    console.print(
        f"scheduler {said['scheduler']}, mode [bold]{said['mode']}[/bold], governor epoch {said['epoch']}, {said['held']} held, {said['running']} running, open leases {show_usd(said['open_usd_micros'])}"
    )
    for warning in (*said["degraded"], *said["warnings"]):
        console.print(f"[yellow]{warning}[/yellow]")
    if said["spooled"]:
        console.print(f"[yellow]{said['spooled']} records wait for the ledger's database, which is away[/yellow]")
    rules = said["rules"]
    console.print(f"rules in force: {rules['count']}, digest {rules['digest'][:12]}")
    if rules["wrong"]:
        console.print(f"[red]the rule files are refused, the rules in force stay: {escape(rules['wrong'])}[/red]")
    rows = []
    for pool in said["pools"]:
        workers = ", ".join(
            f"{w['name']} {w['bound']}/{w['slots']}{' going' if w['draining'] else ''}" for w in pool["workers"]
        )
        more = [f"starting {', '.join(pool['starting'])}"] if pool["starting"] else []
        more += [f"no capacity for {show_ms(pool['refused_ms'])}"] if pool["refused_ms"] is not None else []
        price = f"{show_usd(pool['usd_micros_per_hour'])}/h" if pool["priced"] else "not priced"
        losses = pool["losses_a_day"]
        rows.append(
            [
                pool["pool"],
                pool["kind"],
                pool["size"],
                price,
                f"{losses[0]:.1f} ({losses[1]} to {losses[2]})" if losses else "",
                f"{len(pool['workers'])} of {pool['max']}",
                "; ".join([workers, *more] if workers else more),
            ]
        )
    table("worker pools", ["pool", "kind", "worker", "price", "taken back a day", "workers", "now"], rows, {"price", "taken back a day", "workers"})  # fmt: skip


def why(said: dict[str, Any]) -> None:
    """What `orc why` shows."""
    if not said["holds"] and not said["running"]:
        console.print(
            "nothing of it waits and nothing runs: it has ended, has not submitted a task yet, or is not governed"
        )
    if said["holds"]:
        rows = [
            [h["task"], h["count"], h["reason"], h["since"], h["why"], h["release"], h["id"]] for h in said["holds"]
        ]
        table("held", ["task", "tasks", "reason", "since", "why", "released by", "id"], rows, {"tasks", "since"})
    if said["running"]:
        table(
            "bound",
            ["task", "pool", "worker", "for"],
            [[r["task"], r["pool"], r["worker"], r["for"]] for r in said["running"]],
            {"for"},
        )


def shadow(made: ShadowReport) -> None:
    """What `orc shadow report` shows."""
    for title, sides in _shadow_sides(made):
        table(f"{title} (modelled)", _SHADOW, _shadow_rows(sides), set(_SHADOW[2:]))
    for line in _shadow_said(made):
        console.print(line)


def shadow_page(made: ShadowReport) -> str:
    """The same as one HTML page, with the cost of each pool drawn."""
    tables = [
        page.figure(f"{title} (modelled)", page.table(_SHADOW, _shadow_rows(sides)))
        for title, sides in _shadow_sides(made)
    ]
    costs = [
        (f"{title}: {s.pool}", s.usd_micros, show_usd(s.usd_micros))
        for title, sides in _shadow_sides(made)
        for s in sides
    ]
    return page.document(
        "What ORC would have done", *tables, page.figure("Cost by pool (modelled)", page.bars(costs)), *map(page.said, _shadow_said(made))
    )  # fmt: skip


_SHADOW = ["pool", "kind", "tasks", "bodies", "leases", "start-ups", "interruptions expected", "sum"]


def _shadow_sides(made: ShadowReport) -> tuple[tuple[str, tuple[Side, ...]], ...]:
    return ("as it ran", made.today), ("as ORC would have placed it", made.orc)


def _shadow_rows(sides: tuple[Side, ...]) -> list[list[Any]]:
    def row(pool: str, kind: str, of: tuple[Side, ...]) -> list[Any]:
        return [
            pool, kind, sum(s.tasks for s in of), show_ms(sum(s.run_ms for s in of)), sum(s.leases for s in of),
            show_ms(sum(s.startup_ms for s in of)), f"{sum(s.interruptions for s in of):.2f}", show_usd(sum(s.usd_micros for s in of)),
        ]  # fmt: skip

    return [*(row(s.pool, s.kind, (s,)) for s in sides), row("all", "", sides)]


def _shadow_said(made: ShadowReport) -> list[str]:
    saved = made.today_usd_micros - made.orc_usd_micros
    share = f", {100 * saved / made.today_usd_micros:.0f} %" if made.today_usd_micros else ""
    out = [
        f"ORC would have {'saved' if saved >= 0 else 'paid more:'} {show_usd(abs(saved))}{share}, in {show_ms(made.until_ms - made.since_ms)}"
    ]
    if made.asked or made.refused:
        out.append(
            f"it would have asked a person about {made.asked} tasks and refused {made.refused}; both stay where they ran"
        )
    if made.unpriced:
        out.append(f"{made.unpriced} tasks ran on workers that belong to no pool; they are priced like the dearest one")
    out.append(
        "modelled: the same executions, packed first fit onto leases with start-up, idle and minimum billing; tasks that are interrupted would run again"
    )
    return out


def written(file: Path, text: str) -> None:
    """Write a page, and say where."""
    file.write_text(text, encoding="utf-8")
    console.print(f"written to {file}")


def run(made: RunReport, emulated: bool) -> None:
    """The report of a root run."""
    rows = []
    for row in made.rows:
        real = show_ms(sorted(row.real_ms)[len(row.real_ms) // 2]) if row.real_ms else ""
        guess = f"{show_ms(row.estimated_ms)} ({row.source})" if row.estimated_ms is not None else ""
        rows.append(
            [
                row.name,
                row.tasks,
                ", ".join(row.considered),
                row.pool,
                row.reason,
                guess,
                real,
                row.moved or "",
                show_usd(row.usd_micros + row.moved_usd_micros),
            ]
        )
    columns = [
        "task class",
        "tasks",
        "pools considered",
        "chosen",
        "why (the last time)",
        "estimated",
        "real, median",
        "moved",
        "cost",
    ]
    table("what ran where, and why", columns, rows, {"tasks", "estimated", "real, median", "moved", "cost"})
    if made.moves:
        moved = [
            [m.name, m.from_pool, m.result, show_ms(m.lost_ms), show_usd(m.usd_micros), m.to_pool or "not placed again"]
            for m in made.moves
        ]
        table(
            "moved: taken away while it ran, and run again",
            ["task", "from", "cause", "work lost", "cost of it", "to"],
            moved,
            {"work lost", "cost of it"},
        )
    rows = []
    for entry in made.leases:
        lease = entry.lease
        span = show_ms((lease.ended_ms or made.stop_ms) - (lease.granted_ms or lease.asked_ms))
        rows.append(
            [
                lease.worker,
                lease.kind,
                span,
                show_usd(entry.startup_usd_micros),
                show_usd(entry.busy_usd_micros),
                show_usd(entry.idle_usd_micros),
                show_usd(entry.usd_micros),
                lease.cause if lease.ended_ms else "still up",
            ]
        )
    rows.append(
        [
            "all",
            "",
            show_ms(made.stop_ms - made.start_ms),
            *(
                show_usd(sum(getattr(e, name) for e in made.leases))
                for name in ("startup_usd_micros", "busy_usd_micros", "idle_usd_micros", "usd_micros")
            ),
            f"{made.refused} launches refused" if made.refused else "",
        ]
    )
    if made.on_demand_usd_micros is not None:
        rows.append(
            [
                f"all on {made.on_demand_pool}",
                "modelled",
                "",
                "",
                "",
                "",
                show_usd(made.on_demand_usd_micros),
                f"the same executions on {made.on_demand_leases} leases",
            ]
        )
    table(
        "leases while it ran",
        ["worker", "kind", "for", "start-up", "work", "idle", "sum", "ended"],
        rows,
        {"for", "start-up", "work", "idle", "sum"},
    )
    if emulated:
        console.print("gpu (emulated): this machine has no GPU; the pool's price is real, its device is the CPU")
