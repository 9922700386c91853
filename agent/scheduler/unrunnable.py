"""Held tasks in the scheduler's table of unrunnable ones, hidden from Dask's scans of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.scheduler.protocol import HOLD


class Unrunnable(dict[Any, float]):
    """`Scheduler.unrunnable`, whose iteration leaves out what ORC holds.

    Every worker that joins makes Dask scan this table (89 ms at 100,000 held tasks), and `no-workers-timeout` errs
    what it finds there. `len` counts the held too, or the scheduler's idle timeout would end it under waiting work.
    """

    def __init__(self, tasks: dict[Any, float]) -> None:
        super().__init__()
        self.visible: dict[Any, float] = {}
        for ts, since in tasks.items():
            self[ts] = since

    def __setitem__(self, ts: Any, since: float) -> None:
        super().__setitem__(ts, since)
        if not (ts.resource_restrictions and HOLD in ts.resource_restrictions):
            self.visible[ts] = since

    def reveal(self, ts: Any) -> None:
        """Show a task that is no longer held, where it still waits for a worker."""
        if ts in self:
            self.visible[ts] = self[ts]

    def pop(self, ts: Any, *default: Any) -> Any:
        self.visible.pop(ts, None)
        return super().pop(ts, *default)

    def clear(self) -> None:
        self.visible.clear()
        super().clear()

    def __delitem__(self, ts: Any) -> None:
        self.visible.pop(ts, None)
        super().__delitem__(ts)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.visible)

    def keys(self) -> Any:
        return self.visible.keys()

    def values(self) -> Any:
        return self.visible.values()

    def items(self) -> Any:
        return self.visible.items()
