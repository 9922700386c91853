"""The workers a plan asks for or lets go: launched, drained and ended through the providers,
in jobs beside the rounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.errors import NoCapacityError, ProviderError
from agent.governor.round import LaunchOrder
from agent.governor.scheduler_client import SchedulerClient
from agent.model.effects import Note, SeeTo
from agent.model.leases import EndCause, Lease
from agent.model.plans import Drain
from agent.model.pools import PriceStep
from agent.pools.port import Gone, Notice, Observation, Price, Provider
from agent.state.cluster import ClusterState

logger = logging.getLogger("orc.governor")

#: a launched worker that left the scheduler may take so long to end by itself, seconds
LINGER = 5.0
#: and one that a governor finds as it begins, to find its scheduler
RETURN = 60.0
#: a worker that is to end and got other work at the last moment is looked at again after so long, seconds
BUSY_AGAIN = 1.0
#: price steps of a pool kept in memory
STEPS_KEPT = 500


class Provisioner:
    """What is asked of providers, and what they answer, into the state."""

    def __init__(
        self,
        state: ClusterState,
        providers: Mapping[str, Provider],
        scheduler_client: SchedulerClient,
        clock: Callable[[], int],
        note: Callable[[Note], None],
        wake: Callable[[], None],
    ) -> None:
        """Begin without a job.

        Args:
            note: puts something on record with the next commit.
            wake: makes the governor look up.
        """
        self.state, self.fleet, self.providers = state, state.fleet, providers
        self.scheduler_client, self.clock, self.note, self.wake = scheduler_client, clock, note, wake
        self._jobs: set[asyncio.Future[Any]] = set()
        #: worker → what ends it, in words, where ORC ends it and does not drain it
        self._ending: dict[str, tuple[EndCause, str]] = {}

    def job(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        """Something done beside the rounds; its failure is logged."""
        task = asyncio.ensure_future(work)
        self._jobs.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a job of the governor failed: %s", error, exc_info=error)

    def _changed(self) -> None:
        self.state.dirty = True
        self.wake()

    # ------------------------------------------------------------------ workers of before
    async def adopt(self) -> dict[str, Mapping[str, int | None]]:
        """What each provider knows of workers of before."""
        return {name: await provider.adopt(self.observed) for name, provider in self.providers.items()}

    def recover(self, known: Mapping[str, Mapping[str, int | None]], departed: Mapping[str, int], now: int) -> None:
        """End the leases of workers that are gone, and wait for those that may come.

        Args:
            known: what each provider knows of workers of before.
            departed: worker → when the scheduler lost it.
        """
        joined = {live.counts.name for live in self.fleet.live.values()}
        for lease in list(self.fleet.leases.open.values()):
            status = self.fleet.pools.get(lease.pool)
            theirs = known.get(status.pool.provider or "", {}) if status is not None else {}
            ended = theirs.get(lease.worker, departed.get(lease.worker, now))
            if lease.worker not in joined and ended is not None:
                gone = min(max(lease.granted_ms or lease.asked_ms, ended), now)
                self.fleet.leases.end(lease.id, gone, EndCause.UNWATCHED, "gone while no governor watched")
            elif lease.worker not in joined and status is not None:
                status.starting[lease.worker] = lease.granted_ms or lease.asked_ms
                self.job(self._end_left(lease, EndCause.NEVER_JOINED, "it did not find the scheduler", RETURN))
        self._changed()

    # ------------------------------------------------------------------ a plan's launches and drains
    async def launch(self, order: LaunchOrder) -> None:
        """Ask the provider for a worker whose lease is on record."""
        lease, leases = order.lease, self.fleet.leases
        try:
            await self.providers[order.pool.provider or ""].launch(order.pool, lease.worker)
        except NoCapacityError as refused:
            logger.info("launch of %s refused: %s", lease.worker, refused)
            leases.refused(lease.id, self.clock(), str(refused))
        except (ProviderError, OSError) as error:
            logger.error("launch of %s failed: %s", lease.worker, error)
            leases.failed(lease.id, self.clock(), str(error))
        except Exception as error:  # the edge to foreign code: a lease that nobody answers for would stay open
            logger.exception("launch of %s failed", lease.worker)
            leases.failed(lease.id, self.clock(), repr(error))
        else:
            leases.granted(lease.id, self.clock())
        self._changed()

    async def drain(self, drain: Drain) -> None:
        """Move results off an idle worker, then end it.

        Kept when it holds the only copy of something, or has other work.
        """
        found = next(((a, live) for a, live in self.fleet.live.items() if live.counts.name == drain.worker), None)
        if found is None:
            return
        address, live = found
        provider = self.providers[self.fleet.pools[drain.pool].pool.provider or ""]
        live.counts.draining = True
        if await self._busy(address) or not await self.scheduler_client.copy_off(address):
            live.counts.draining = False
            live.idle_since_ms = None if live.busy else self.clock()
            await self.scheduler_client.call("orc_instruct", undrain=[address])
            return
        while await self._busy(address):
            # somebody sent it work as the copies were made: that ends first
            await asyncio.sleep(BUSY_AGAIN)
        await provider.end(drain.worker)

    async def _busy(self, address: str) -> bool:
        """Whether a worker that is being drained has work that no governor placed."""
        reply = await self.scheduler_client.call("orc_instruct", drain=[address])
        return address in reply["busy"]

    def see_to(self, effect: SeeTo) -> None:
        """A launched worker left the scheduler: end its process, where that does not end by itself."""
        if effect.why:
            self.note(Note(kind="departure", body={"left": effect.lease.worker, "why": effect.why}))
        self.job(self._end_left(effect.lease, EndCause.CUT_OFF, effect.why or "it left the scheduler", LINGER))

    async def _end_left(self, lease: Lease, end: EndCause, why: str, seconds: float) -> None:
        """End a worker that is not on the scheduler: stopped or cut off it costs money,
        and holds a place in its pool.
        """
        await asyncio.sleep(seconds)
        now = self.fleet.leases.open.get(lease.id)
        provider = self.providers.get(self.fleet.pools[lease.pool].pool.provider or "")
        joined = any(live.lease == lease.id for live in self.fleet.live.values())
        if now is None or now.ended_ms is not None or joined or provider is None:
            return
        logger.warning("ending %s: %s", lease.worker, why)
        self._ending[lease.worker] = (end, why)
        await provider.end(lease.worker)

    # ------------------------------------------------------------------ what providers see
    def observed(self, observation: Observation) -> None:
        """A provider, or a feed of prices, saw something."""
        if isinstance(observation, Notice):
            self._notice(observation)
        elif isinstance(observation, Gone):
            self._gone(observation)
        else:
            self._price(observation)
        self._changed()

    def _notice(self, notice: Notice) -> None:
        address = self.fleet.noticed(notice.worker)
        logger.info("%s will be taken away in %d ms", notice.worker, notice.left_ms)
        self.note(Note(kind="notice", body={"worker": notice.worker, "left_ms": notice.left_ms, "why": ""}))
        if address is not None:
            self.job(self._leaves(address))

    async def _leaves(self, address: str) -> None:
        """Nothing new to a worker that is taken away, and what only it holds goes elsewhere."""
        await self.scheduler_client.call("orc_instruct", drain=[address])
        await self.scheduler_client.copy_off(address)

    def _gone(self, gone: Gone) -> None:
        end, words = self._ending.pop(gone.worker, (gone.cause, gone.detail))
        now = self.clock()
        for lease in list(self.fleet.leases.open.values()):
            if lease.worker == gone.worker and lease.ended_ms is None:
                never = lease.ready_ms is None and end == EndCause.CUT_OFF
                self.fleet.leases.end(lease.id, now, EndCause.NEVER_JOINED if never else end, words)

    def _price(self, price: Price) -> None:
        status = self.fleet.pools[price.pool]
        status.price = price.usd_micros_per_hour
        steps = (*status.pool.price, PriceStep(since_ms=self.clock(), usd_micros_per_hour=price.usd_micros_per_hour))
        status.pool = replace(status.pool, price=steps[-STEPS_KEPT:])
