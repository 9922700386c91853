"""`client.restart`: Dask releases every task before its plugins hear of it."""

from __future__ import annotations

from typing import Any

from agent.scheduler.host import Host


class Restart:
    """Knows that one goes on: what ends from its beginning on ends by it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.going = False
        #: held tasks as it began
        self.held = 0

    def wrap(self, handlers: dict[str, Any]) -> None:
        """Hear of it before Dask releases anything."""
        theirs = handlers["restart"]

        async def restarting(*args: Any, **kwargs: Any) -> Any:
            self.held, self.going = sum(1 for task in self.host.tasks.values() if task.on is None), True
            return await theirs(*args, **kwargs)

        handlers["restart"] = restarting

    def over(self) -> int:
        """It is done; how many held tasks it ended."""
        held, self.held, self.going = self.held, 0, False
        return held
