"""Where one checkpointed job should run now, from what was seen of the zones so far."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

from agent.planner.long_job.beliefs import Beliefs
from agent.planner.long_job.horizon import CostTable, Floats, ZoneMarket, joint, solve
from agent.planner.long_job.setting import LongJobSetting
from agent.planner.long_job.values import Choice, CostsToGo, LongJobState

EPSILON_H = 1e-9
#: prices are planned with in steps of this (logarithm)
PRICE_GRID = 0.01


class LongJobPlacement:
    """Decides by the expected cost to go of each choice, under the beliefs of now.

    It plans with the posterior means of the rates, and with the regime of the market as if it would be seen from the
    next step on. With zones that are independent an outage of all of them looks as short as the shortest, and slack is
    spent on waiting for its end. To plan for rates far better and far worse whatever was seen makes slack dear to the
    last.

    Args:
        startup_h: hours billed without progress at each launch.
        tick_h: hours between decisions.
        egress_usd: [zones][zones] USD to move the checkpoint.
    """

    def __init__(
        self,
        *,
        startup_h: float,
        tick_h: float,
        egress_usd: Sequence[Sequence[float]],
        setting: LongJobSetting,
        beliefs: Beliefs | None = None,
    ):
        self.setting, self.startup_h, self.tick_h = setting, startup_h, tick_h
        self.egress_usd: Floats = np.array(egress_usd, float)
        self.zones = len(self.egress_usd)
        self.beliefs = beliefs or Beliefs(self.zones, tick_h, setting.prior, setting.regimes)
        self._keep: list[int] = []
        self._table: CostTable | None = None

    def decide(self, state: LongJobState, asked: Collection[int]) -> Choice | None:
        """What to launch now, or None to let things be.

        Args:
            asked: zones that were asked for spot in this tick.

        The deadline comes first: whatever would leave too little time for a start-up on demand a tick later is not
        considered. So no deadline is missed that on demand could meet at the start.
        """
        if not self.safe(state):
            return self.last_call(state)
        self._plan(state)
        beliefs, stay = self.beliefs, self._stay_usd(state)
        best, most = None, 0.0
        if self._safe(state, self.tick_h - self.startup_h):
            dear = stay * (1 + self.setting.idle) if state.mode == "idle" else stay
            for i, zone in enumerate(self._keep):
                if zone in asked or (state.mode, state.zone) == ("spot", zone) or not beliefs.up[:, zone].any():
                    continue
                saves = float((dear - self._go_usd(state, i, "spot")) @ self._states(*beliefs.given(zone, True)))
                if saves > most:
                    best, most = zone, saves
        if best is not None:
            return best, "spot"
        if state.mode != "on_demand":
            given = self._states(beliefs.weight, beliefs.up)
            usd, zone = min(
                (float(self._go_usd(state, i, "on_demand") @ given), zone) for i, zone in enumerate(self._keep)
            )
            if usd < float(stay @ given):
                return zone, "on_demand"
        return None

    def loss_per_h(self, zone: int) -> float:
        """How often an hour a zone that has capacity is expected to lose it, as the market seems to be now."""
        return float(self.beliefs.weight @ self.beliefs.loss_per_h[:, zone])

    def safe(self, state: LongJobState) -> bool:
        """Whether the deadline leaves anything to decide: a tick from now it can still be met on demand."""
        if state.mode == "on_demand":
            return self._safe(state, self.tick_h - self.startup_h)
        return self._safe(state, self.tick_h - state.startup_left_h if state.mode == "spot" else 0.0)

    def last_call(self, state: LongJobState) -> Choice | None:
        """What the deadline asks for where it leaves nothing to decide."""
        # an instance past its start-up may run on: until it is lost, work and time shrink together
        if state.mode == "on_demand" or (state.mode == "spot" and state.startup_left_h <= EPSILON_H):
            return None
        return self._cheapest_finish(state), "on_demand"

    def costs(self, state: LongJobState) -> CostsToGo:
        """What the choices of now would cost, of the zones that are planned with."""
        self._plan(state)
        beliefs, stay = self.beliefs, self._stay_usd(state)
        given = self._states(beliefs.weight, beliefs.up)
        spot, saves = {}, {}
        for i, zone in enumerate(self._keep):
            up = self._states(*beliefs.given(zone, True))
            go = self._go_usd(state, i, "spot")
            spot[zone], saves[zone] = float(go @ up), float((stay - go) @ up)
        return CostsToGo(
            stay_usd=float(stay @ given),
            spot_usd=spot,
            on_demand_usd={
                zone: float(self._go_usd(state, i, "on_demand") @ given) for i, zone in enumerate(self._keep)
            },
            saves_usd=saves,
        )

    def shadow_price_usd_h(self, state: LongJobState) -> float:
        """USD that the last hour of slack saves: what the rest costs more with an hour less to the deadline.

        Where less than an hour of slack is left, that of the slack there is.
        """
        self._plan(state)
        given = self._states(self.beliefs.weight, self.beliefs.up)
        hour = min(1.0, max(state.left_h - state.work_h - self.startup_h, self.tick_h))
        less = self._stay_usd(replace(state, left_h=state.left_h - hour))
        return float((less - self._stay_usd(state)) @ given) / hour

    def _states(self, weight: Floats, up: Floats) -> Floats:
        """[R·2^Z]: the distribution over the table's states of these beliefs."""
        return np.concatenate([w * joint(row) for w, row in zip(weight, up[:, self._keep].tolist(), strict=True)])

    def _safe(self, state: LongJobState, made_h: float) -> bool:
        """A tick from now, with so much work made, a start-up on demand still meets the deadline."""
        return state.left_h - self.tick_h >= state.work_h - max(0.0, made_h) + self.startup_h - EPSILON_H

    def _cheapest_finish(self, state: LongJobState) -> int:
        """The zone in which the rest costs least on demand, the move included."""
        hours = state.work_h + self.startup_h
        move = np.zeros(self.zones) if state.home is None else self.egress_usd[state.home]
        return int(np.argmin(np.array(state.on_demand_usd_h) * hours + move))

    def _plan(self, state: LongJobState) -> None:
        """The table to decide with: a function of this state and these beliefs alone, each taken to a grid.

        So the same state gives the same choice whatever was decided before, and tables are solved seldom.
        """
        setting, startup_h = self.setting, self.startup_h
        left_h = _up(state.left_h)
        few, many = setting.steps
        startup = max(round(startup_h * few / left_h), int(startup_h * many >= left_h))
        step_h = startup_h / startup if startup else left_h / few
        time = math.ceil(left_h / step_h) + 1
        slack = min(time, math.ceil(_up(max(state.left_h - state.work_h, step_h)) / step_h) + 1)
        most = 1
        regimes = len(setting.regimes.loss_times)
        while (
            most < min(self.zones, setting.zones)
            and time * slack * (3 * most + 4) * regimes * 2 ** (most + 1) <= setting.cells
        ):
            most += 1
        keep = self._keep = self._choose(state, most)
        rates = self.beliefs.rates(keep)
        loss, back = self.beliefs.by_regime(rates)
        dear = [_cents(state.on_demand_usd_h[z]) for z in keep]
        self._table = _solved(
            step_h,
            startup,
            (tuple(_cents(state.spot_usd_h[z]) for z in keep), tuple(dear)),
            tuple(tuple(_cents(usd) for usd in row) for row in self.egress_usd[np.ix_(keep, keep)].tolist()),
            (_rows(loss), _rows(back)),
            setting.regimes.change_per_h,
            setting.late * max(dear),
            time,
            slack,
        )

    def _choose(self, state: LongJobState, most: int) -> list[int]:
        """The zones to plan with: the job's own, and those in which an hour saves most against on demand."""
        if self.zones <= most:
            return list(range(self.zones))
        loss, back = self.beliefs.own
        keep = [] if state.place is None else [state.place]
        price = np.array(state.spot_usd_h) * (1 + self.startup_h * loss)
        saves = back / (back + loss) * (min(state.on_demand_usd_h) - price)
        if state.place is not None:
            saves = saves - self.egress_usd[state.place] / max(state.work_h, 1.0)
        for zone in np.argsort(-saves, kind="stable").tolist():
            if len(keep) < most and zone not in keep:
                keep.append(zone)
        return sorted(keep)

    def _stay_usd(self, state: LongJobState) -> Floats:
        """[R·2^Z] expected cost to go when nothing changes in this step, by state now."""
        assert self._table is not None
        zones, table, m = len(self._keep), self._table, self._table.market
        left, slack = state.left_h / m.step_h, (state.left_h - state.work_h) / m.step_h
        if state.mode == "idle" or state.zone is None:
            mode = 3 * zones if state.home is None else self._keep.index(state.home)
            return table.usd("step", mode, left - 1, slack - 1)
        z, starting = self._keep.index(state.zone), state.startup_left_h / m.step_h
        price = (m.spot_usd_h if state.mode == "spot" else m.on_demand_usd_h)[z]
        mode = (1 if state.mode == "spot" else 2) * zones + z
        usd = table.usd("step", mode, left - 1 - starting, slack - starting)
        return usd + float(price) * m.step_h * (1 + starting)

    def _go_usd(self, state: LongJobState, z: int, kind: Literal["spot", "on_demand"]) -> Floats:
        """[R·2^Z] expected cost to go of a launch that is granted, in the z-th of the zones planned with."""
        assert self._table is not None
        zones, table, m = len(self._keep), self._table, self._table.market
        left, slack = state.left_h / m.step_h - m.startup, (state.left_h - state.work_h) / m.step_h - m.startup
        price = (m.spot_usd_h if kind == "spot" else m.on_demand_usd_h)[z]
        move = 0.0 if state.home is None else float(self.egress_usd[state.home, self._keep[z]])
        usd = table.usd("launch", z if kind == "spot" else zones + z, left, slack)
        return usd + move + float(price) * m.startup * m.step_h


