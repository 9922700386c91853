"""One self-contained HTML page: policies side by side, cost against deadline, a timeline by pool."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from agent.model.units import show_ms, show_usd
from agent.simulate.run import Result
from agent.simulate.what_if import WhatIf

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1f2328}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;border-bottom:1px solid #d0d7de;text-align:right}"
    "td:first-child,th:first-child{text-align:left}.late{color:#cf222e}figure{margin:1.5rem 0}svg{max-width:100%}"
)
#: busy, idle or starting, lost
_COLORS = {"busy": "#1a7f37", "idle": "#d0d7de", "lost": "#cf222e"}


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


def page(made: WhatIf) -> str:
    """The page. Every figure is simulated, and says so."""
    first, result = next(iter(made.results.items()))
    name, setting = escape(made.workflow.name), made.setting
    told = (
        "exact to 5 %, rounded up"
        if setting.exact
        else f"from {setting.history} earlier runs, off by {setting.noise:.0%}"
    )
    rows = "".join(
        "<tr>" + "".join(f"<td{' class=late' if 'late' in cell else ''}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table(made)
    )
    head = "".join(f"<th>{column}</th>" for column in HEAD)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}, simulated</title><style>{_STYLE}</style>"
        f"<h1>{name}, simulated</h1><p>{len(made.workflow.tasks)} tasks; on-demand workers without limit need at least "
        f"{show_ms(made.feasible_ms)}; deadline {show_ms(made.deadline_ms)}. Runtimes known {told}; seed {setting.seed}.</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
        f"<figure><figcaption>Cost of {escape(first)} against the deadline</figcaption>{_curve(made.curve)}</figure>"
        f"<figure><figcaption>Workers of {escape(first)} by pool: work green, lost red, start-up and idle grey"
        f"</figcaption>{_timeline(result)}</figure></html>"
    )


def _against(left_ms: int) -> str:
    return f"{show_ms(left_ms)} early" if left_ms >= 0 else f"{show_ms(-left_ms)} late"


def _curve(points: Sequence[tuple[int, int, int]]) -> str:
    if not points:
        return "<p>The traces are too short for it.</p>"
    width, height, left, low = 760, 220, 70, 40
    far, dear = max(p[0] for p in points), max(1, max(p[1] for p in points))

    def at(point: tuple[int, int, int]) -> tuple[float, float]:
        return left + point[0] / far * (width - left - 20), height - low - point[1] / dear * (height - low - 20)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, points))
    dots = "".join(
        f'<circle cx="{at(p)[0]:.1f}" cy="{at(p)[1]:.1f}" r="4" fill="{_COLORS["lost" if p[2] else "busy"]}">'
        f"<title>{show_ms(p[0])}: {show_usd(p[1])}{', missed' if p[2] else ''}</title></circle>"
        for p in points
    )
    ticks = "".join(
        f'<text x="{at(p)[0]:.1f}" y="{height - low + 18}" text-anchor="middle">{show_ms(p[0])}</text>'
        for p in points[:: max(1, len(points) // 4)]
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" font-size="12" role="img"><text x="4" y="24">{show_usd(dear)}</text>'
        f'<text x="4" y="{height - low}">$0</text><polyline points="{line}" fill="none" stroke="#57606a"/>{dots}{ticks}</svg>'
    )


def _timeline(result: Result, most: int = 200) -> str:
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
        return f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{row - 2}" fill="{color}"><title>{escape(title)}</title></rect>'

    for span in shown:
        if span.pool != pool:
            pool, y = span.pool, y + 16
            lines.append(f'<text x="4" y="{y + 6}">{escape(pool)}</text>')
        lines.append(
            bar(
                span.granted_ms,
                span.ended_ms,
                _COLORS["idle"],
                f"{span.name}: {show_usd(span.usd_micros)}, {span.cause}",
            )
        )
        lines += [
            bar(a, b, _COLORS["lost" if what == "lost" else "busy"], show_ms(b - a))
            for a, b, what in ran.get(span.name, ())
        ]
        y += row
    more = f'<text x="4" y="{y + 16}">and {rest} workers more</text>' if rest > 0 else ""
    return f'<svg viewBox="0 0 {width} {y + 24}" font-size="11" role="img">{"".join(lines)}{more}</svg>'
