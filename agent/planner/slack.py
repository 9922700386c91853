"""What the deadline leaves, and what a minute of it is worth now.

*Slack* is the time a group may still wait before it must be sent to a new on-demand worker, the longest path behind it
counted. It is spent in three ways: waiting for spot, doing again what was lost, and queueing on a smaller fleet.

*Shadow price.* While slack lasts, an hour of it buys one hour on spot instead of on demand: waiting for an hour through
an outage costs an hour of slack, going on demand through it costs the difference of the prices. So an hour is worth
that difference when all slack will be used up, nothing when some will be left over, and in between the difference times
the chance that the outages and losses still to come are longer than the slack (a newsvendor's critical ratio). Outages
come at the pools' loss rate over the longest path that is left and last as the pools' return rates say; their sum is
taken as normal with the variance of a compound Poisson sum of exponential times, 2·n·d².
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from agent.model.snapshot import Group, Policy, PoolState, Run
from agent.model.units import MS_PER_HOUR, cost_micros

#: nothing is known of how soon spot comes back: an hour
AWAY_MS = MS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Spot as a whole against on demand, as the pools are now."""

    #: prices of one slot for an hour, micro-dollars; the cheapest of each that may grow
    spot_usd_micros: float
    on_demand_usd_micros: float
    #: start-up of the on-demand pool that a deadline falls back on, ms
    startup_ms: int
    #: losses an hour in the best spot pool
    losses_per_hour: float
    #: time until any refused spot pool comes back, ms
    away_ms: float
    #: slots spot would give now
    slots: int
    #: spot and on-demand pools both exist
    both: bool

    @classmethod
    def of(cls, states: Iterable[PoolState], now_ms: int) -> Market:
        """Every pool of both markets that runs or may launch workers."""
        spot = [s for s in states if s.pool.market == "spot" and _grows(s)]
        safe = [s for s in states if s.pool.market == "on-demand" and s.pool.provider is not None and _grows(s)]
        returns = sum(s.returns_per_hour for s in spot)
        return cls(
            spot_usd_micros=min((s.usd_micros_per_hour / s.pool.slots for s in spot), default=0.0),
            on_demand_usd_micros=min((s.usd_micros_per_hour / s.pool.slots for s in safe), default=0.0),
            startup_ms=min((s.startup_ms for s in safe), default=0),
            losses_per_hour=min((s.hazard_per_hour for s in spot), default=0.0),
            away_ms=MS_PER_HOUR / returns if returns else AWAY_MS,
            slots=sum(_slots(s, now_ms) for s in spot),
            both=bool(spot and safe),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Urgency:
    """What one group's deadline leaves it."""

    #: time until it must be sent to a new on-demand worker, ms, negative when it is too late; None: no deadline
    slack_ms: int | None
    #: what an hour of one task's delay is worth, micro-dollars
    hour_usd_micros: int
    #: time its tasks may wait in a queue for the sake of a smaller fleet, ms
    queue_ms: int = 0
    #: the most that all delay can cost one task's successors: their work on demand instead of on spot; None: no limit
    stake_usd_micros: int | None = None
    #: work that a loss may cost a task, ms
    at_risk_ms: int = 0

    def delay(self, ms: int) -> int:
        """What a delay of one task is worth, micro-dollars."""
        usd = cost_micros(self.hour_usd_micros, ms)
        return usd if self.stake_usd_micros is None else min(usd, self.stake_usd_micros)


def urgency(
    group: Group, run: Run | None, high_ms: int, mean_ms: int, market: Market, policy: Policy, now_ms: int
) -> Urgency:
    """The urgency of a group's ready tasks; `high_ms`, `mean_ms` are what one takes on demand."""
    if group.deadline_ms is None:
        return Urgency(slack_ms=None, hour_usd_micros=policy.delay_usd_micros_per_hour)
    slack = group.deadline_ms - now_ms - policy.margin_ms - group.tail_ms - high_ms - market.startup_ms
    at_risk = min(high_ms, group.needs.checkpoint_ms or high_ms)
    if not market.both:
        return Urgency(
            slack_ms=slack, hour_usd_micros=policy.delay_usd_micros_per_hour, queue_ms=max(0, slack), at_risk_ms=at_risk
        )
    path = group.tail_ms + high_ms
    lost_ms = at_risk + market.startup_ms
    outages = market.losses_per_hour * path / MS_PER_HOUR + policy.reserve_losses
    need, spread = outages * (market.away_ms + lost_ms / 2), math.sqrt(2 * outages) * (market.away_ms + lost_ms / 2)
    left = slack - lost_ms
    if run is not None and market.slots:
        # the work that is left must fit on spot too
        left = min(left, round(group.deadline_ms - now_ms - run.work_ms / market.slots) - lost_ms)
    scarce = 0.5 * math.erfc((left - need) / (spread * math.sqrt(2))) if spread else float(left < need)
    gap = max(0.0, market.on_demand_usd_micros - market.spot_usd_micros)
    width, behind = 1.0, float(group.tail_ms)
    if run is not None and run.path_ms and path >= run.path_ms * 0.95:
        # everything behind it waits with it
        width = max(1.0, run.work_ms / run.path_ms / group.ready)
        behind = max(behind, (run.work_ms - group.ready * mean_ms) / group.ready) if group.tail_ms else 0.0
    return Urgency(
        slack_ms=slack,
        hour_usd_micros=round(gap * scarce * width),
        stake_usd_micros=round(gap * scarce * behind / MS_PER_HOUR),
        queue_ms=max(0, (slack - lost_ms) * policy.queue_percent // 100),
        at_risk_ms=at_risk,
    )


def _grows(state: PoolState) -> bool:
    return bool(state.workers or state.starting or (state.pool.provider is not None and state.pool.max_workers))


def _slots(state: PoolState, now_ms: int) -> int:
    there = len(state.workers) + len(state.starting)
    refused = state.refused_since_ms is not None or state.retry_ms > now_ms
    return state.pool.slots * (there if refused else max(there, state.pool.max_workers))
