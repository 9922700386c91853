"""Task bodies of the benches, importable on workers."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

from prefect import task
from prefect.context import TaskRunContext
from prefect.transactions import get_transaction

from agent import checkpoint, needs


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


@needs(interruptible=True, runtime="100ms")
@task
def mixed(folder: str, name: str, seconds: float, above: list[int]) -> int:
    """A number that depends on its name and on what is above it; says in a file of its own that it began, and when."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{time.time():.3f} {os.getpid()} {int(_stored())}\n")
    time.sleep(seconds)
    return mix(name, above)


def mix(name: str, above: list[int]) -> int:
    """The number."""
    return zlib.crc32(f"{name} {above}".encode())


def _stored() -> bool:
    """Whether the result of the present task run is in storage already."""
    context, transaction = TaskRunContext.get(), get_transaction()
    return bool(
        context is not None
        and transaction is not None
        and transaction.key
        and context.result_store.exists(transaction.key)
    )


#: what a nap is said to take, ms
NAP_MS = 4_000


@needs(interruptible=True, runtime=f"{NAP_MS}ms")
@task
def nap(seconds: float, above: object = None) -> None:
    """Waits."""
    time.sleep(seconds)


@task
def stepping(steps: int, seconds: float) -> int:
    """Works in steps, and keeps after each how many it has done."""
    for number in range(checkpoint.load(default=0), steps):
        time.sleep(seconds)
        checkpoint.save(number + 1)
    return steps
