"""`python -m agent.mind.process`: follow the ledger; what cannot be told now is told later."""

from __future__ import annotations

import asyncio

from agent.ledger.ledger import Ledger
from agent.mind.follower import Consumer, follow
from agent.mind.notifier import Notifier
from agent.mind.run_graph import RunGraph
from agent.processes import bootstrap
from agent.settings import Settings, load


def consumers(settings: Settings, ledger: Ledger) -> tuple[Consumer, ...]:
    """Who reads the ledger."""
    notifier = Notifier(ledger)
    return (notifier,) if settings.graph.url == "off" else (notifier, RunGraph(ledger, settings))


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    bootstrap.on_signals(stopping.set)
    ledger = Ledger(settings.ledger(), settings.chain_name())
    await asyncio.gather(*(follow(consumer, stopping) for consumer in consumers(settings, ledger)))


def main() -> None:
    """Entry point."""
    bootstrap.run("orc.mind", lambda: asyncio.run(_main(load())))


if __name__ == "__main__":
    main()
