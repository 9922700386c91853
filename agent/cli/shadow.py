"""`orc shadow`: what ORC would have done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.terminal import say, table, written
from agent.errors import ServiceError

if TYPE_CHECKING:
    from agent.report.shadow import ShadowReport, Side

shadow_app = typer.Typer(help="Shadow mode.", no_args_is_help=True)
_COLUMNS = ["pool", "kind", "tasks", "bodies", "leases", "start-ups", "interruptions expected", "sum"]


@shadow_app.command("report")
def report(
    since: Annotated[str, typer.Option(help="how far back, for example 12h or 7d")] = "7d",
    html: Annotated[Path | None, typer.Option(help="write one page too")] = None,
) -> None:
    """What ORC would have done with what ran in shadow mode, in leases, dollars and minutes. Modelled."""
    import time

    from agent.cli.context import open_ledger
    from agent.model.units import duration_ms
    from agent.report.shadow import shadow_report
    from agent.settings import load

    now = round(time.time() * 1000)
    made = shadow_report(open_ledger(load()), now - duration_ms(since), now)
    if made is None:
        raise ServiceError(f"nothing has run in shadow mode in the last {since}; run flows with ORC_MODE=shadow first")
    for title, sides in _sides(made):
        table(f"{title} (modelled)", _COLUMNS, _rows(sides), set(_COLUMNS[2:]))
    say(*_summary(made))
    if html is not None:
        written(html, page_of(made))


def page_of(made: ShadowReport) -> str:
    """The same as one HTML page, with the cost of each pool drawn."""
    from agent.model.units import show_usd
    from agent.report import page

    costs = [
        (f"{title}: {side.pool}", side.usd_micros, show_usd(side.usd_micros))
        for title, sides in _sides(made)
        for side in sides
    ]
    return page.render(
        page.TEMPLATES / "shadow.html",
        title="What ORC would have done",
        tables=[(title, page.table(_COLUMNS, _rows(sides))) for title, sides in _sides(made)],
        costs=page.bars(costs),
        summary=_summary(made),
    )


def _sides(made: ShadowReport) -> tuple[tuple[str, tuple[Side, ...]], ...]:
    return ("as it ran", made.today), ("as ORC would have placed it", made.orc)


def _rows(sides: tuple[Side, ...]) -> list[list[object]]:
    return [*(_row(side.pool, side.kind, (side,)) for side in sides), _row("all", "", sides)]


def _row(pool: str, kind: str, sides: tuple[Side, ...]) -> list[object]:
    from agent.model.units import show_ms, show_usd

    return [
        pool,
        kind,
        sum(side.tasks for side in sides),
        show_ms(sum(side.run_ms for side in sides)),
        sum(side.leases for side in sides),
        show_ms(sum(side.startup_ms for side in sides)),
        f"{sum(side.interruptions for side in sides):.2f}",
        show_usd(sum(side.usd_micros for side in sides)),
    ]


def _summary(made: ShadowReport) -> list[str]:
    from agent.model.units import show_ms, show_usd

    saved = made.today_usd_micros - made.orc_usd_micros
    share = f", {100 * saved / made.today_usd_micros:.0f} %" if made.today_usd_micros else ""
    verb = "saved" if saved >= 0 else "paid more:"
    lines = [f"ORC would have {verb} {show_usd(abs(saved))}{share}, in {show_ms(made.until_ms - made.since_ms)}"]
    if made.asked or made.refused:
        lines.append(
            f"it would have asked a person about {made.asked} tasks and refused {made.refused}; "
            "both stay where they ran"
        )
    if made.unpriced:
        lines.append(
            f"{made.unpriced} tasks ran on workers that belong to no pool; they are priced like the dearest one"
        )
    lines.append(
        "modelled: the same executions, packed first fit onto leases with start-up, idle and minimum billing; "
        "tasks that "
        "are interrupted would run again"
    )
    return lines
