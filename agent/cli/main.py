"""`orc`: the groups of commands, put together. What a command needs is imported when it runs."""

from __future__ import annotations

import gc
import sys

import typer

from agent.cli import cluster, decisions, holds, instance, pools, runs, simulate
from agent.cli.graph import graph_app
from agent.cli.ledger import ledger_app
from agent.cli.rules import rules_app
from agent.cli.shadow import shadow_app
from agent.errors import OrcError
from agent.model.plain_text import printable
from rules.errors import RuleError

app = typer.Typer(
    help="ORC: each task on the cheapest worker that still meets its deadline and budget, with a record.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # Rich's help takes three times as long as all the rest
    pretty_exceptions_show_locals=False,
)
for command in (
    instance.up,
    instance.down,
    instance.env,
    instance.status,
    holds.why,
    decisions.explain,
    decisions.decisions,
    runs.report,
    holds.approve,
    holds.reject,
    holds.override,
    pools.pools,
    cluster.init,
    cluster.doctor,
    simulate.simulate,
    simulate.backtest,
):
    app.command()(command)
for name, group in (
    ("shadow", shadow_app),
    ("graph", graph_app),
    ("rules", rules_app),
    ("ledger", ledger_app),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Entry point: an error of ORC is a message, not a traceback."""
    gc.set_threshold(50_000)  # imports make many objects that stay: looking through them takes a tenth of a command
    try:
        app()
    except (OrcError, RuleError) as error:
        print("orc: " + "\n".join(printable(line) for line in str(error).split("\n")), file=sys.stderr)
        sys.exit(2)
    finally:
        gc.freeze()  # nor is there anything to find in them at the end, where the interpreter looks once more


if __name__ == "__main__":
    main()
