"""The commands of `orc`."""

from __future__ import annotations

import getpass
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import select

from agent.cli import cluster, opened, show, simulate
from agent.cli.face import ask
from agent.cli.rules import rules_app
from agent.errors import OrcError, ServiceError
from agent.graph.bolt import Graph, address
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from agent.mind.run_graph import RunGraph
from agent.model import codec
from agent.model.plans import Decision
from agent.model.units import duration_ms, show_ms, show_usd, usd_micros
from agent.planner.explain import read_aloud
from agent.pools import declared, prices
from agent.report.run import declared_pools, report
from agent.report.shadow import shadow_report
from agent.services import control
from agent.services import state as states
from agent.settings import Settings, load
from rules.schema import RuleError

app = typer.Typer(
    help="ORC: each task on the cheapest worker that still meets its deadline and budget, with a record.",
    no_args_is_help=True,
    add_completion=False,
)
ledger_app = typer.Typer(help="The ledger.", no_args_is_help=True)
shadow_app = typer.Typer(help="Shadow mode.", no_args_is_help=True)
app.add_typer(shadow_app, name="shadow")
graph_app = typer.Typer(help="The knowledge graph.", no_args_is_help=True)
app.add_typer(graph_app, name="graph")
app.command()(cluster.init)
app.command()(cluster.doctor)
app.command()(simulate.simulate)
app.command()(simulate.backtest)
app.add_typer(rules_app, name="rules")
app.add_typer(ledger_app, name="ledger")
echo = show.console.print

_Run = Annotated[str, typer.Argument(help="id of a flow run, or its beginning")]
_Why = Annotated[str, typer.Option(help="the reason, for the record")]
_By = Annotated[str, typer.Option(help="who says so")]


@app.command()
def up(
    scheduler: Annotated[
        str | None, typer.Option(help="govern this Dask scheduler, tcp://HOST:PORT, in place of one of our own")
    ] = None,
    prefect: Annotated[
        str | None, typer.Option(help="use this Prefect API, http://HOST:PORT/api, in place of a server of our own")
    ] = None,
) -> None:
    """Start the Prefect server, the Dask scheduler, the governor, the mind, the graph and a Prefect worker."""
    settings = load()
    theirs = {name: at for name, at in (("scheduler", scheduler), ("prefect", prefect)) if at}
    for name, at in theirs.items():
        if "://" not in at:
            raise ServiceError(
                f"--{name} {at}: write {'tcp://HOST:PORT' if name == 'scheduler' else 'http://HOST:PORT/api'}"
            )
    state = control.up(settings, lambda text: echo(f"  {text}"), theirs)
    _addresses(settings, state)


def _addresses(settings: Settings, state: states.State) -> None:
    host, ports = settings.host, state.ports
    echo(
        f"Prefect         {state.theirs['prefect']}"
        if "prefect" in state.theirs
        else f"Prefect UI      http://{host}:{ports['prefect']}"
    )
    if "scheduler" in state.theirs:
        echo(f"Dask scheduler  {state.theirs['scheduler']}")
    else:
        echo(f"Dask dashboard  http://{host}:{ports['dashboard']}/status")
        echo(f"Dask scheduler  tcp://{host}:{ports['scheduler']}")
    echo('for other shells: eval "$(orc env)"')


@app.command()
def down() -> None:
    """End everything that `orc up` started."""
    if not control.down(load(), lambda text: echo(f"  {text}")):
        echo("nothing was up")


@app.command()
def env() -> None:
    """Print the variables that reach this ORC, for `eval "$(orc env)"`."""
    settings = load()
    state = _up(settings)
    for name, value in states.environment(settings, state).items():
        if name not in (states.INSTANCE, "PYTHONUNBUFFERED"):
            print(f"export {name}={shlex.quote(value)}")


def _up(settings: Settings) -> states.State:
    state = states.read(settings)
    if state is None or not state.alive():
        raise ServiceError(f"ORC is not up in {settings.home}; start it with `orc up`")
    return state


@app.command()
def status() -> None:
    """Pools, workers, held and running tasks, spend."""
    settings = load()
    show.status(ask(settings, "GET", "/status"))
    state = states.read(settings)
    if state is not None and state.alive():
        _addresses(settings, state)


@app.command()
def why(run: Annotated[str, typer.Argument(help="flow run; without one, everything that waits")] = "") -> None:
    """Why is it not running? Each hold: reason, since, what releases it."""
    settings = load()
    show.why(ask(settings, "GET", "/why", {"run": _find_run(settings, run) if run else ""}))


