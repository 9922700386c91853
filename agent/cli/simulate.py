"""`orc simulate` and `orc backtest`, `orc shadow`: what would be, and what would have been."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from agent.cli import show
from agent.errors import ServiceError, SettingError
from agent.governor.process import judge_of
from agent.ledger.ledger import Ledger
from agent.model.units import duration_ms, show_ms, show_usd
from agent.pools import declared
from agent.settings import Settings, load
from agent.simulate import backtest as past
from agent.simulate import page, trace, workflow
from agent.simulate.ensemble import feasible_ms
from agent.simulate.run import Setting
from agent.simulate.what_if import POLICIES, simulate_workflow
from agent.simulate.world import Supply
from rules import schema as rules_schema

app = typer.Typer(help="What would be, and what would have been.", no_args_is_help=True)
echo = show.console.print


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(help="a workflow in WfFormat 1.5, plain or .gz")],
    pools: Annotated[Path | None, typer.Option(help="pools.yaml; by default ORC_POOLS")] = None,
    spot: Annotated[list[str] | None, typer.Option(help="POOL=TRACE, a zone file for a spot pool")] = None,
    workers: Annotated[int, typer.Option(help="workers a zone has while its trace says 1")] = 8,
    deadline: Annotated[str | None, typer.Option(help="from the start on; by default twice the feasible time")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help=f"one or more of {', '.join(POLICIES)}; by default all")
    ] = None,
    scale: Annotated[float, typer.Option(help="every runtime times this")] = 1.0,
    noisy: Annotated[bool, typer.Option(help="runtimes known from history only")] = False,
    seed: int = 0,
    html: Annotated[Path | None, typer.Option(help="write one page too")] = None,
) -> None:
    """What a workflow would cost on your pools under ORC and other policies, and whether it would be in time."""
    found = workflow.read(file)
    made = found if scale == 1.0 else found.scaled(scale)
    said = declared.read(pools or load().pools)
    traces = dict(_pair(pair) for pair in spot or ())
    unknown = sorted(set(traces) - {pool.name for pool in said.pools if pool.market == "spot"})
    if unknown:
        raise SettingError(f"there is no spot pool {unknown[0]!r} in {pools or load().pools}")
    supplies = tuple(
        Supply(pool=pool, trace=trace.read(traces[pool.name], workers) if pool.name in traces else None)
        for pool in said.pools
        if pool.market == "on-demand" or pool.name in traces
    )
    left_out = [pool.name for pool in said.pools if pool.market == "spot" and pool.name not in traces]
    for name in left_out:
        echo(f"spot pool {name} is left out: no trace is given for it (--spot {name}=FILE)")
    goal = duration_ms(deadline) if deadline is not None else None
    what = simulate_workflow(made, supplies, goal, policy or list(POLICIES), Setting(exact=not noisy, seed=seed))
    if goal is not None and goal < what.feasible_ms:
        echo(
            f"on-demand workers need {show_ms(what.feasible_ms)}: the deadline cannot be kept, it is placed for the least lateness"
        )
    show.table(
        f"{made.name}, {len(made.tasks)} tasks{'' if scale == 1.0 else f', scaled {scale:g} times'}, simulated",
        page.HEAD,
        page.table(what),
        set(page.HEAD[1:]),
    )
    if html is not None:
        html.write_text(page.page(what), encoding="utf-8")
        echo(f"written to {html}")


def _pair(said: str) -> tuple[str, Path]:
    name, found, file = said.partition("=")
    if not found:
        raise SettingError(f"--spot {said!r}: write POOL=FILE")
    return name, Path(file)


def _ledger(settings: Settings) -> Ledger:
    if settings.ledger_url is None and not (settings.home / "ledger.db").exists():
        raise ServiceError(f"there is no ledger in {settings.home} yet; `orc up` begins one")
    return Ledger(settings.ledger(), settings.chain_name())


def _since(said: str) -> int:
    days = said.strip().removesuffix("d")
    ms = (
        round(float(days) * 86_400_000)
        if said.strip().endswith("d") and days.replace(".", "", 1).isdigit()
        else duration_ms(said)
    )
    return round(time.time() * 1000) - ms


@app.command()
def backtest(
    rules: Annotated[list[Path], typer.Option(help="new rule files or folders")],
    since: Annotated[str, typer.Option(help="how far back, for example 30d or 12h")] = "30d",
) -> None:
    """What other rules would have forbidden (exact), and what that would have cost (modelled)."""
    found = rules_schema.load(rules)
    made = past.backtest(_ledger(load()), judge_of(found), found.facts, _since(since))
    show.table(
        f"{made.executions} executions; forbidden by the rules (exact)",
        ["rule", "task class", "pool", "instead", "executions", "reason"],
        [[f.rule, f.task_class, f.pool, f.instead or "refused", str(f.executions), f.reason] for f in made.forbidden],
        {"executions"},
    )
    for rule, count in made.asked:
        echo(f"rule {rule} would have asked a person {count} times")
    usd, ms = made.usd_micros, made.ms
    echo(
        f"modelled: {_signed(usd.value)} ({_signed(usd.low)} to {_signed(usd.high)}), {ms.value / 60_000:+.1f} min of work ({ms.low / 60_000:+.1f} to {ms.high / 60_000:+.1f})"
    )
    for limit in made.limits:
        echo(limit)


@app.command()
def shadow(since: Annotated[str, typer.Option(help="how far back, for example 30d or 12h")] = "30d") -> None:
    """What ORC's plans of shadow mode would have saved and risked beside all on demand (modelled)."""
    made = past.shadow(_ledger(load()), _since(since))
    saved = made.saved_usd_micros
    show.table(
        f"{made.executions} executions, modelled from their observed runtimes",
        ["", "leases", "cost"],
        [
            ["today, packed on demand", str(made.today_leases), show_usd(made.today_usd_micros)],
            ["as ORC planned", str(made.orc_leases), show_usd(made.orc_usd_micros)],
        ],
        {"leases", "cost"},
    )
    echo(
        f"saved {_signed(saved.value)} ({_signed(saved.low)} to {_signed(saved.high)}); pools: {', '.join(f'{n} {c}' for n, c in made.by_pool)}"
    )
    echo(
        f"risked: {made.interruptions:.1f} interruptions expected, {made.repeated_ms / 60_000:.1f} min of work done again"
    )


def _signed(micros: float) -> str:
    return f"{'-' if micros < 0 else '+'}{show_usd(abs(round(micros)))}"


def feasible(file: Path, startup: str) -> str:
    """The least time a workflow needs on demand, for messages."""
    return show_ms(feasible_ms(workflow.read(file), duration_ms(startup)))
