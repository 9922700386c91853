"""What is done every so often, and nothing else: one timer for one purpose."""

from __future__ import annotations


class Timer:
    """Due so long after it was last due, or put off."""

    def __init__(self, every_ms: int, last_ms: int = 0) -> None:
        self.every_ms, self.last_ms = every_ms, last_ms

    def due(self, now_ms: int) -> bool:
        """Whether it is time. Changes nothing."""
        return now_ms - self.last_ms >= self.every_ms

    def restart(self, now_ms: int) -> None:
        """Count from now on."""
        self.last_ms = now_ms

    def take(self, now_ms: int) -> bool:
        """Whether it is time; then it counts from now on."""
        if due := self.due(now_ms):
            self.last_ms = now_ms
        return due
