"""`orc why`, `approve`, `reject` and `override`: what waits, and what people say about it."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.terminal import say, table

_Hold = Annotated[str, typer.Argument(help="id of the hold, from `orc why`")]
_Reason = Annotated[str, typer.Option("--why", help="the reason, for the record")]
_By = Annotated[str | None, typer.Option(help="who says so; by default the user of this machine")]


def why(run: Annotated[str, typer.Argument(help="flow run; without one, everything that waits")] = "") -> None:
    """Why is it not running? Each hold: reason, since, what releases it."""
    from agent.api.client import ask
    from agent.cli.context import open_ledger
    from agent.settings import load

    settings = load()
    if run:
        from agent.report.decisions import run_named

        run = run_named(open_ledger(settings), run)
    answer = ask(settings, "GET", "/why", {"run": run})
    if not answer["holds"] and not answer["running"]:
        say("nothing of it waits and nothing runs: it has ended, has not submitted a task yet, or is not governed")
    if answer["holds"]:
        fields = ("task", "count", "reason", "since", "why", "release", "id")
        columns = ["task", "tasks", "reason", "since", "why", "released by", "id"]
        table("held", columns, [[hold[name] for name in fields] for hold in answer["holds"]], {"tasks", "since"})
    if answer["running"]:
        columns = ["task", "pool", "worker", "for"]
        table("bound", columns, [[task[name] for name in columns] for task in answer["running"]], {"for"})


def approve(
    hold: _Hold,
    by: _By = None,
    reason: _Reason = "",
    usd: Annotated[str | None, typer.Option(help="approve at most so many dollars")] = None,
) -> None:
    """Let held tasks run that a rule escalated."""
    from agent.model.units import usd_micros

    most = usd_micros(usd) if usd is not None else None
    say(f"approved: {_answer('/approve', hold, by, reason, usd_micros=most)}")


def reject(hold: _Hold, by: _By = None, reason: _Reason = "") -> None:
    """Refuse held tasks that a rule escalated."""
    say(f"rejected: {_answer('/reject', hold, by, reason)}")


def _answer(path: str, hold: str, by: str | None, reason: str, **more: int | None) -> str:
    from agent.api.client import ask
    from agent.cli.context import user
    from agent.settings import load

    done = ask(load(), "POST", path, {"id": hold, "by": by or user(), "why": reason, **more})
    return f"{done['count']} of {done['task']}"


def override(
    task: Annotated[str, typer.Argument(help="held task run, or the id of a hold")],
    pool: Annotated[str, typer.Option(help="the pool to put them into")],
    by: _By = None,
    reason: _Reason = "",
) -> None:
    """Put held tasks into a pool of your choice; rules still hold."""
    from agent.api.client import ask
    from agent.cli.context import user
    from agent.settings import load

    done = ask(load(), "POST", "/override", {"task": task, "pool": pool, "by": by or user(), "why": reason})
    say(f"{', '.join(done['groups'])}: {done['pool']}")
