"""Why a task run waits, told to the Prefect server.

Pending with the reason, once it has waited for a while and when the reason changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context

logger = logging.getLogger("orc.held")

#: seconds a task must have waited, and between two looks
PATIENCE = 5.0
#: task runs that are asked about at once; the server would not keep up with more
MOST = 200


class HoldReporter:
    """Looks after the task runs of one task runner, from a thread of its own.

    Args:
        waiting: keys of task runs that have not ended, the oldest first.
        ask: key → (reason, text) of those that are held. May raise: the scheduler is away.
        tell: tells the server the text for a key.
    """

    def __init__(
        self,
        waiting: Callable[[], Sequence[str]],
        ask: Callable[[Sequence[str]], Mapping[str, tuple[str, str]]],
        tell: Callable[[str, str], None],
    ) -> None:
        self._waiting, self._ask, self._tell = waiting, ask, tell
        self._seen: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Once; more calls do nothing."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=copy_context().run, args=(self._watch,), name="orc-held", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(PATIENCE):
            try:
                self.look(time.monotonic())
            except Exception as error:  # whoever waits is told of a lost scheduler by the task's own future
                logger.debug("cannot say why tasks wait: %r", error)

    def look(self, now: float) -> None:
        """Tell what is new."""
        waiting = list(self._waiting())
        self._seen = {key: self._seen.get(key, now) for key in waiting}
        patient = [key for key in waiting if now - self._seen[key] >= PATIENCE][:MOST]
        if not patient:
            return
        for key, (reason, text) in self._ask(patient).items():
            if self._told.get(key) != reason:
                self._told[key] = reason
                self._tell(key, text)
