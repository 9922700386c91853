"""`orc simulate` and `orc backtest`: what would be, and what would have been."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.terminal import say, table, written
from agent.errors import SettingError
from agent.model.plain_text import printable

#: names of `agent.simulate.what_if.POLICIES`, which take half a second to import; a test compares them
POLICY_NAMES = (
    "orc", "on-demand", "spot-retries", "flyte", "fallback-stay", "fallback-back", "greedy", "uniform", "uniform-task",
    "ic-pcp", "ray",
)  # fmt: skip


def simulate(  # noqa: PLR0913
    file: Annotated[Path, typer.Argument(help="a workflow in WfFormat 1.5, plain or .gz")],
    pools: Annotated[Path | None, typer.Option(help="pools.yaml; by default ORC_POOLS")] = None,
    spot: Annotated[list[str] | None, typer.Option(help="POOL=TRACE, a zone file for a spot pool")] = None,
    workers: Annotated[int, typer.Option(help="workers a zone has while its trace says 1")] = 8,
    deadline: Annotated[str | None, typer.Option(help="from the start on; by default twice the feasible time")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help=f"one or more of {', '.join(POLICY_NAMES)}; by default all")
    ] = None,
    scale: Annotated[float, typer.Option(help="every runtime times this")] = 1.0,
    noisy: Annotated[bool, typer.Option(help="runtimes known from history only")] = False,
    seed: int = 0,
    html: Annotated[Path | None, typer.Option(help="write one page too")] = None,
) -> None:
    """What a workflow would cost on your pools under ORC and other policies, and whether it would be in time."""
    from agent.model.units import duration_ms, show_ms
    from agent.pools import declared, prices
    from agent.settings import load
    from agent.simulate import page
    from agent.simulate.what_if import POLICIES, simulate_workflow
    from agent.simulate.workflows import trace, workflow
    from agent.simulate.workflows.setting import SimulationSetting
    from agent.simulate.workflows.world import Supply

    found = workflow.read(file)
    made = found if scale == 1.0 else found.scaled(scale)
    settings = load()
    said = declared.read(pools or settings.pools, prices.of(settings))
    traces = dict(_pair(pair) for pair in spot or ())
    unknown = sorted(set(traces) - {pool.name for pool in said.pools if pool.market == "spot"})
    if unknown:
        raise SettingError(f"there is no spot pool {unknown[0]!r} in {pools or settings.pools}")
    supplies = tuple(
        Supply(pool=pool, trace=trace.read(traces[pool.name], workers) if pool.name in traces else None)
        for pool in said.pools
        if pool.market == "on-demand" or pool.name in traces
    )
    left_out = [pool.name for pool in said.pools if pool.market == "spot" and pool.name not in traces]
    for name in left_out:
        say(f"spot pool {name} is left out: no trace is given for it (--spot {name}=FILE)")
    goal = duration_ms(deadline) if deadline is not None else None
    what = simulate_workflow(
        made, supplies, goal, policy or list(POLICIES), SimulationSetting(exact=not noisy, seed=seed), _progress
    )
    if goal is not None and goal < what.feasible_ms:
        say(
            f"on-demand workers need {show_ms(what.feasible_ms)}: the deadline cannot be kept, "
            "it is placed for the least lateness"
        )
    table(
        f"{made.name}, {len(made.tasks)} tasks{'' if scale == 1.0 else f', scaled {scale:g} times'}, simulated",
        page.HEAD,
        page.table(what),
        set(page.HEAD[1:]),
    )
    if html is not None:
        written(html, page.what_if(what))


def _progress(line: str) -> None:
    """On standard error, so that the table can be piped."""
    print(f"simulating {printable(line)}", file=sys.stderr, flush=True)


def _pair(said: str) -> tuple[str, Path]:
    name, found, file = said.partition("=")
    if not found:
        raise SettingError(f"--spot {said!r}: write POOL=FILE")
    return name, Path(file)


def backtest(
    rules: Annotated[list[Path], typer.Option(help="new rule files or folders")],
    since: Annotated[str, typer.Option(help="how far back, for example 30d or 12h")] = "30d",
    html: Annotated[Path | None, typer.Option(help="write one page too")] = None,
) -> None:
    """What other rules would have forbidden (exact), and what that would have cost (modelled)."""
    import time

    from agent.cli.context import open_ledger
    from agent.governor.rulebook import made as ready
    from agent.model.units import duration_ms
    from agent.settings import load
    from agent.simulate import backtest as past
    from agent.simulate import page
    from rules import schema

    found = schema.load(rules)
    made = past.backtest(
        open_ledger(load()), ready(found).judge, found.facts, round(time.time() * 1000) - duration_ms(since)
    )
    table(
        f"{made.executions} executions; forbidden by the rules (exact)",
        page.FORBIDDEN,
        page.forbidden(made),
        {"executions"},
    )
    for rule, count in made.asked:
        say(f"rule {rule} would have asked a person {count} times")
    usd, ms = made.usd_micros, made.ms
    say(
        f"modelled: {page.signed(usd.value)} ({page.signed(usd.low)} to {page.signed(usd.high)}), "
        f"{ms.value / 60_000:+.1f} min of work ({ms.low / 60_000:+.1f} to {ms.high / 60_000:+.1f})"
    )
    for limit in made.limits:
        say(limit)
    if html is not None:
        written(html, page.backtest(made))
