"""Pages for people: policies side by side, cost against deadline, a timeline by pool; and what a backtest found."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.plain_text import html
from agent.model.units import show_ms, show_usd
from agent.report import page
from agent.report.page import COLORS
from agent.simulate.backtest import Backtest
from agent.simulate.what_if import WhatIf
from agent.simulate.workflows.setting import SimulationResult


def table(made: WhatIf) -> list[list[str]]:
    """A row a policy: dollars, its end against the deadline, workers, losses."""
    rows = []
    for name, result in made.results.items():
        end = next(iter(result.ends.values()), None)
        slack = "never ended" if end is None else _against(made.deadline_ms - end)
        rows.append(
            [
                name, show_usd(result.usd_micros), "-" if end is None else show_ms(end), slack, str(len(result.spans)),
                str(result.preemptions), str(result.refusals),
            ]
        )  # fmt: skip
    return rows


HEAD = ["policy", "cost", "took", "deadline", "workers", "preempted", "refused"]


def what_if(made: WhatIf) -> str:
    """The page. Every figure is simulated, and says so."""
    first, result = next(iter(made.results.items()))
    setting = made.setting
    told = (
        "exact to 5 %, rounded up"
        if setting.exact
        else f"from {setting.history} earlier runs, off by {setting.noise:.0%}"
    )
    return page.document(
        f"{made.workflow.name}, simulated",
        page.said(
            f"{len(made.workflow.tasks)} tasks; on-demand workers without limit need at least {show_ms(made.feasible_ms)}; "
            f"deadline {show_ms(made.deadline_ms)}. Runtimes known {told}; seed {setting.seed}."
        ),
        page.table(HEAD, table(made)),
        page.figure(f"Cost of {first} against the deadline", _curve(made.curve)),
        page.figure(f"Workers of {first} by pool: work green, lost red, start-up and idle grey", _timeline(result)),
    )


def _against(left_ms: int) -> str:
    return f"{show_ms(left_ms)} early" if left_ms >= 0 else f"{show_ms(-left_ms)} late"


def _curve(points: Sequence[tuple[int, int, int]]) -> str:
    if not points:
        return "<p>The traces are too short for it.</p>"
    width, height, left, low = 760, 220, 70, 40
    far, dear = max(p[0] for p in points), max(1, max(p[1] for p in points))

    def at(point: tuple[int, int, int]) -> tuple[float, float]:
        return left + point[0] / far * (width - left - 60), height - low - point[1] / dear * (height - low - 20)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, points))
    dots = "".join(
        f'<circle cx="{at(p)[0]:.1f}" cy="{at(p)[1]:.1f}" r="4" fill="{COLORS["lost" if p[2] else "busy"]}">'
        f"<title>{show_ms(p[0])}: {show_usd(p[1])}{', missed' if p[2] else ''}</title></circle>"
        for p in points
    )
    told, last = [], -1e9
    for point in points:
        if (x := at(point)[0]) - last > 100:
            told.append(f'<text x="{x:.1f}" y="{height - low + 18}" text-anchor="middle">{show_ms(point[0])}</text>')
            last = x
    ticks = "".join(told)
    return (
        f'<svg viewBox="0 0 {width} {height}" font-size="12" role="img"><text x="4" y="24">{show_usd(dear)}</text>'
        f'<text x="4" y="{height - low}">$0</text><polyline points="{line}" fill="none" stroke="#57606a"/>{dots}{ticks}</svg>'
    )


def _timeline(result: SimulationResult, most: int = 200) -> str:
    """A bar a worker, in the order of pools and grants; the work on it drawn over its life."""
    spans = sorted(result.spans, key=lambda s: (s.pool, s.granted_ms, s.name))
    shown, rest = spans[:most], len(spans) - most
    end = max((s.ended_ms for s in shown), default=1)
    width, left, row = 760, 130, 7
    ran: dict[str, list[tuple[int, int, str]]] = {}
    for _, _, machine, start, stop, what in result.executions:
        ran.setdefault(machine, []).append((start, stop, what))
    lines, y, pool = [], 14, ""

    def bar(start: int, stop: int, color: str, title: str) -> str:
        x = left + start / end * (width - left - 10)
        wide = max(0.5, (stop - start) / end * (width - left - 10))
        return f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{row - 2}" fill="{color}"><title>{html(title)}</title></rect>'

    for span in shown:
        if span.pool != pool:
            pool, y = span.pool, y + 16
            lines.append(f'<text x="4" y="{y + 6}">{html(pool)}</text>')
        lines.append(
            bar(
                span.granted_ms,
                span.ended_ms,
                COLORS["idle"],
                f"{span.name}: {show_usd(span.usd_micros)}, {span.cause}",
            )
        )
        lines += [
            bar(a, b, COLORS["lost" if what == "lost" else "busy"], show_ms(b - a))
            for a, b, what in ran.get(span.name, ())
        ]
        y += row
    more = f'<text x="4" y="{y + 16}">and {rest} workers more</text>' if rest > 0 else ""
    return f'<svg viewBox="0 0 {width} {y + 24}" font-size="11" role="img">{"".join(lines)}{more}</svg>'


def backtest(made: Backtest) -> str:
    """The page of a backtest: what is exact, and what is modelled."""
    usd, ms = made.usd_micros, made.ms
    return page.document(
        "Backtest of rules",
        page.said(f"{made.executions} executions. What the rules would have forbidden is exact."),
        page.table(FORBIDDEN, forbidden(made)),
        *[page.said(f"rule {rule} would have asked a person {count} times") for rule, count in made.asked],
        page.said(
            f"Modelled, with the observed runtimes: {signed(usd.value)} ({signed(usd.low)} to {signed(usd.high)}), "
            f"{ms.value / 60_000:+.1f} minutes of work ({ms.low / 60_000:+.1f} to {ms.high / 60_000:+.1f})."
        ),
        page.figure(
            "Executions each rule would have kept out, by pool",
            page.bars([(f"{f.rule}: {f.pool}", f.executions, str(f.executions)) for f in made.forbidden]),
        ),
        *map(page.said, made.limits),
    )


FORBIDDEN = ["rule", "task class", "pool", "instead", "executions", "reason"]


def forbidden(made: Backtest) -> list[list[str]]:
    """A row for each class, pool and rule that keeps it out."""
    return [[f.rule, f.task_class, f.pool, f.instead or "refused", str(f.executions), f.reason] for f in made.forbidden]


def signed(micros: float) -> str:
    """Dollars more or less."""
    return f"{'-' if micros < 0 else '+'}{show_usd(abs(round(micros)))}"
