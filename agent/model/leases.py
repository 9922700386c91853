"""A worker's life as it is paid for, and the closed list of what ends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: why a lease was opened that ORC did not ask for: a worker that somebody else started joined
OBSERVED = "observed"


class EndCause(StrEnum):
    """What ended a lease. Statistics count these, never words."""

    #: the market had no capacity: nothing was granted
    REFUSED = "refused"
    #: the launch failed by a fault of ours or of the account: nothing was granted, and nothing is learned of the market
    FAULT = "fault"
    #: ORC ended it: idle, or no longer wanted
    DRAINED = "drained"
    #: the market took it back
    INTERRUPTED = "interrupted"
    #: its process or machine ended by itself
    DIED = "died"
    #: it left the scheduler and did not come back, and was ended
    CUT_OFF = "cut off"
    #: it was granted and never found the scheduler
    NEVER_JOINED = "never joined"
    #: a worker that was only observed left
    LEFT = "left"
    #: it ended while no governor watched
    UNWATCHED = "unwatched"


#: ends that count as interruptions of a spot pool's workers
INTERRUPTIONS = frozenset({EndCause.INTERRUPTED, EndCause.DIED, EndCause.CUT_OFF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A worker's life and its price; written again, whole, when it changes."""

    id: int
    pool: str
    kind: str
    worker: str
    asked_ms: int
    #: the provider gave it, and billing began; None: not yet, or never
    granted_ms: int | None = None
    #: it joined the scheduler
    ready_ms: int | None = None
    ended_ms: int | None = None
    #: why it was launched; after its end what ended it, in words
    cause: str
    #: what ended it; None while it is open
    end: EndCause | None = None
    price: str
    usd_micros: int = 0