def _find_run(settings: Settings, run: str) -> str:
    """A flow run by its id or the beginning of it."""
    known = (
        {id for r in opened.ledger(settings).runs() for id in (r.flow_run, r.root_run) if id.startswith(run)}
        if len(run) >= 4
        else set()
    )
    return known.pop() if len(known) == 1 else run


@app.command()
def explain(
    run: Annotated[str, typer.Argument(help="task run or flow run")],
    most: Annotated[int, typer.Option("--most", help="decisions shown of a flow run")] = 20,
) -> None:
    """Read a decision aloud: every pool, why not, what it would have cost, which rule, who approved."""
    ledger = opened.ledger(load())
    wanted = run.replace("-", "")
    p, d, r, o = t.placement, t.decision, t.run, t.outcome
    with ledger.reading() as db:
        base = select(p.c.id, p.c.key, p.c.decision, o.c.result, o.c.run_ms).select_from(
            p.outerjoin(o, (o.c.chain == p.c.chain) & (o.c.placement == p.c.id))
        )
        placed = db.execute(base.where(p.c.chain == ledger.chain, p.c.key.like(f"%{wanted}%")).order_by(p.c.id)).all()
        if placed:
            numbers = [row.decision for row in placed]
        else:
            joined = d.join(r, (r.c.chain == d.c.chain) & (r.c.no == d.c.run))
            query = (
                select(d.c.id)
                .select_from(joined)
                .where(d.c.chain == ledger.chain, r.c.flow_run.like(f"{run}%") | r.c.root_run.like(f"{run}%"))
            )
            numbers = [row.id for row in db.execute(query.order_by(d.c.id.desc()).limit(most))][::-1]
    if not numbers:
        raise ServiceError(f"the ledger has no decision of {run}; `orc decisions` lists the newest")
    for row in placed:
        result = t.RESULTS[row.result] if row.result is not None else "running"
        echo(
            f"{row.key}: placement {row.id}, decision {row.decision}: {result}{f' after {show_ms(row.run_ms)}' if row.run_ms else ''}"
        )
    for number in dict.fromkeys(numbers):
        echo(f"\ndecision {number}: {read_aloud(_decision(ledger, number))}")


def _decision(ledger: Ledger, number: int) -> Decision:
    with ledger.reading() as db:
        digest = db.execute(
            select(t.decision.c.body).where(t.decision.c.chain == ledger.chain, t.decision.c.id == number)
        ).scalar_one()
    return codec.decode(Decision, ledger.decision_body(digest))


@app.command()
def decisions(most: Annotated[int, typer.Option("--most", help="how many")] = 30) -> None:
    """The newest decisions."""
    ledger = opened.ledger(load())
    d, r = t.decision, t.record
    with ledger.reading() as db:
        joined = d.join(r, (r.c.chain == d.c.chain) & (r.c.seq == d.c.seq))
        found = db.execute(
            select(d.c.id, r.c.at_ms)
            .select_from(joined)
            .where(d.c.chain == ledger.chain)
            .order_by(d.c.id.desc())
            .limit(most)
        ).all()[::-1]
    rows = []
    for row in found:
        said = _decision(ledger, row.id)
        rows.append([row.id, show.when(row.at_ms), said.name, said.verb, said.pool or "", said.reason])
    show.table("decisions", ["id", "at", "task", "verb", "pool", "because"], rows, {"id"})


@app.command()
def pools() -> None:
    """The declared pools, checked."""
    settings = load()
    said = declared.read(settings.pools, prices.of(settings))
    rows = [
        [
            p.name,
            p.shown_kind,
            p.shown_size,
            p.slots,
            f"{show_usd(p.price_at(round(time.time() * 1000)))}/h",
            f"{p.min_workers} to {p.max_workers}",
            show_ms(p.startup_ms),
            p.provider or "observed",
            ", ".join(f"{k}={v}" for k, v in p.labels),
        ]
        for p in said.pools
    ]
    show.table(
        f"pools of {settings.pools}",
        ["pool", "kind", "worker", "slots", "price", "workers", "start-up", "provider", "labels"],
        rows,
        {"slots", "price"},
    )
    if said.budgets:
        show.table(
            "budgets",
            ["budget", "limit", "max_runtime"],
            [
                [b.name, show_usd(b.limit_usd_micros), show_ms(b.max_runtime_ms) if b.max_runtime_ms else "asked for"]
                for b in said.budgets
            ],
        )


