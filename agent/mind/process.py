"""`python -m agent.mind.process`: follow the ledger; what cannot be told now is told later."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
import uuid

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.clients import get_events_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from agent.errors import OrcError
from agent.ledger.ledger import Ledger
from agent.mind.notices import events, write_artifacts
from agent.report.run import report
from agent.settings import load

logger = logging.getLogger("orc.mind")

EVENTS, ARTIFACTS = "prefect-events", "prefect-artifacts"
#: seconds between looks at the ledger
LOOK = 0.5
#: an artifact is written when nothing new came for so long, or after so many seconds of news
SETTLED, LATEST = 2.0, 10.0


class Mind:
    """One consumer of the ledger: Prefect's events and artifacts."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.stopping = asyncio.Event()
        #: flow run → first and last news, monotonic seconds
        self.news: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Until stopped. An unreachable Prefect delays, never loses: the cursor moves only behind what was told."""
        pause = LOOK
        await asyncio.to_thread(self._remember)
        while not self.stopping.is_set():
            try:
                async with get_client() as client:
                    while not self.stopping.is_set():
                        await self._look(client)
                        pause = LOOK
                        await self._rest(LOOK)
            except (OSError, httpx.HTTPError, PrefectHTTPStatusError, TimeoutError) as error:
                logger.warning("Prefect cannot be told now (%s); trying again in %.0f s", error, pause)
                await self._rest(pause)
                pause = min(30.0, pause * 2)

    def _remember(self) -> None:
        """Flow runs that had news when the last mind ended, before their artifacts were written."""
        after, told = self.ledger.cursor(ARTIFACTS), self.ledger.cursor(EVENTS)
        while after < told and (records := self.ledger.records(after, 500)):
            for record in records:
                for run in events(self.ledger, record)[1]:
                    self.news[run] = (0.0, 0.0)
            after = records[-1].seq

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _look(self, client: PrefectClient) -> None:
        after = await asyncio.to_thread(self.ledger.cursor, EVENTS)
        records = await asyncio.to_thread(self.ledger.records, after, 200)
        if records:
            now = time.monotonic()
            async with get_events_client() as teller:
                for record in records:
                    told, runs = await asyncio.to_thread(events, self.ledger, record)
                    for event in told:
                        await teller.emit(event)
                    for run in runs:
                        self.news[run] = (self.news.get(run, (now, now))[0], now)
            await asyncio.to_thread(self.ledger.advance, EVENTS, records[-1].seq)
        if self.news:
            await self._artifacts(client)
            if not self.news:
                await asyncio.to_thread(self.ledger.advance, ARTIFACTS, records[-1].seq if records else after)

    async def _artifacts(self, client: PrefectClient) -> None:
        now = time.monotonic()
        for run, (first, last) in list(self.news.items()):
            if now - last < SETTLED and now - first < LATEST:
                continue
            del self.news[run]
            made = await asyncio.to_thread(report, self.ledger, run, round(time.time() * 1000))
            if made is None:
                continue
            try:
                uuid.UUID(run)
                await write_artifacts(client, run, made)
            except (ObjectNotFound, ValueError):
                logger.info("flow run %s is not on this Prefect server", run)
            except BaseException:
                self.news[run] = (first, last)
                raise


async def _main() -> None:
    settings = load()
    mind = Mind(Ledger(settings.ledger(), settings.chain_name()))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, mind.stopping.set)
    await mind.run()


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_main())
    except OrcError as error:
        logger.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
