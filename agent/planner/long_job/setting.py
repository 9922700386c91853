"""The one setting with which long jobs are planned."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.planner.long_job.beliefs import Prior, Regimes


@dataclass(frozen=True, slots=True, kw_only=True)
class LongJobSetting:
    """One for every cloud, zone and deadline."""

    #: what is believed of a zone that was never seen: many hours of watching, so that a few short spells, which come in
    #: bursts, do not outweigh it
    prior: Prior = field(
        default_factory=lambda: Prior(up_h=4.4, up_worth=25.0, down_h=0.8, down_worth=24.0, down_most=1.5)
    )
    #: calm times, of two days, and tight ones of 18 hours
    regimes: Regimes = field(
        default_factory=lambda: Regimes(
            loss_times=(0.8, 2.2), return_times=(2.2, 0.35), change_per_h=((0.0, 1 / 52), (1 / 18, 0.0))
        )
    )
    #: cells of a table, at most; it sets how many zones are planned with at once
    cells: float = 2.5e7
    #: and so many zones at once at most
    zones: int = 8
    #: steps to the deadline, at least and at most; a start-up is a whole number of them
    steps: tuple[int, int] = (150, 600)
    #: cost of an hour of lateness in the tables, in hours on demand
    late: float = 10.0
    #: to wait while a zone has capacity must save more than this part of what is left to pay: slack is worth more than
    #: rates that are taken for known make it
    idle: float = 0.005


#: where a governor waits for the answer: a table is solved in a tenth of a second
LIVE = LongJobSetting(cells=1e7, zones=4)
