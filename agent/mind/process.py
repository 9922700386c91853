"""`python -m agent.mind.process`: follow the ledger; what cannot be told now is told later."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from agent.errors import OrcError
from agent.ledger.ledger import Ledger
from agent.mind.follower import Consumer, follow
from agent.mind.notifier import Notifier
from agent.mind.run_graph import RunGraph
from agent.settings import Settings, load


def consumers(settings: Settings, ledger: Ledger) -> tuple[Consumer, ...]:
    """Who reads the ledger."""
    notifier = Notifier(ledger)
    return (notifier,) if settings.graph_url == "off" else (notifier, RunGraph(ledger, settings))


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ledger = Ledger(settings.ledger(), settings.chain_name())
    await asyncio.gather(*(follow(consumer, stopping) for consumer in consumers(settings, ledger)))


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_main(load()))
    except OrcError as error:
        logging.getLogger("orc.mind").error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
