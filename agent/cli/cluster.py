"""`orc init` and `orc doctor`: a cluster that runs already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.terminal import labelled, say, table
from agent.errors import PoolError, SettingError, UnitError

if TYPE_CHECKING:
    from agent.pools.propose import Proposed

_COLOURS = {"good": "green", "warning": "yellow", "wrong": "red"}


def init(
    scheduler: Annotated[str, typer.Option(help="address of the running scheduler, tcp://HOST:PORT")],
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("pools.yaml"),
    price: Annotated[
        list[str] | None, typer.Option(help="POOL=DOLLARS an hour of one worker; may be given several times")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
) -> None:
    """Look at a running cluster and propose its pools. No worker is restarted or changed."""
    import sys

    from agent.cluster.inspect import inspect_cluster
    from agent.pools.propose import propose, text

    if out.exists() and not force:
        raise PoolError(f"{out} is there already; write elsewhere with --out, or overwrite it with --force")
    prices = dict(_price(said) for said in price or ())
    cluster = inspect_cluster(scheduler)
    if not cluster.workers:
        raise PoolError(f"the cluster at {scheduler} has no workers to look at; start some and run this again")
    proposed = propose(cluster.workers)
    names = {pool.name for pool in proposed.pools}
    if unknown := sorted(set(prices) - names):
        raise SettingError(f"--price {unknown[0]}=…: the proposed pools are {', '.join(sorted(names)) or 'none'}")
    if sys.stdin.isatty():
        for pool in proposed.pools:
            if pool.name not in prices:
                asked = typer.prompt(f"dollars an hour of one worker of {pool.name}")
                prices[pool.name] = _price(f"{pool.name}={asked}")[1]
    _show_proposal(proposed, scheduler, prices)
    out.write_text(text(proposed, scheduler, prices))
    say("", f"written to {out}. Next:")
    if missing := [p.name for p in proposed.pools if p.name not in prices]:
        say(f"  say the price of {', '.join(missing)} in {out}: ORC does not guess it")
    say(
        f"  ORC_POOLS={out} ORC_MODE=shadow orc up --scheduler {scheduler}    "
        "flows run as before, the plan is recorded",
        "  orc shadow report    what ORC would have done; then ORC_MODE=govern",
    )


def _show_proposal(proposed: Proposed, scheduler: str, prices: dict[str, str]) -> None:
    rows = [
        [
            pool.name,
            len(pool.workers),
            pool.because,
            f"{pool.workers[0].nthreads} threads, {pool.workers[0].memory_mib} MiB",
            "spot" if pool.spot else "on-demand",
            prices.get(pool.name, "not said"),
        ]
        for pool in proposed.pools
    ]
    columns = ["pool", "workers", "told apart by", "a worker", "market", "$/h"]
    table(f"pools of {scheduler}", columns, rows, {"workers"})
    for line in proposed.unknown:
        say(f"not known: {line}")


def _price(said: str) -> tuple[str, str]:
    from agent.model.units import usd_micros

    name, _, usd = said.partition("=")
    try:
        usd_micros(usd)
    except UnitError as error:
        raise SettingError(f"--price {said}: write POOL=DOLLARS, for example gpu=3.06 ({error})") from error
    return name, usd


def doctor(
    scheduler: Annotated[
        str | None, typer.Option(help="tcp://HOST:PORT; by default the one of `orc up`, or ORC_SCHEDULER")
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option("--import", help="a module the workers must be able to import; may be given several times"),
    ] = None,
) -> None:
    """Check versions, selectors, clocks, reachability, Python paths and settings, and say what to do about each."""
    import os

    from agent.services import environment
    from agent.services import state as states
    from agent.services.doctor import gather
    from agent.settings import load

    settings = load()
    state = states.read(settings)
    known = environment.environment(settings, state) if state is not None and state.alive() else {}
    at = scheduler or settings.scheduler or known.get("ORC_SCHEDULER")
    found = gather.diagnose(settings, at, {**os.environ, **known}, module or ())
    for finding in found:
        labelled(f"{finding.level:8}", _COLOURS[finding.level], f" {finding.what}: {finding.says}")
        if finding.do:
            say(f"         → {finding.do}")
    wrong = sum(finding.level == "wrong" for finding in found)
    warnings = sum(finding.level == "warning" for finding in found)
    say("", f"{len(found)} checks, {wrong} wrong, {warnings} warnings")
    if wrong:
        raise typer.Exit(1)
