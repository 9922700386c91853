"""How a placement ended, as extension, governor and ledger call it."""

from __future__ import annotations

from enum import StrEnum


class Result(StrEnum):
    """The end of one placement of a task."""

    #: its body returned
    DONE = "done"
    #: its body raised, and that is the task's own failure
    FAILED = "failed"
    #: its worker died under it
    LOST = "lost"
    #: its worker was taken away, with notice or from the spot market
    PREEMPTED = "preempted"
    #: nobody wanted it any more
    CANCELLED = "cancelled"
    #: taken back from a worker that had not started it
    WITHDRAWN = "withdrawn"
    #: the worker had no room any more, or had gone: it was never sent
    NOT_SENT = "not sent"
    #: it ended while no governor watched, and nobody knows how
    UNKNOWN = "unknown"
    #: `client.restart` ended it
    CANCELLED_BY_RESTART = "cancelled by restart"
    #: its result was found stored, and its body did not run
    CACHED = "cached"
    #: its body asked to run elsewhere
    RESCHEDULED = "rescheduled"
    #: it, or its worker under it, ran out of memory
    OUT_OF_MEMORY = "out of memory"
    #: it left its worker at a checkpoint
    MOVED = "moved"
