"""Pages for people: policies side by side, cost against deadline, a timeline by pool; and what a backtest found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.model.units import show_ms, show_usd
from agent.report import page
from agent.simulate.backtest import Backtest
from agent.simulate.what_if import WhatIf
from agent.simulate.workflows.setting import SimulationResult

_TEMPLATES = Path(__file__).parent / "pages"
#: size of a drawing, and what its labels take of it
_WIDTH, _HEIGHT, _LEFT, _LOW, _RIGHT = 760, 220, 70, 40, 60
#: ticks of the axis are so far apart
_TICK = 100
#: of the timeline: labels to the left, a worker's line, workers drawn
_POOLS, _LINE, _MOST = 130, 7, 200

HEAD = ["policy", "cost", "took", "deadline", "workers", "preempted", "refused"]
FORBIDDEN = ["rule", "task class", "pool", "instead", "executions", "reason"]


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


def what_if(made: WhatIf) -> str:
    """The page. Every figure is simulated, and says so."""
    first, result = next(iter(made.results.items()))
    setting = made.setting
    told = (
        "exact to 5 %, rounded up"
        if setting.exact
        else f"from {setting.history} earlier runs, off by {setting.noise:.0%}"
    )
    return page.render(
        _TEMPLATES / "what_if.html",
        title=f"{made.workflow.name}, simulated",
        about=f"{len(made.workflow.tasks)} tasks; on-demand workers without limit need at least "
        f"{show_ms(made.feasible_ms)}; deadline {show_ms(made.deadline_ms)}. "
        f"Runtimes known {told}; seed {setting.seed}.",
        policies=page.table(HEAD, table(made)),
        first=first,
        curve=_curve(made.curve),
        timeline=_timeline(result),
    )


def backtest(made: Backtest) -> str:
    """The page of a backtest: what is exact, and what is modelled."""
    usd, ms = made.usd_micros, made.ms
    return page.render(
        _TEMPLATES / "backtest.html",
        title="Backtest of rules",
        executions=made.executions,
        forbidden=page.table(FORBIDDEN, forbidden(made)),
        asked=made.asked,
        modelled=f"Modelled, with the observed runtimes: {signed(usd.value)} "
        f"({signed(usd.low)} to {signed(usd.high)}), "
        f"{ms.value / 60_000:+.1f} minutes of work ({ms.low / 60_000:+.1f} to {ms.high / 60_000:+.1f}).",
        kept_out=page.bars([(f"{f.rule}: {f.pool}", f.executions, str(f.executions)) for f in made.forbidden]),
        limits=made.limits,
    )


def forbidden(made: Backtest) -> list[list[str]]:
    """A row for each class, pool and rule that keeps it out."""
    return [[f.rule, f.task_class, f.pool, f.instead or "refused", str(f.executions), f.reason] for f in made.forbidden]


def signed(micros: float) -> str:
    """Dollars more or less."""
    return f"{'-' if micros < 0 else '+'}{show_usd(abs(round(micros)))}"


def _against(left_ms: int) -> str:
    return f"{show_ms(left_ms)} early" if left_ms >= 0 else f"{show_ms(-left_ms)} late"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A point of the curve of cost against deadline, in the drawing's units."""

    x: float
    y: float
    #: it missed its deadline
    missed: bool
    says: str
    #: label of the axis below it; "": none, the last one is too near
    tick: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The curve as it is drawn."""

    points: tuple[CurvePoint, ...]
    line: str
    dearest: str


def _curve(points: Sequence[tuple[int, int, int]]) -> Curve:
    """Points of (deadline ms, micro-dollars, whether it was missed)."""
    far, dear = max((p[0] for p in points), default=1), max(1, max((p[1] for p in points), default=1))
    drawn: list[CurvePoint] = []
    last = -1e9
    for deadline_ms, usd_micros, missed in points:
        x = _LEFT + deadline_ms / far * (_WIDTH - _LEFT - _RIGHT)
        tick, last = (show_ms(deadline_ms), x) if x - last > _TICK else ("", last)
        drawn.append(
            CurvePoint(
                x=x,
                y=_HEIGHT - _LOW - usd_micros / dear * (_HEIGHT - _LOW - 20),
                missed=bool(missed),
                says=f"{show_ms(deadline_ms)}: {show_usd(usd_micros)}{', missed' if missed else ''}",
                tick=tick,
            )
        )
    line = " ".join(f"{point.x:.1f},{point.y:.1f}" for point in drawn)
    return Curve(points=tuple(drawn), line=line, dearest=show_usd(dear))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineBar:
    """A stretch of a worker's life, in the drawing's units."""

    x: float
    y: int
    width: float
    #: a key of the page's colours
    kind: str
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Workers in the order of pools and grants, with the work on them, and labels at their heights."""

    bars: tuple[TimelineBar, ...]
    texts: tuple[tuple[str, int], ...]
    height: int


def _timeline(result: SimulationResult) -> Timeline:
    """A bar a worker; the work on it drawn over its life."""
    spans = sorted(result.spans, key=lambda s: (s.pool, s.granted_ms, s.name))
    shown, rest = spans[:_MOST], len(spans) - _MOST
    scale = (_WIDTH - _POOLS - 10) / max((s.ended_ms for s in shown), default=1)
    ran: dict[str, list[tuple[int, int, str]]] = {}
    for _, _, machine, start, stop, what in result.executions:
        ran.setdefault(machine, []).append((start, stop, "lost" if what == "lost" else "busy"))
    bars: list[TimelineBar] = []
    texts: list[tuple[str, int]] = []
    y, pool = 14, ""
    for span in shown:
        if span.pool != pool:
            pool, y = span.pool, y + 16
            texts.append((pool, y + 6))
        life = f"{span.name}: {show_usd(span.usd_micros)}, {span.cause}"
        parts = [(span.granted_ms, span.ended_ms, "idle", life)]
        parts += [(start, stop, kind, show_ms(stop - start)) for start, stop, kind in ran.get(span.name, ())]
        bars += [
            TimelineBar(x=_POOLS + start * scale, y=y, width=max(0.5, (stop - start) * scale), kind=kind, says=says)
            for start, stop, kind, says in parts
        ]
        y += _LINE
    if rest > 0:
        texts.append((f"and {rest} workers more", y + 16))
    return Timeline(bars=tuple(bars), texts=tuple(texts), height=y + 24)
