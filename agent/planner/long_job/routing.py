"""A group's task as a long job: its market, its state, its pools, and which of them it goes to or waits for.

Hours here are the market's: those of a trace that is played fast are short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from agent.model.market import MarketBeliefs
from agent.model.plans import Option
from agent.model.snapshot import Group, Policy, Running
from agent.model.units import MICROS, MS_PER_HOUR
from agent.planner.long_job.beliefs import Beliefs
from agent.planner.long_job.placement import LongJobPlacement
from agent.planner.long_job.setting import LIVE
from agent.planner.long_job.values import Choice, CostsToGo, LongJobState, Mode
from agent.planner.long_job.words import why
from agent.planner.room import Room, share, slots_of

#: what takes less, ms of the market's time, is no long job
LEAST_MS = MS_PER_HOUR
#: a worker that has been starting for so many times what that takes, of so long at least, ms, will not come
OVERDUE, STARTUP_LEAST_MS = 3, 10_000
#: a move to on demand that the deadline does not ask for saves at least this part of what is left to pay
LEAST_SAVED = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a long job goes now, or what it waits for."""

    #: every pool of the group, this one first; those of the market say what the rest costs
    ranked: list[Option]
    #: it is held until the pool has capacity, and nothing is launched
    waits: bool
    why: str

    @property
    def pool(self) -> str:
        """Where it goes, or what it waits for."""
        return self.ranked[0].pool


