"""What is believed of a market of zones that sell spot workers, as values.

`planner.long_job.Beliefs` says what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneBelief:
    """A zone: a posterior of how often it loses and regains capacity, and whether it has some now."""

    #: of its pool
    name: str
    #: losses, and hours up in which they were seen, the prior's included
    losses: float
    up_h: float
    #: returns, and hours down
    returns: float
    down_h: float
    #: hours in which it was seen down, since it was seen up
    away_h: float
    #: by regime of the market: the probability of capacity now
    up: tuple[float, ...]
    #: what was seen in this tick; None: nobody asked
    now: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketBeliefs:
    """A market: its zones, and the regime that it is in.

    Hours are the market's: those of a trace that is played fast are short.
    """

    #: size of its workers, and how fast it is played
    name: str = ""
    #: hours in which every zone is looked at once
    tick_h: float
    #: probability of each regime now
    weight: tuple[float, ...]
    zones: tuple[ZoneBelief, ...]
    #: how many times as fast as it was the market is played; 1 but for traces
    speed: int = 1
    #: when this tick ends, Unix time, ms
    ends_ms: int = 0
