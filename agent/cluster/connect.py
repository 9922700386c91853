"""Connections to a Dask scheduler. Nothing else of ORC opens one, so what they need is said once.

A flow's own client is made by prefect-dask, out of the task runner's arguments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from distributed import Client
from distributed.core import rpc

from agent.errors import SchedulerError


@asynccontextmanager
async def client_of(address: str, patience: float) -> AsyncIterator[Client]:
    """A client of a scheduler, for as long as the block lasts; never the default one of this process.

    Args:
        patience: seconds until the scheduler must have answered.

    Raises:
        SchedulerError: it cannot be reached.
    """
    try:
        client = await Client(address, asynchronous=True, timeout=patience, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise SchedulerError(
            f"the Dask scheduler at {address} cannot be reached ({error}); "
            "is it up, the address right, and no firewall between?"
        ) from error
    try:
        yield client
    finally:
        await client.close()


def caller_of(address: str) -> Any:
    """What calls a scheduler's handlers by their names; it connects when it is first used, and again when it must."""
    return rpc(address)
