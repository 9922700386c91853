"""The workers a plan asks for or lets go: launched, drained and ended through the providers, in jobs beside the rounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.governor.scheduler_client import SchedulerClient
from agent.model.plans import Drain
from agent.model.pools import Pool, PriceStep
from agent.model.records import Lease
from agent.pools.port import Gone, Notice, Observation, Provider, Refused
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
    """What is asked of providers, and what they answer, into the view."""

    def __init__(
        self,
        view: ClusterState,
        providers: Mapping[str, Provider],
        scheduler_client: SchedulerClient,
        clock: Callable[[], int],
        say: Callable[[dict[str, Any]], None],
        wake: Callable[[], None],
    ) -> None:
        """Begin without a job.

        Args:
            say: puts something on record with the next commit.
            wake: makes the governor look up.
        """
        self.state, self.fleet, self.providers, self.scheduler_client = view, view.fleet, providers, scheduler_client
        self.clock, self.say, self.wake = clock, say, wake
        self._jobs: set[asyncio.Future[Any]] = set()
        #: worker → why it is being ended, where it is not drained
        self._causes: dict[str, str] = {}

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

    async def adopt(self) -> dict[str, Mapping[str, int | None]]:
        """What each provider knows of workers of before."""
        return {name: await provider.adopt(self.observed) for name, provider in self.providers.items()}

    def reconcile(self, known: Mapping[str, Mapping[str, int | None]], departed: Mapping[str, int], now: int) -> None:
        """End the leases of workers that are gone, and wait for those that may come.

        Args:
            known: what each provider knows of workers of before.
            departed: worker → when the scheduler lost it.
        """
        joined = {live.counts.name for live in self.fleet.live.values()}
        for lease in list(self.fleet.leases.values()):
            view = self.fleet.pools.get(lease.pool)
            theirs = known.get(view.pool.provider or "", {}) if view is not None else {}
            ended = theirs.get(lease.worker, departed.get(lease.worker, now))
            if lease.worker not in joined and ended is not None:
                gone = max(lease.granted_ms or lease.asked_ms, ended)
                self.fleet.end_lease(lease.id, min(gone, now), "gone while no governor watched")
            elif lease.worker not in joined and view is not None:
                view.starting[lease.worker] = lease.granted_ms or lease.asked_ms
                self.job(self._end_left(lease, "it did not find the scheduler", RETURN))

    def end_left(self) -> None:
        """See to the processes of launched workers that left the scheduler."""
        left, self.fleet.left = self.fleet.left, []
        for lease, why in left:
            if why:
                self.say({"left": lease.worker, "why": why})
            self.job(self._end_left(lease, why or "it left the scheduler", LINGER))

    def lease(self, pool: Pool, now: int, why: str) -> tuple[int, Pool, str]:
        """A lease for a worker that will be asked for: its number, pool, and the worker's name, the lowest that is free."""
        taken = {lease.worker for lease in self.fleet.leases.values() if lease.ended_ms is None}
        number = 0
        while (worker := f"{pool.name}-{number}") in taken:
            number += 1
        lease = self.fleet.new_lease(pool, worker, now, why)
        self.fleet.pools[pool.name].starting[worker] = now
        return lease.id, pool, worker

    async def launch(self, lease: int, pool: Pool, worker: str) -> None:
        """Ask the provider for a worker whose lease is on record."""
        try:
            await self.providers[pool.provider or ""].launch(pool, worker)
        except Refused as refused:
            logger.info("launch of %s refused: %s", worker, refused)
            self.fleet.refused(lease, self.clock(), str(refused))
        except (
            Exception
        ) as error:  # a provider's own failure is a refusal that is told loudly, or its lease would stay open
            logger.exception("launch of %s failed", worker)
            self.fleet.refused(lease, self.clock(), f"failed: {error!r}")
        else:
            self.fleet.granted(lease, self.clock())
        self.wake()

    async def drain(self, drain: Drain) -> None:
        """Move results off an idle worker, then end it. Kept when it holds the only copy of something, or has other work."""
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

    async def _end_left(self, lease: Lease, why: str, seconds: float) -> None:
        """End a worker that is not on the scheduler: stopped or cut off it costs money, and holds a place in its pool."""
        await asyncio.sleep(seconds)
        now = self.fleet.leases.get(lease.id)
        provider = self.providers.get(self.fleet.pools[lease.pool].pool.provider or "")
        joined = any(live.lease == lease.id for live in self.fleet.live.values())
        if now is None or now.ended_ms is not None or joined or provider is None:
            return
        logger.warning("ending %s: %s", lease.worker, why)
        self._causes[lease.worker] = f"died: {why}"
        await provider.end(lease.worker)

    def observed(self, observation: Observation) -> None:
        """A provider, or a feed of prices, saw something."""
        now = self.clock()
        if isinstance(observation, Notice):
            address = self.fleet.noticed(observation.worker)
            logger.info("%s will be taken away in %d ms", observation.worker, observation.left_ms)
            self.say({"notice": observation.worker, "left_ms": observation.left_ms})
            if address is not None:
                self.job(self._noticed(address))
        elif isinstance(observation, Gone):
            cause = self._causes.pop(observation.worker, observation.cause)
            for lease in list(self.fleet.leases.values()):
                if lease.worker == observation.worker and lease.ended_ms is None:
                    self.fleet.end_lease(lease.id, now, cause)
        else:
            view = self.fleet.pools[observation.pool]
            view.price = observation.usd_micros_per_hour
            steps = (*view.pool.price, PriceStep(since_ms=now, usd_micros_per_hour=observation.usd_micros_per_hour))
            view.pool = replace(view.pool, price=steps[-STEPS_KEPT:])
        self.state.dirty = True
        self.wake()

    async def _noticed(self, address: str) -> None:
        """Nothing new to a worker that is taken away, and what only it holds goes elsewhere."""
        await self.scheduler_client.call("orc_instruct", drain=[address])
        await self.scheduler_client.copy_off(address)
