"""Where one checkpointed job should run now, from what was seen of the zones so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agent.planner.horizon import Floats, Market, Table, joint, kernels, solve

Mode = Literal["idle", "spot", "on_demand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One for every cloud, zone and deadline."""

    #: a zone's losses before anything was seen of it: so many in so many hours up
    losses: float = 8.0
    up_h: float = 26.4
    #: its returns: so many in so many hours down
    returns: float = 19.2
    down_h: float = 24.0
    #: zones that are planned with at once; the others enter when one of these is worse
    most_zones: int = 4
    #: a table is solved again when a rate has moved by this (logarithm)
    moved: float = 0.15
    every_h: float = 1.0
    #: cells of slack wanted
    slack_steps: int = 40
    most_fine: int = 4
    #: a cost of lateness above any on-demand price, as a multiple of it
    late: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The job now."""

    work_h: float
    #: whole ticks' hours to the deadline
    left_h: float
    mode: Mode
    zone: int | None
    home: int | None
    startup_left_h: float
    spot_usd_h: tuple[float, ...]
    on_demand_usd_h: tuple[float, ...]


class Watch:
    """What is believed of each zone: its rates, and whether it has capacity now."""

    def __init__(self, zones: int, setting: Setting):
        self.losses, self.up_h = np.full(zones, setting.losses), np.full(zones, setting.up_h)
        self.returns, self.down_h = np.full(zones, setting.returns), np.full(zones, setting.down_h)
        self.up = self.returns / self.down_h / (self.returns / self.down_h + self.losses / self.up_h)
        self.last: list[bool | None] = [None] * zones
        self.now: list[bool | None] = [None] * zones

    @property
    def loss_per_h(self) -> Floats:
        return self.losses / self.up_h

    @property
    def return_per_h(self) -> Floats:
        return self.returns / self.down_h

    def tick(self, hours: float, ticks: int) -> None:
        """Time passes; what is known of the last tick becomes the past."""
        if ticks <= 0:
            return
        chain = kernels(self.loss_per_h, self.return_per_h, hours * ticks)
        self.up = (1 - self.up) * chain[:, 0, 1] + self.up * chain[:, 1, 1]
        self.last = self.now if ticks == 1 else [None] * len(self.now)
        self.now = [None] * len(self.now)
        self.hours = hours

    def saw(self, zone: int, up: bool) -> None:
        if self.now[zone] is None and self.last[zone] is not None:
            if self.last[zone]:
                self.up_h[zone] += self.hours
                self.losses[zone] += not up
            else:
                self.down_h[zone] += self.hours
                self.returns[zone] += up
        self.now[zone] = up
        self.up[zone] = float(up)


class Placer:
    def __init__(self, *, work_h, left_h, startup_h, tick_h, egress_usd, setting=None):
        self.setting = setting or Setting()
        self.egress = np.array(egress_usd, float)
        self.zones = len(self.egress)
        self.startup_h, self.tick_h = startup_h, tick_h
        self.watch = Watch(self.zones, self.setting)
        self.table: Table | None = None
        self.solves = 0

    def refresh(self, s: State, now_h: float) -> None:
        w, g = self.watch, self.setting
        rates = np.log(np.concatenate([w.loss_per_h, w.return_per_h]))
        if self.table is not None:
            if now_h - self.solved_h < g.every_h:
                return
            if np.abs(rates - self.rates).max() < g.moved and now_h - self.solved_h < 6 and self.home_ok(s):
                return
        self.rates, self.solved_h = rates, now_h
        self.solves += 1
        keep = self.choose(s)
        self.keep = keep
        slack_h = max(s.left_h - s.work_h, self.startup_h)
        fine = 1
        if self.startup_h > 0:
            fine = int(min(g.most_fine, max(1, round(g.slack_steps * self.startup_h / slack_h))))
            step = self.startup_h / fine
        else:
            fine, step = 0, max(s.left_h / 300, self.tick_h)
        spot = np.array(s.spot_usd_h)[keep]
        od = np.array(s.on_demand_usd_h)[keep]
        m = Market(step_h=step, startup=fine, spot_usd_h=spot, on_demand_usd_h=od,
                   egress_usd=self.egress[np.ix_(keep, keep)], loss_per_h=w.loss_per_h[keep],
                   return_per_h=w.return_per_h[keep], late_usd_h=g.late * od.max())
        self.table = solve(m, math.ceil(s.left_h / step) + 1, math.ceil((s.left_h - s.work_h) / step) + 1)

    def home_ok(self, s):
        return (s.zone if s.zone is not None else s.home) in (None, *self.keep)

    def choose(self, s: State) -> list[int]:
        """The zones to plan with: the one with the checkpoint, the cheapest on demand, and those whose spot hour costs least."""
        z, g, w = self.zones, self.setting, self.watch
        if z <= g.most_zones:
            return list(range(z))
        at = s.zone if s.zone is not None else s.home
        keep = [] if at is None else [at]
        share = w.return_per_h / (w.return_per_h + w.loss_per_h)
        lost = 1 / (1 + self.startup_h * w.loss_per_h)
        eg = self.egress[at] if at is not None else np.zeros(z)
        od = min(s.on_demand_usd_h)
        worth = share * (od - np.array(s.spot_usd_h) / lost) - 0.05 * eg
        for k in np.argsort(-worth, kind="stable"):
            if len(keep) < g.most_zones and k not in keep:
                keep.append(int(k))
        return sorted(keep)

    def ev(self, part: Floats, left: float, slack: float, mode: int, dist: Floats) -> float:
        """Interpolated; `part` is step or launch; in steps."""
        if left - slack <= 0:
            return 0.0
        late = 0.0
        m = self.table.market
        if slack < 0:
            late = -slack * m.late_usd_h * m.step_h
            left, slack = left - slack, 0.0
        T, B = part.shape[0] - 1, part.shape[1] - 1
        left = min(left, T - 1e-6)
        slack = min(slack, B - 1e-6)
        w = left - slack
        wi, bi = int(w), int(slack)
        fw, fb = w - wi, slack - bi
        if wi + bi + 2 > T:
            wi = max(0, T - 2 - bi); fw = min(1.0, w - wi)
        p = part
        a = p[wi + bi, bi, mode] @ dist
        b = p[wi + bi + 1, bi + 1, mode] @ dist
        c = p[wi + 1 + bi, bi, mode] @ dist
        d = p[wi + bi + 2, bi + 1, mode] @ dist
        return float((a * (1 - fb) + b * fb) * (1 - fw) + (c * (1 - fb) + d * fb) * fw + late)

    def dist(self, up):
        return joint(np.stack([1 - up, up], 1))

    def q_stay(self, s, up):
        m = self.table.market; d = self.dist(up); Z = len(self.keep)
        left, slack, sl = s.left_h / m.step_h, (s.left_h - s.work_h) / m.step_h, s.startup_left_h / m.step_h
        k = self.keep.index
        if s.mode == "idle":
            return self.ev(self.table.step, left - 1, slack - 1, Z if s.home is None else k(s.home), d)
        if s.mode == "spot":
            z = k(s.zone)
            used = min(1.0, sl)
            return m.spot_usd_h[z] * m.step_h + self.ev(self.table.step, left - 1, slack - used, Z + 1 + z, d) + self.rest(sl - used, m.spot_usd_h[z], left, slack)
        z = k(s.zone)
        used = min(1.0, sl)
        return m.on_demand_usd_h[z] * m.step_h + self.ev(self.table.step, left - 1, slack - used, 2 * Z + 1 + z, d) + self.rest(sl - used, m.on_demand_usd_h[z], left, slack)

    def rest(self, more, usd, left, slack):
        return 0.0 if more <= 0 else usd * self.table.market.step_h * more

    def q_go(self, s, z, kind, up):
        m = self.table.market; d = self.dist(up); Z = len(self.keep)
        left, slack = s.left_h / m.step_h, (s.left_h - s.work_h) / m.step_h
        e = 0.0 if s.home is None else self.egress[s.home][self.keep[z]]
        usd = (m.spot_usd_h if kind == "spot" else m.on_demand_usd_h)[z]
        n = m.startup
        return e + usd * n * m.step_h + self.ev(self.table.launch, left - n, slack - n, z + (0 if kind == "spot" else Z), d)

    def spare_ticks(self, s: State) -> int:
        """Whole ticks that may pass without progress before a start-up on demand no longer meets the deadline."""
        return round(s.left_h / self.tick_h) - math.ceil((s.work_h + self.startup_h) / self.tick_h - 1e-9)

    def may_stay(self, s: State) -> bool:
        made = 0.0 if s.mode == "idle" else max(0.0, self.tick_h - s.startup_left_h)
        return round(s.left_h / self.tick_h) - 1 - math.ceil((s.work_h - made + self.startup_h) / self.tick_h - 1e-9) >= 0

    def decide(self, s: State, now_h: float, asked: set[int]):
        """A launch (zone, kind) or None."""
        if s.mode == "on_demand" and not self.leave_ok(s):
            return None
        if s.mode != "on_demand" and not self.may_stay(s):
            if s.mode == "spot" and s.startup_left_h <= 0:
                return None
            return (self.od_zone(s), "on_demand")
        self.refresh(s, now_h)
        up = self.watch.up[self.keep]
        best = None
        if self.launch_ok(s):
            for z, zone in enumerate(self.keep):
                if zone in asked or (s.mode == "spot" and zone == s.zone) or up[z] <= 0:
                    continue
                u = up.copy(); u[z] = 1.0
                gain = self.q_stay(s, u) - self.q_go(s, z, "spot", u)
                if gain > 0 and (best is None or gain > best[0]):
                    best = (gain, zone)
        if best:
            return (best[1], "spot")
        if s.mode != "on_demand":
            stay = self.q_stay(s, up)
            c = [(self.q_go(s, z, "on_demand", up), zone) for z, zone in enumerate(self.keep)]
            q, zone = min(c)
            if q < stay:
                return (zone, "on_demand")
        return None

    def od_zone(self, s):
        e = [0.0] * self.zones if s.home is None else self.egress[s.home]
        return min(range(self.zones), key=lambda z: e[z] + s.on_demand_usd_h[z] * (s.work_h + self.startup_h))

    def launch_ok(self, s):
        return self.spare_ticks(s) >= 1

    leave_ok = launch_ok

    def price(self, s) -> float:
        """USD an hour of slack is worth now."""
        m = self.table.market
        up = self.watch.up[self.keep]
        import dataclasses
        return (self.q_stay(dataclasses.replace(s, left_h=s.left_h - m.step_h), up) - self.q_stay(s, up)) / m.step_h
