"""What the governor asks of whoever has machines, and what it hears from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.model.leases import EndCause
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
    cause: EndCause
    #: the same in words, where there is more to say
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A pool's price has changed."""

    pool: str
    usd_micros_per_hour: int


Observation = Notice | Gone | Price
Report = Callable[[Observation], None]


class Provider(Protocol):
    """Launches and ends workers. Asynchronous, and may refuse."""

    async def launch(self, pool: Pool, worker: str) -> None:
        """Start a worker of that name; it joins the scheduler by itself.

        Raises:
            NoCapacityError: the market's answer, from which its capacity is learned.
            LaunchFaultError: anything else that is known by name.
        """

    async def end(self, worker: str) -> None:
        """End a worker that has been drained; unknown names are ignored."""

    async def adopt(self, report: Report) -> Mapping[str, int | None]:
        """Begin to observe.

        Returns:
            Workers of before: None for one that runs, else when it ended, ms since 1970, where that is known.
        """
