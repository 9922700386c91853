"""Task bodies that workers import."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task

from agent import checkpoint


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
