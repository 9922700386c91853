"""What the governor asks of whoever has machines, and what it hears from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.model.pools import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A worker will be taken away."""

    worker: str
    #: time left, ms
    left_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A worker's machine has ended."""

    worker: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A pool's price has changed."""

    pool: str
    usd_micros_per_hour: int


Observation = Notice | Gone | Price
Report = Callable[[Observation], None]


class Refused(Exception):
    """The provider has no capacity now; the message says why."""


class Provider(Protocol):
    """Launches and ends workers. Asynchronous, and may refuse."""

    async def launch(self, pool: Pool, worker: str) -> None:
        """Start a worker of that name; it joins the scheduler by itself. Raises Refused."""

    async def end(self, worker: str) -> None:
        """End a worker that has been drained; unknown names are ignored."""

    async def adopt(self, report: Report) -> Mapping[str, int | None]:
        """Begin to observe. Workers of before: None for one that runs, else when it ended, ms since 1970, where that is known."""