class LongJob:
    """One task over the zones of a market.

    Args:
        ranked: every pool for the group.
        zones: spot pools of the market, by position.
        safe: on-demand pools that may grow.
    """

    def __init__(  # noqa: PLR0913
        self,
        group: Group,
        market: MarketBeliefs,
        zones: Sequence[str],
        safe: Sequence[str],
        rooms: Mapping[str, Room],
        ranked: Sequence[Option],
        policy: Policy,
        now_ms: int,
    ) -> None:
        self.group, self.market, self.zones, self.rooms = group, market, list(zones), rooms
        self.options = {option.pool: option for option in ranked if not option.why_not}
        self._infeasible = [option for option in ranked if option.why_not]
        self.policy, self.now_ms = policy, now_ms
        #: the on-demand pool of each zone, of those that can serve now: its own, else its region's, else the cheapest
        self.safe = [min(safe, key=lambda name: self._far(zone, name)) for zone in zones]
        self._hour_ms = MS_PER_HOUR / market.speed

    # ------------------------------------------------------------------ what it is
    def _far(self, zone: str, safe: str) -> tuple[bool, bool, bool, int, str]:
        of, there = self.rooms[zone].state.pool, self.rooms[safe].state
        serves = bool(self.options[safe].room) or self._coming_ms(safe) is not None or self.may_ask(safe)
        apart = there.pool.zone != of.zone, there.pool.region != of.region
        return not serves, *apart, there.usd_micros_per_hour, safe

    def _usd_h(self, name: str) -> float:
        """The task's part of a worker for an hour of the market, a preferred pool at its discount."""
        room, option = self.rooms[name], self.options[name]
        usd = room.state.usd_micros_per_hour * share(self.group, room.state) / MICROS / self.market.speed
        return usd * self.policy.prefer_percent / 100 if option.preferred_by else usd

    def _egress_usd(self) -> list[list[float]]:
        usd = self.group.checkpoint_mib / 1024 * self.policy.egress_usd_micros_per_gib / MICROS
        regions = [self.rooms[zone].state.pool.region for zone in self.zones]
        return [[0.0 if a == b else usd for b in regions] for a in regions]

    @cached_property
    def placement(self) -> LongJobPlacement:
        """The planner of its zones, with what is believed of them."""
        known = Beliefs.of(self.market, self.zones, LIVE.prior, LIVE.regimes)
        startup_ms = max(self.rooms[name].state.startup_ms for name in (*self.zones, *self.safe))
        return LongJobPlacement(
            startup_h=startup_ms / self._hour_ms,
            tick_h=self.market.tick_h,
            egress_usd=self._egress_usd(),
            setting=LIVE,
            beliefs=known,
        )

    def _zone_of(self, pool: str) -> int | None:
        """The zone that a pool of either market stands for; None for a spot pool of another market."""
        if pool in self.zones:
            return self.zones.index(pool)
        if pool in self.safe:
            return self.safe.index(pool)
        room = self.rooms.get(pool)
        if room is None or room.state.pool.market == "spot":
            return None
        here = [n for n, zone in enumerate(self.zones) if self.rooms[zone].state.pool.zone == room.state.pool.zone]
        return here[0] if here else 0

    # ------------------------------------------------------------------ what it does
    def waiting(self) -> Route:
        """What becomes of it while it waits."""
        mode, zone, startup_ms = self._there()
        work_ms = max(1, self.takes_ms - self.group.done_ms)
        state = self._state(work_ms, mode, zone, startup_ms)
        if mode != "idle":
            # what is there is taken, and what starts is waited for, or it would be paid for twice; but the deadline
            # comes first
            if mode == "spot" and zone is not None and self.placement.beliefs.now[zone] is None:
                # asked for, and not refused: it is planned for as if it was granted
                self.placement.beliefs.saw(zone, True)
            late = startup_ms and not self.placement.safe(state)
            return self._route(state, self.placement.last_call(state) if late else None)
        choice = None
        if any(self.options[name].room for name in self.safe):
            # a worker on demand that is there is taken where it would be launched: zones can be asked from it as well
            choice = self.placement.decide(state, range(len(self.zones)))
        return self._route(state, choice or self.placement.decide(state, self._closed()))

    def running(self, task: Running) -> Route | None:
        """Where it goes while it runs; None: it stays."""
        zone = self._zone_of(task.pool)
        if zone is None:
            return None
        spot = self.rooms[task.pool].state.pool.market == "spot"
        state = self._state(max(1, task.expected_ms - task.ran_ms), "spot" if spot else "on_demand", zone, 0)
        choice = self.placement.decide(state, self._closed())
        if choice is None or (choice[1] == "on_demand" and not spot):
            return None
        here = self._usd_h(task.pool)
        if choice[1] == "spot":
            # against a move that is made later it saves little; what counts is what it saves until that zone is lost
            lasts_h = min(state.work_h, 1 / self.placement.loss_per_h(choice[0]))
            saves = (here - self._usd_h(self._pool_of(choice))) * lasts_h
        else:
            costs = self.placement.costs(state)
            saves = costs.stay_usd - costs.on_demand_usd[choice[0]] - LEAST_SAVED * costs.stay_usd
        # the old worker is paid for until it is seen to be idle
        if saves <= here * self.rooms[task.pool].state.pool.idle_ms / self._hour_ms:
            return None
        return self._route(state, choice)

    def _there(self) -> tuple[Mode, int | None, int]:
        """What of it is there: what runs or starts, where, and ms of start-up that are left."""
        for n, name in enumerate(self.safe):
            if (left_ms := self._coming_ms(name)) is not None:
                return "on_demand", n, left_ms
        if free := [n for n, name in enumerate(self.zones) if self.options[name].room]:
            return "spot", min(free, key=lambda n: (self._usd_h(self.zones[n]), n)), 0
        for n, name in enumerate(self.zones):
            if (left_ms := self._coming_ms(name)) is not None:
                return "spot", n, left_ms
        return "idle", None, 0

    def _coming_ms(self, name: str) -> int | None:
        """Until a worker that starts for nobody else is ready, ms above zero; None: there is none.

        What has been starting for far longer than it takes is no longer hoped for.
        """
        room = self.rooms[name]
        usual_ms = max(room.state.startup_ms, STARTUP_LEAST_MS)
        asked = [each.asked_ms for each in room.state.starting if self.now_ms - each.asked_ms < OVERDUE * usual_ms]
        if (len(asked) + room.launching) * slots_of(self.group, room)[0] - room.claimed <= 0:
            return None
        return max(1, min(asked, default=self.now_ms) + room.state.startup_ms - self.now_ms)

    def is_of_market(self, name: str) -> bool:
        """A pool from which its zones are asked."""
        return self._zone_of(name) is not None

    def launches(self, name: str) -> int:
        """Workers to launch there for it, 0 or 1: none where one starts for nobody else."""
        return int(self._coming_ms(name) is None and self.may_ask(name))

    def _closed(self) -> set[int]:
        """Zones that cannot be asked now: they refused in this tick, have no place left, or their launches fail."""
        refused = {zone.name for zone in self.market.zones if zone.now is False}
        return {
            n
            for n, name in enumerate(self.zones)
            if not self.options[name].room
            and self._coming_ms(name) is None
            and (name in refused or not self.may_ask(name))
        }

    def may_ask(self, name: str) -> bool:
        """A worker may be asked for.

        After a launch that gave none it is not asked for a while; but that the market refused one is the beliefs'
        affair, which say when the zone is to be asked again.
        """
        room = self.rooms[name]
        refused = any(zone.name == name and zone.away_h > 0 for zone in self.market.zones) and not room.state.fault
        return room.may_grow and (refused or room.state.retry_ms <= self.now_ms)

    @property
    def takes_ms(self) -> int:
        """What it takes in all, in the mean, ms."""
        return max(o.estimate.mean_ms for o in self._mine() if o.estimate is not None)

    def _mine(self) -> list[Option]:
        return [self.options[name] for name in (*self.zones, *self.safe)]

    def _state(self, work_ms: int, mode: Mode, zone: int | None, startup_ms: int) -> LongJobState:
        group, deadline_ms = self.group, self.group.deadline_ms
        assert deadline_ms is not None
        high_ms = max(o.estimate.high_ms for o in self._mine() if o.estimate is not None)
        # work is planned with its mean; what it may take beyond is kept free before the deadline
        kept_ms = group.tail_ms + self.policy.margin_ms + high_ms - self.takes_ms
        return LongJobState(
            work_h=work_ms / self._hour_ms,
            left_h=max(1, deadline_ms - kept_ms - self.now_ms) / self._hour_ms,
            mode=mode,
            zone=zone,
            home=self._zone_of(group.checkpoint_pool),
            startup_left_h=startup_ms / self._hour_ms,
            spot_usd_h=tuple(self._usd_h(name) for name in self.zones),
            on_demand_usd_h=tuple(self._usd_h(name) for name in self.safe),
        )

    def _route(self, state: LongJobState, decided: Choice | None) -> Route:
        costs = self.placement.costs(state)
        waits = decided is None and state.mode == "idle"
        zone, market = decided or (costs.best_zone, "spot")
        if decided is None and state.mode != "idle" and state.zone is not None:
            zone, market = state.zone, state.mode
        pool = self._pool_of((zone, market))
        slack_ms = (state.left_h - state.work_h) * self._hour_ms
        return Route(
            ranked=self._ranked(pool, costs),
            waits=waits,
            why=why(pool, costs, self.zones, self.safe, waits=waits, slack_ms=slack_ms),
        )

    def _pool_of(self, choice: Choice) -> str:
        zone, market = choice
        return self.zones[zone] if market == "spot" else self.safe[zone]

    def _ranked(self, first: str, costs: CostsToGo) -> list[Option]:
        """Every pool, the chosen one first, then by what the rest would cost."""
        usd = {self.zones[zone]: each for zone, each in costs.spot_usd.items()}
        for zone, each in costs.on_demand_usd.items():
            usd[self.safe[zone]] = min(each, usd.get(self.safe[zone], each))
        told = [
            replace(o, to_go_usd_micros=round(usd[name] * MICROS)) if name in usd else o
            for name, o in self.options.items()
        ]
        told.sort(key=lambda o: (o.pool != first, o.to_go_usd_micros is None, o.to_go_usd_micros or 0, o.pool))
        return told + self._infeasible


def long_job_of(
    group: Group,
    markets: Sequence[MarketBeliefs],
    rooms: Mapping[str, Room],
    ranked: Sequence[Option],
    policy: Policy,
    now_ms: int,
) -> LongJob | None:
    """The group's task as a long job; None where it is none.

    It is one where it is interruptible, has checkpoints and a deadline, takes an hour or more, and may run in spot
    pools of one market in two zones or more and, at last, on demand.
    """
    options = {o.pool: o for o in ranked if not o.why_not}
    safe = [name for name in options if rooms[name].state.pool.market == "on-demand" and rooms[name].may_take]
    zones, market = max(
        (([zone.name for zone in each.zones if zone.name in options], each) for each in markets),
        key=lambda found: (len(found[0]), found[1].name),
    )
    if not safe or len({rooms[name].state.pool.zone for name in zones}) < 2:
        return None
    dear = min(rooms[name].state.usd_micros_per_hour for name in safe)
    if dear <= min(rooms[name].state.usd_micros_per_hour for name in zones):
        # nothing is to be won by waiting: it is placed as any other task
        return None
    job = LongJob(group, market, zones, safe, rooms, ranked, policy, now_ms)
    return job if job.takes_ms * market.speed >= LEAST_MS else None
