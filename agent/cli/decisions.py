"""`orc explain` and `orc decisions`: what was decided, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.terminal import say, table
from agent.errors import ServiceError


def explain(
    run: Annotated[str, typer.Argument(help="task run or flow run")],
    most: Annotated[int, typer.Option("--most", min=1, help="decisions shown of a flow run")] = 20,
) -> None:
    """Read a decision aloud: every pool, why not, what it would have cost, which rule, who approved."""
    from agent.cli.context import open_ledger
    from agent.model.units import show_ms
    from agent.planner.explain import read_aloud
    from agent.report import decisions as recorded
    from agent.settings import load

    ledger = open_ledger(load())
    placed = recorded.placements(ledger, run)
    if placed:
        found = recorded.read(ledger, sorted({line.decision for line in placed}))
    else:
        found = recorded.of_run(ledger, run, most)
    if not found:
        raise ServiceError(f"the ledger has no decision of {run}; `orc decisions` lists the newest")
    for line in placed:
        after = f" after {show_ms(line.run_ms)}" if line.run_ms else ""
        say(f"{line.key}: placement {line.id}, decision {line.decision}: {line.result}{after}")
    for entry in found:
        say()
        if entry.decision is None:
            say(entry.unreadable, style="red")
        else:
            say(*f"decision {entry.id}: {read_aloud(entry.decision)}".split("\n"))


def decisions(most: Annotated[int, typer.Option("--most", min=1, help="how many")] = 30) -> None:
    """The newest decisions."""
    from datetime import datetime

    from agent.cli.context import open_ledger
    from agent.report.decisions import newest
    from agent.settings import load

    found = newest(open_ledger(load()), most)
    rows: list[list[object]] = []
    for entry in found:
        at = datetime.fromtimestamp(entry.at_ms / 1000).strftime("%H:%M:%S")
        if (said := entry.decision) is None:
            rows.append([entry.id, at, "", "unreadable", "", entry.unreadable])
        else:
            rows.append([entry.id, at, said.name, said.verb, said.pool or "", said.reason])
    table("decisions", ["id", "at", "task", "verb", "pool", "because"], rows, {"id"})
