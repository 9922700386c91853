"""What a long job is now, and what it may come to, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["idle", "spot", "on_demand"]
#: a zone, and what to launch there
Choice = tuple[int, Literal["spot", "on_demand"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostsToGo:
    """What the rest of a job is expected to cost, by what is done now, USD."""

    #: when things are let be
    stay_usd: float
    #: zone → when an instance is granted there now
    spot_usd: Mapping[int, float]
    #: zone → on demand there now
    on_demand_usd: Mapping[int, float]
    #: zone → what that saves against letting things be, if it has capacity now
    saves_usd: Mapping[int, float]

    @property
    def best_zone(self) -> int:
        """The zone whose capacity, if it had some now, would save most."""
        return max(self.saves_usd, key=lambda zone: (self.saves_usd[zone], -zone))


@dataclass(frozen=True, slots=True, kw_only=True)
class LongJobState:
    """The job now."""

    #: hours of work left
    work_h: float
    #: hours to the deadline
    left_h: float
    #: what runs
    mode: Mode
    #: where it runs
    zone: int | None
    #: where the newest checkpoint is
    home: int | None
    #: hours of start-up that what runs has still to pay
    startup_left_h: float
    #: [zones] USD per hour
    spot_usd_h: tuple[float, ...]
    #: [zones] USD per hour
    on_demand_usd_h: tuple[float, ...]

    @property
    def place(self) -> int | None:
        """Where it runs, else where the checkpoint is."""
        return self.home if self.zone is None else self.zone
