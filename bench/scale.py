"""A hundred thousand held tasks: the scheduler's memory, its loop, workers that come and go, a cancelled flow.

`python -m bench.scale [--tasks N] [--cancelled N] [--json FILE]`: tasks that wait for a person's approval, on the real
scheduler and governor; submitted a thousand at a time by two clients, as two flows would. A block is one turn of the
scheduler's loop, in its own CPU time; each stage has its own longest.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import psutil
from distributed import Client

from agent.runner.releases import Releases
from bench import table
from bench.extension import cluster, noop

RULES = """
rules:
  - name: ask
    reason: these tasks wait for as long as this takes
    when: {label.held: "yes"}
    then: {escalate: any}
"""
SAYS = {"needs": {"labels": [["held", "yes"]]}, "run": {}, "mode": "govern"}
WORKERS = """
import asyncio, sys
from distributed import Worker
async def main():
    more = dict(nthreads=1, memory_limit="1GiB", dashboard=False)
    workers = [Worker(sys.argv[1], name=f"other-{n}", **more) for n in range(20)]
    await asyncio.gather(*workers)
    print("joined", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await asyncio.gather(*(w.close() for w in workers))
    print("left", flush=True)
asyncio.run(main())
"""


def watch(dask_scheduler: Any) -> None:
    """Note the longest turn of the loop: from one look at what has arrived to the next, nothing else is served."""
    selector, began = asyncio.get_running_loop()._selector, time.thread_time()  # type: ignore[attr-defined]
    theirs = selector.select
    dask_scheduler.orc_block_ms = 0.0

    def select(timeout: float | None = None) -> Any:
        nonlocal began
        dask_scheduler.orc_block_ms = max(dask_scheduler.orc_block_ms, (time.thread_time() - began) * 1000)
        found = theirs(timeout)
        began = time.thread_time()
        return found

    selector.select = select


def longest(client: Client) -> float:
    """The longest block since the last call, ms."""

    def take(dask_scheduler: Any) -> float:
        found: float = dask_scheduler.orc_block_ms
        dask_scheduler.orc_block_ms = 0.0
        return found

    return float(client.run_on_scheduler(take))


def own(client: Client) -> dict[str, float]:
    """ORC's own longest holds of the loop, by what it did, since the last call."""

    def take(dask_scheduler: Any) -> dict[str, float]:
        noted = dask_scheduler.plugins["orc"].host.longest_ms
        found = dict(noted)
        noted.update(dict.fromkeys(found, 0.0))
        return found

    return dict(client.run_on_scheduler(take))


def held(client: Client) -> int:
    """Tasks the extension holds."""
    return int(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.plugins["orc"].host.tasks)))


def memory(client: Client) -> int:
    """Bytes of the scheduler's process."""
    return int(client.run_on_scheduler(lambda: psutil.Process().memory_info().rss))


def submit(client: Client, count: int) -> list[Any]:
    """A thousand at a time."""
    out: list[Any] = []
    for begin in range(0, count, 1000):
        with dask.annotate(orc=SAYS):
            out += client.map(noop, range(begin, min(count, begin + 1000)), pure=False)
        while held(client) < begin:
            time.sleep(0.01)
    return out


def main() -> None:
    """Run all."""
    said = table.arguments("held tasks at scale", tasks=100_000, cancelled=20_000)
    rows: list[dict[str, Any]] = []

    def row(what: str, floor: str, measured: float) -> None:
        rows.append({"what": what, "floor": floor, "measured": measured})

    with tempfile.TemporaryDirectory() as name, cluster(Path(name), RULES) as client:
        address = client.scheduler.address  # type: ignore[union-attr]
        with Client(address, set_as_default=False) as flow:
            Releases(flow)  # as the task runner's client
            kept = submit(client, 2000)
            before, start = memory(client), held(client)
            client.run_on_scheduler(watch)
            begin = time.perf_counter()
            kept += submit(client, said.tasks - said.cancelled - start)
            going = submit(flow, said.cancelled)
            while held(client) < said.tasks:
                time.sleep(0.1)
            row(f"{said.tasks:,} tasks held, tasks a second", "", (said.tasks - start) / (time.perf_counter() - begin))
            row(
                "the scheduler's memory a held task, bytes", "≤ 8,000", (memory(client) - before) / (said.tasks - start)
            )
            row("longest block while they came, Dask's part included, ms", "", longest(client))
            row("of it by ORC, ms", "≤ 20", max(own(client).values()))
            time.sleep(5)
            longest(client), own(client)

            workers = subprocess.Popen(
                [sys.executable, "-c", WORKERS, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert workers.stdin is not None
            assert workers.stdout is not None
            assert workers.stdout.readline().strip() == "joined"
            time.sleep(2)
            row("longest block while 20 workers joined, ms", "≤ 20", longest(client))
            workers.stdin.write("\n")
            workers.stdin.flush()
            assert workers.stdout.readline().strip() == "left"
            workers.wait()
            time.sleep(2)
            row("longest block while they left, ms", "≤ 20", longest(client))

            begin = time.perf_counter()
            flow.cancel(going)
            while held(client) > said.tasks - said.cancelled:
                time.sleep(0.02)
            row(
                f"a flow with {said.cancelled:,} held tasks cancelled, all gone after s",
                "≤ 5",
                time.perf_counter() - begin,
            )
            row("longest block while they went, ms", "≤ 20", longest(client))

            going = submit(flow, said.cancelled)
            while held(client) < said.tasks:
                time.sleep(0.1)
            time.sleep(5)
            longest(client)
            begin = time.perf_counter()
            del going
            flow.close()
            while held(client) > said.tasks - said.cancelled:
                time.sleep(0.02)
            row("a flow's process that is gone: all its tasks gone after s", "≤ 5", time.perf_counter() - begin)
            row("longest block meanwhile, ms", "≤ 20", longest(client))
        del kept
    table.show("held tasks at scale", rows, said.json)


if __name__ == "__main__":
    main()
