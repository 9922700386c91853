"""Task bodies that workers import."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from distributed import get_worker
from prefect import get_run_logger, task
from prefect.settings.context import get_current_settings
from prefect_dask import get_async_dask_client, get_dask_client

from agent import checkpoint
from agent.prefect_events.queue import current_queue


@task
def double(n: int) -> int:
    """Twice."""
    return 2 * n


@task
def add(numbers: Any, more: int = 0) -> int:
    """A sum."""
    return sum(numbers) + more


@task
async def later(n: int) -> int:
    """Async."""
    return n + 1


@task
def odd(n: int) -> int:
    """Fails for even numbers."""
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n


@task(retries=2)
def third_time(folder: str, n: int) -> int:
    """Succeeds at its third attempt."""
    mark = Path(folder) / str(n)
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
    if len(mark.read_text()) < 3:
        raise ValueError("not yet")
    return n


@task
def logging_task() -> None:
    """Says something."""
    get_run_logger().info("said on the worker")


@task
def outer() -> int:
    """Submits tasks of its own."""
    return sum(double.map([1, 2, 3]).result())


@task
def steps(folder: str, fail_at: int, version: str) -> int:
    """Counts to six, with a checkpoint at each; answers where it began."""
    begin = checkpoint.load(default=0, version=version)
    for n in range(begin, 6):
        checkpoint.save(n + 1, version=version)
        if n == fail_at and begin == 0:
            raise ValueError("half way")
    return int(begin)


@task
def slow(seconds: float) -> float:
    """Waits."""
    time.sleep(seconds)
    return seconds


@task
def starved() -> None:
    """Runs out of memory."""
    raise MemoryError("of this test")


@task
def leaves(how: str) -> None:
    """Ends its process, as it thinks."""
    if how == "exit":
        raise SystemExit(3)
    raise KeyboardInterrupt


@task
async def leaves_later(how: str) -> None:
    """The same, async."""
    leaves.fn(how)


@task
def where() -> str:
    """The name of its worker."""
    return str(get_worker().name)


@task
def mapped(n: int, static: list[int], more: int) -> int:
    """Of a map, with a list that is not mapped over."""
    return n * more + sum(static)


@task
def of_dask(n: int) -> int:
    """Work of its own, through the client of Prefect's integration."""
    with get_dask_client() as client:
        return int(sum(client.gather(client.map(lambda x: 2 * x, range(n)))))


@task
async def of_dask_later(n: int) -> int:
    """The same, async."""
    async with get_async_dask_client() as client:
        return int(sum(await client.gather(client.map(lambda x: 2 * x, range(n)))))


@task
def stamp(at: str, *_: Any) -> str:
    """Appends a line to a file, some time after it began."""
    time.sleep(0.3 if at.endswith("first") else 0)
    with Path(at).with_name("order").open("a") as file:
        file.write(Path(at).name + "\n")
    return at


@task
def many() -> Any:
    """Yields."""
    yield from range(3)


@task(timeout_seconds=0.5)
def endless() -> None:
    """Takes longer than it may."""
    for _ in range(100):
        time.sleep(0.1)


@task
def blob(size: int) -> bytes:
    """So many bytes."""
    return bytes(size)


@task
def mute() -> int:
    """Its worker tells nothing for a second, as if it were killed before it could."""
    queue = current_queue()
    assert queue is not None
    vars(queue)["emit"] = lambda event: None
    threading.Timer(1.0, vars(queue).pop, ("emit",)).start()
    return 1


def only_on_a_worker() -> str:
    """Rebuilds something that only a worker can."""
    try:
        get_worker()
    except ValueError as error:
        raise RuntimeError("this comes back only on a worker") from error
    return "rebuilt"


@task
def stubborn(folder: str, name: str) -> str:
    """Fails until its third attempt, by that name."""
    mark = Path(folder) / name
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
    if len(mark.read_text()) < 3:
        raise ValueError(name)
    return name


@task
def credentials_here(deeper: bool) -> tuple[str, ...]:
    """What Prefect's settings hold on the worker, and on that of a task below."""
    settings = get_current_settings().api
    mine = (settings.auth_string.get_secret_value(), settings.key.get_secret_value())
    return mine + (credentials_here.submit(False).result() if deeper else ())
