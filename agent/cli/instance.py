"""`orc up`, `down`, `env` and `status`: the ORC of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.terminal import say, table
from agent.errors import ServiceError

if TYPE_CHECKING:
    from agent.services.state import State
    from agent.settings import Settings


def up(
    scheduler: Annotated[
        str | None, typer.Option(help="govern this Dask scheduler, tcp://HOST:PORT, in place of one of our own")
    ] = None,
    prefect: Annotated[
        str | None, typer.Option(help="use this Prefect API, http://HOST:PORT/api, in place of a server of our own")
    ] = None,
) -> None:
    """Start the Prefect server, the Dask scheduler, the governor, the mind, the graph and a Prefect worker."""
    from agent.services import control
    from agent.settings import load

    settings = load()
    theirs = {name: at for name, at in (("scheduler", scheduler), ("prefect", prefect)) if at}
    for name, at in theirs.items():
        if "://" not in at:
            raise ServiceError(
                f"--{name} {at}: write {'tcp://HOST:PORT' if name == 'scheduler' else 'http://HOST:PORT/api'}"
            )
    state = control.up(settings, lambda text: say(f"  {text}"), theirs)
    _addresses(settings, state)


def _addresses(settings: Settings, state: State) -> None:
    from agent.services import environment

    host, ports = settings.host, state.ports
    if "prefect" in state.theirs:
        say(f"Prefect         {state.theirs['prefect']}")
    else:
        say(f"Prefect UI      http://{host}:{ports['prefect']}")
        if (auth := environment.prefect_auth(settings)) is not None:
            say(f"  log in with   {auth}")
    if "scheduler" in state.theirs:
        say(f"Dask scheduler  {state.theirs['scheduler']}")
    else:
        say(f"Dask dashboard  http://{host}:{ports['dashboard']}/status")
        say(f"Dask scheduler  tcp://{host}:{ports['scheduler']}")
    say('for other shells: eval "$(orc env)"')


def down() -> None:
    """End everything that `orc up` started."""
    from agent.services import control
    from agent.settings import load

    if not control.down(load(), lambda text: say(f"  {text}")):
        say("nothing was up")


def env() -> None:
    """Print the variables that reach this ORC, for `eval "$(orc env)"`."""
    import shlex

    from agent.processes.family import INSTANCE
    from agent.services import environment
    from agent.services import state as states
    from agent.settings import load

    settings = load()
    state = states.read(settings)
    if state is None or not state.alive():
        raise ServiceError(f"ORC is not up in {settings.home}; start it with `orc up`")
    for name, value in environment.environment(settings, state).items():
        if name not in (INSTANCE, "PYTHONUNBUFFERED"):
            print(f"export {name}={shlex.quote(value)}")


def status() -> None:
    """Pools, workers, held and running tasks, spend."""
    from agent.api.client import ask
    from agent.services import state as states
    from agent.settings import load

    settings = load()
    _show_status(ask(settings, "GET", "/status"))
    state = states.read(settings)
    if state is not None and state.alive():
        _addresses(settings, state)


def _show_status(answer: dict[str, Any]) -> None:
    from agent.model.units import show_usd

    say(
        f"scheduler {answer['scheduler']}, mode {answer['mode']}, governor epoch {answer['epoch']}, "
        f"{answer['held']} held, "
        f"{answer['running']} running, open leases {show_usd(answer['open_usd_micros'])}"
    )
    for warning in (*answer["degraded"], *answer["warnings"]):
        say(warning, style="yellow")
    if answer["spooled"]:
        say(f"{answer['spooled']} records wait for the ledger's database, which is away", style="yellow")
    rules = answer["rules"]
    say(f"rules in force: {rules['count']}, digest {rules['digest'][:12]}")
    if rules["wrong"]:
        say(f"the rule files are refused, the rules in force stay: {rules['wrong']}", style="red")
    columns = ["pool", "kind", "worker", "price", "taken back a day", "workers", "now"]
    rows = [_pool_row(pool) for pool in answer["pools"]]
    table("worker pools", columns, rows, {"price", "taken back a day", "workers"})


def _pool_row(pool: dict[str, Any]) -> list[object]:
    from agent.model.units import show_ms, show_usd

    now = [f"{w['name']} {w['bound']}/{w['slots']}{' going' if w['draining'] else ''}" for w in pool["workers"]]
    more = [", ".join(now)] if now else []
    if pool["starting"]:
        more.append(f"starting {', '.join(pool['starting'])}")
    if pool["refused_ms"] is not None:
        more.append(f"no capacity for {show_ms(pool['refused_ms'])}")
    losses = pool["losses_a_day"]
    return [
        pool["pool"],
        pool["kind"],
        pool["size"],
        f"{show_usd(pool['usd_micros_per_hour'])}/h" if pool["priced"] else "not priced",
        f"{losses[0]:.1f} ({losses[1]} to {losses[2]})" if losses else "",
        f"{len(pool['workers'])} of {pool['max']}",
        "; ".join(more),
    ]
