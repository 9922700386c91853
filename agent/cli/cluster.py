"""`orc init` and `orc doctor`: a cluster that runs already."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.cli import show
from agent.errors import PoolError, SettingError, UnitError
from agent.model.units import usd_micros
from agent.pools.propose import propose, text
from agent.scheduler import look
from agent.services import doctor as checks
from agent.services import state as states
from agent.settings import load

echo = show.console.print


def init(
    scheduler: Annotated[str, typer.Option(help="address of the running scheduler, tcp://HOST:PORT")],
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("pools.yaml"),
    price: Annotated[
        list[str] | None, typer.Option(help="POOL=DOLLARS an hour of one worker; may be given several times")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
) -> None:
    """Look at a running cluster and propose its pools. No worker is restarted or changed."""
    if out.exists() and not force:
        raise PoolError(f"{out} is there already; write elsewhere with --out, or overwrite it with --force")
    prices = dict(_price(said) for said in price or ())
    cluster = look.seen(scheduler)
    if not cluster.workers:
        raise PoolError(f"the cluster at {scheduler} has no workers to look at; start some and run this again")
    proposed = propose(cluster.workers)
    names = {pool.name for pool in proposed.pools}
    if unknown := sorted(set(prices) - names):
        raise SettingError(f"--price {unknown[0]}=…: the proposed pools are {', '.join(sorted(names)) or 'none'}")
    if sys.stdin.isatty():
        for pool in proposed.pools:
            if pool.name not in prices:
                prices[pool.name] = _price(
                    f"{pool.name}={typer.prompt(f'dollars an hour of one worker of {pool.name}')}"
                )[1]
    rows = [
        [p.name, len(p.workers), p.because, f"{p.workers[0].nthreads} threads, {p.workers[0].memory_mib} MiB", "spot" if p.spot else "on-demand", prices.get(p.name, "not said")]
        for p in proposed.pools
    ]  # fmt: skip
    show.table(
        f"pools of {scheduler}", ["pool", "workers", "told apart by", "a worker", "market", "$/h"], rows, {"workers"}
    )
    for line in proposed.unknown:
        echo(f"not known: {line}")
    out.write_text(text(proposed, scheduler, prices))
    echo(f"\nwritten to {out}. Next:")
    if missing := [p.name for p in proposed.pools if p.name not in prices]:
        echo(f"  say the price of {', '.join(missing)} in {out}: ORC does not guess it")
    echo(
        f"  ORC_POOLS={out} ORC_MODE=shadow orc up --scheduler {scheduler}    flows run as before, the plan is recorded"
    )
    echo("  orc shadow report    what ORC would have done; then ORC_MODE=govern")


def _price(said: str) -> tuple[str, str]:
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
    settings = load()
    state = states.read(settings)
    said = states.environment(settings, state) if state is not None and state.alive() else {}
    found = checks.diagnose(
        settings, scheduler or settings.scheduler or said.get("ORC_SCHEDULER"), said.get("PREFECT_API_URL") or os.environ.get("PREFECT_API_URL"), module or ()
    )  # fmt: skip
    colour = {"good": "green", "warning": "yellow", "wrong": "red"}
    for finding in found:
        echo(f"[{colour[finding.level]}]{finding.level:8}[/] {finding.what}: ", end="")
        echo(finding.says, markup=False)
        if finding.do:
            echo(f"         → {finding.do}", markup=False)
    wrong = sum(finding.level == "wrong" for finding in found)
    echo(f"\n{len(found)} checks, {wrong} wrong, {sum(f.level == 'warning' for f in found)} warnings")
    if wrong:
        raise typer.Exit(1)
