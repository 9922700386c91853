"""The consumer that tells Prefect: events at once, artifacts when a flow run has settled."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import AsyncExitStack

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events import Event
from prefect.events.clients import get_events_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from agent.ledger.ledger import Ledger
from agent.ledger.unreadable import UNREADABLE, why
from agent.mind.notices import events, write_artifacts
from agent.model.records import Record
from agent.report.run import report

logger = logging.getLogger("orc.mind")

EVENTS, ARTIFACTS = "prefect-events", "prefect-artifacts"
#: an artifact is written when nothing new came for so long, or after so many seconds of news
SETTLED, LATEST = 2.0, 10.0
#: answers of the server that mean "never": bad, too large, unprocessable
REFUSED = (400, 413, 422)


class Notifier:
    """See `Consumer`."""

    name = "Prefect"
    away: tuple[type[Exception], ...] = (OSError, httpx.HTTPError, PrefectHTTPStatusError, TimeoutError)

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        #: flow run → first and last news, monotonic seconds
        self.news: dict[str, tuple[float, float]] = {}
        self._client: PrefectClient | None = None
        self._open = AsyncExitStack()
        self._remembered = False
        #: the ledger's last record when everything was told
        self._told = -1

    async def look(self) -> bool:  # noqa: C901
        """See `Consumer`."""
        if not self._remembered:
            await asyncio.to_thread(self.remember)
            self._remembered = True
        if self._client is None:
            self._client = await self._open.enter_async_context(get_client())
        last = await asyncio.to_thread(self.ledger.last_seq)
        if last == self._told and not self.news:
            return False
        after = await asyncio.to_thread(self.ledger.cursors.position, EVENTS)
        records = await asyncio.to_thread(self.ledger.records, after, 200)
        if records:
            now = time.monotonic()
            async with get_events_client() as teller:
                for record in records:
                    told, runs = await asyncio.to_thread(self._events, record)
                    for event in told:
                        await teller.emit(event)
                    for run in runs:
                        self.news[run] = (self.news.get(run, (now, now))[0], now)
            await asyncio.to_thread(self.ledger.cursors.advance, EVENTS, records[-1].seq)
        if self.news:
            await self._artifacts(self._client)
            if not self.news:
                await asyncio.to_thread(self.ledger.cursors.advance, ARTIFACTS, records[-1].seq if records else after)
        more = len(records) == 200
        if not more:
            self._told = last
        return more

    async def leave(self) -> None:
        """See `Consumer`."""
        self._client = None
        await self._open.aclose()

    def remember(self) -> None:
        """Flow runs that had news when the last mind ended, before their artifacts were written."""
        after, told = self.ledger.cursors.position(ARTIFACTS), self.ledger.cursors.position(EVENTS)
        while after < told and (records := self.ledger.records(after, 500)):
            for record in records:
                for run in self._events(record)[1]:
                    self.news[run] = (0.0, 0.0)
            after = records[-1].seq

    def _events(self, record: Record) -> tuple[list[Event], set[str]]:
        """What a record is told as; nothing, and a line in the log, when it cannot be read."""
        try:
            return events(self.ledger, record)
        except UNREADABLE as error:
            logger.error("record %d of %s cannot be told: %s; passed over", record.seq, record.scheduler, why(error))
            return [], set()

    async def _artifacts(self, client: PrefectClient) -> None:
        now = time.monotonic()
        for run, (first, last) in list(self.news.items()):
            if now - last < SETTLED and now - first < LATEST:
                continue
            del self.news[run]
            try:
                await self.write_report(client, run)
            except BaseException:
                self.news[run] = (first, last)
                raise

    async def write_report(self, client: PrefectClient, run: str) -> None:
        """The artifacts of a flow run; what will never be taken is told in the log, and not tried for ever."""
        try:
            made = await asyncio.to_thread(report, self.ledger, run, round(time.time() * 1000))
        except UNREADABLE as error:
            logger.error("flow run %s cannot be reported: %s; passed over", run, why(error))
            return
        if made is None:
            return
        try:
            uuid.UUID(run)
        except ValueError:
            logger.info("flow run %s is none of Prefect's", run)
            return
        try:
            await write_artifacts(client, run, made)
        except ObjectNotFound:
            logger.info("flow run %s is not on this Prefect server", run)
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in REFUSED:
                raise
            logger.error("the artifacts of flow run %s are refused: %s; passed over", run, error)
