"""Task bodies of the benches, importable on workers."""

from __future__ import annotations

import time

from prefect import task


def plain(n: int, seconds: float) -> int:
    """Wait, return."""
    if seconds:
        time.sleep(seconds)
    return n


@task
def body(n: int, seconds: float) -> int:
    """The same as a Prefect task."""
    return plain(n, seconds)


@task
def tiny(n: int) -> int:
    """An item far smaller than what a task run costs."""
    return n
