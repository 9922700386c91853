"""What every provider of workers does: the in-memory one and real local processes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import psutil
import pytest

from agent.errors import NoCapacityError
from agent.model.leases import EndCause
from agent.pools.local import LocalProvider
from agent.pools.memory import MemoryProvider
from agent.pools.port import Gone, Notice
from agent.pools.spot_trace import Play, SpotTrace
from harness.processes import free_port
from tests.values import pool

SPOT = replace(pool("spot", "spot", 0.1), memory_mib=512)


@pytest.fixture(params=["memory", "local"])
def provider(request, tmp_path):
    """A provider whose pool `spot` is out of capacity after its first worker."""
    if request.param == "memory":
        return lambda: MemoryProvider({"spot": 1})

    class OneWorker(LocalProvider):
        async def launch(self, pool, worker):
            if self.processes:
                raise NoCapacityError("no capacity")
            await super().launch(pool, worker)

    # nobody listens there: the workers wait for their scheduler, which is all this test needs
    return lambda: OneWorker(f"tcp://127.0.0.1:{free_port()}", tmp_path, {"spot": SPOT}, {}, {})


async def seen(news, kind, seconds=20):
    for _ in range(int(seconds / 0.05)):
        if found := [n for n in news if isinstance(n, kind)]:
            return found[0]
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {kind.__name__} in {news}")


def test_a_worker_is_launched_refused_beyond_capacity_and_ended(provider):
    async def story():
        news, made = [], provider()
        assert await made.adopt(news.append) == {}
        await made.launch(SPOT, "spot-0")
        with pytest.raises(NoCapacityError, match="capacity"):
            await made.launch(SPOT, "spot-1")
        await made.end("nobody")
        await made.end("spot-0")
        assert (await seen(news, Gone)).worker == "spot-0"
        await made.launch(SPOT, "spot-1")
        await made.end("spot-1")
        if hasattr(made, "close"):
            await made.close()

    asyncio.run(story())


def local(tmp_path, sky=None):
    return LocalProvider(f"tcp://127.0.0.1:{free_port()}", tmp_path, {"spot": SPOT}, {"spot": sky} if sky else {}, {})


def test_workers_outlive_the_provider_and_are_found_again(tmp_path):
    async def story():
        first = local(tmp_path)
        await first.adopt(lambda news: None)
        await first.launch(SPOT, "spot-0")
        await first.close()
        news = []
        second = local(tmp_path)
        assert await second.adopt(news.append) == {"spot-0": None}
        process = psutil.Process(second.processes["spot-0"].pid)
        process.kill()
        assert (await seen(news, Gone)).cause == EndCause.DIED
        await second.close()
        third = local(tmp_path)
        assert await third.adopt(news.append) == {}
        await third.launch(SPOT, "spot-1")
        await third.close()
        process = psutil.Process(third.processes["spot-1"].pid)
        process.kill()
        process.wait(10)
        third._ended("spot-1").touch()
        fourth = local(tmp_path)
        ended = (await fourth.adopt(news.append))["spot-1"]
        assert abs(ended / 1000 - time.time()) < 10
        await fourth.close()
        assert not list(tmp_path.glob("workers/spot-1*"))

    asyncio.run(story())


def test_a_market_refuses_and_takes_workers_back_with_a_notice(tmp_path):
    trace = SpotTrace(
        zone="us-east-1a",
        gap_seconds=1.0,
        available=(True, *[False] * 7),
        spot_usd_per_hour=(0.1,) * 8,
        play=Play(notice_seconds=0.3),
    )

    async def story():
        news, made = [], local(tmp_path, trace)
        await made.adopt(news.append)
        await made.launch(SPOT, "spot-0")
        notice = await seen(news, Notice)
        assert (notice.worker, notice.left_ms) == ("spot-0", 300)
        gone = await seen(news, Gone)
        assert (gone.worker, gone.cause, gone.detail) == (
            "spot-0",
            EndCause.INTERRUPTED,
            "taken away by the spot market",
        )
        assert news.index(notice) < news.index(gone)
        with pytest.raises(NoCapacityError, match="no spot capacity"):
            await made.launch(SPOT, "spot-1")
        await made.close()

    asyncio.run(story())