def _up(hours: float) -> float:
    """The next of 2^(k/2), so that a table serves for a while."""
    return float(2.0 ** (math.ceil(2 * math.log2(max(hours, 1e-6)) - 1e-9) / 2))


def _cents(usd: float) -> float:
    """Money on a grid of one per cent."""
    return math.exp(PRICE_GRID * round(math.log(usd) / PRICE_GRID)) if usd > 0 else 0.0


def _rows(rates: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, rates.tolist()))


@lru_cache(maxsize=6)
def _solved(  # noqa: PLR0913
    step_h: float,
    startup: int,
    prices: tuple[tuple[float, ...], tuple[float, ...]],
    egress: tuple[tuple[float, ...], ...],
    rates: tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]],
    changes: tuple[tuple[float, ...], ...],
    late_usd_h: float,
    time: int,
    slack: int,
) -> CostTable:
    """A table, kept for as long as nothing else is asked for twice."""
    market = ZoneMarket(
        step_h=step_h, startup=startup, spot_usd_h=np.array(prices[0]), on_demand_usd_h=np.array(prices[1]),
        egress_usd=np.array(egress), loss_per_h=np.array(rates[0]), return_per_h=np.array(rates[1]),
        change_per_h=np.array(changes, float), late_usd_h=late_usd_h,
    )  # fmt: skip
    return solve(market, time, slack)