@app.command("report")
def report_(run: _Run, svg: Annotated[Path | None, typer.Option(help="write it as a picture too")] = None) -> None:
    """What a run's tasks cost and why they ran where, beside all on demand."""
    settings = load()
    ledger = opened.ledger(settings)
    made = report(ledger, _find_run(settings, run), round(time.time() * 1000))
    if made is None:
        raise ServiceError(f"the ledger has nothing of run {run}")
    show.console.record = svg is not None
    show.run(made, any(pool.emulated for pool in declared_pools(ledger).values()))
    if svg is not None:
        svg.write_text(show.picture(f"orc report {run[:8]}"))


@app.command()
def approve(
    id: Annotated[str, typer.Argument(help="id of the hold, from `orc why`")],
    by: _By = getpass.getuser(),
    why: _Why = "",
    usd: Annotated[str | None, typer.Option(help="approve at most so many dollars")] = None,
) -> None:
    """Let held tasks run that a rule escalated."""
    done = ask(
        load(), "POST", "/approve", {"id": id, "by": by, "why": why, "usd_micros": usd_micros(usd) if usd else None}
    )
    echo(f"approved: {done['count']} of {done['task']}")


@app.command()
def reject(
    id: Annotated[str, typer.Argument(help="id of the hold, from `orc why`")],
    by: _By = getpass.getuser(),
    why: _Why = "",
) -> None:
    """Refuse held tasks that a rule escalated."""
    done = ask(load(), "POST", "/reject", {"id": id, "by": by, "why": why})
    echo(f"rejected: {done['count']} of {done['task']}")


@app.command()
def override(
    task: Annotated[str, typer.Argument(help="held task run, or the id of a hold")],
    pool: Annotated[str, typer.Option(help="the pool to put them into")],
    by: _By = getpass.getuser(),
    why: _Why = "",
) -> None:
    """Put held tasks into a pool of your choice; rules still hold."""
    done = ask(load(), "POST", "/override", {"task": task, "pool": pool, "by": by, "why": why})
    echo(f"{', '.join(done['groups'])}: {done['pool']}")


@ledger_app.command("verify")
def ledger_verify(
    replay: Annotated[bool, typer.Option("--replay", help="also make every plan again from its snapshot")] = False,
) -> None:
    """Find changed, missing or reordered records."""
    done, faults = Report(), 0
    for fault in verify(opened.ledger(load()), done, replay):
        faults += 1
        echo(f"[red]record {fault.seq}: {fault.what}[/red]")
    made = f", {done.replayed} plans made again" if replay else ""
    echo(
        f"{done.records} records{made}, {faults} faults"
        + (f"; {done.other_version} plans are of another planner's version" if done.other_version else "")
    )
    if faults:
        raise typer.Exit(1)


@shadow_app.command("report")
def shadow_report_(
    since: Annotated[str, typer.Option(help="how far back, for example 12h or 7d")] = "7d",
    html: Annotated[Path | None, typer.Option(help="write one page too")] = None,
) -> None:
    """What ORC would have done with what ran in shadow mode, in leases, dollars and minutes. Modelled."""
    now = round(time.time() * 1000)
    made = shadow_report(opened.ledger(load()), now - duration_ms(since), now)
    if made is None:
        raise ServiceError(f"nothing has run in shadow mode in the last {since}; run flows with ORC_MODE=shadow first")
    show.shadow(made)
    if html is not None:
        show.written(html, show.shadow_page(made))


@graph_app.command("status")
def graph_status() -> None:
    """The graph's server, and how far it is behind the ledger."""
    settings = load()
    run_graph = RunGraph(opened.ledger(settings), settings)
    at = address(settings)
    with Graph(at) as graph:
        echo(f"{graph.server()} at {at.url}, {run_graph.lag()} records behind the ledger")


@graph_app.command("rebuild")
def graph_rebuild() -> None:
    """Forget this scheduler's run graph and project the ledger again from its first record."""
    settings = load()
    echo(f"{RunGraph(opened.ledger(settings), settings).rebuild()} records projected")


def main() -> None:
    """Entry point: an error of ORC is a message, not a traceback."""
    run: Callable[[], Any] = app
    try:
        run()
    except (OrcError, RuleError) as error:
        print(f"orc: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
