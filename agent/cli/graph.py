"""`orc graph`: the knowledge graph, as the projection of the ledger."""

from __future__ import annotations

import typer

from agent.cli.terminal import say

graph_app = typer.Typer(help="The knowledge graph.", no_args_is_help=True)


@graph_app.command("status")
def status() -> None:
    """The graph's server, and how far it is behind the ledger."""
    from agent.cli.context import open_ledger
    from agent.graph.bolt import Graph, address
    from agent.mind.run_graph import RunGraph
    from agent.settings import load

    settings = load()
    run_graph = RunGraph(open_ledger(settings), settings)
    at = address(settings)
    with Graph(at) as graph:
        say(f"{graph.server()} at {at.url}, {run_graph.lag()} records behind the ledger")


@graph_app.command("rebuild")
def rebuild() -> None:
    """Forget this scheduler's run graph and project the ledger again from its first record."""
    from agent.cli.context import open_ledger
    from agent.mind.run_graph import RunGraph
    from agent.settings import load

    settings = load()
    say(f"{RunGraph(open_ledger(settings), settings).rebuild()} records projected")
