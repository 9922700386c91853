"""Where one checkpointed job should run now, from what was seen of the zones so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agent.planner.horizon import ON_OD, ON_SPOT, PHASES, UP, WAIT, Floats, Market, Table, expm, joint, solve

Mode = Literal["idle", "spot", "on_demand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One for every cloud, zone and deadline."""

    short_up_h: float = 0.55
    short_down_h: float = 0.42
    short_up: float = 0.6
    short_down: float = 0.6
    long_up_h: float = 10.0
    long_down_h: float = 4.5
    #: events that the prior is worth
    up_worth: float = 2.0
    down_worth: float = 2.0
    cells: float = 1.2e7
    most_zones: int = 6
    moved: float = 0.15
    every_h: float = 1.0
    at_most_h: float = 6.0
    slack_steps: int = 30
    most_fine: int = 3
    late: float = 10.0
    floor: bool = True
    seldom_short: float = 1.0
    found_short: float = -1.0
    use_found: bool = False
    spread_up: float = 0.0
    spread_down: float = 0.0
    good: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The job now."""

    work_h: float
    left_h: float
    mode: Mode
    zone: int | None
    home: int | None
    startup_left_h: float
    spot_usd_h: tuple[float, ...]
    on_demand_usd_h: tuple[float, ...]


class Watch:
    """What is believed of each zone."""

    def __init__(self, zones: int, setting: Setting, tick_h: float):
        g = self.setting = setting
        self.tick_h = tick_h
        self.losses, self.up_h = np.full(zones, g.up_worth), np.full(zones, g.up_worth * g.long_up_h)
        self.returns, self.down_h = np.full(zones, g.down_worth), np.full(zones, g.down_worth * g.long_down_h)
        self.zones = zones
        self.last: list[bool | None] = [None] * zones
        self.now: list[bool | None] = [None] * zones
        self.learn()
        self.phase = self.stationary()

    def learn(self):
        g = self.setting
        self.long_loss, self.long_return = self.losses / self.up_h, self.returns / self.down_h
        self.short_loss = np.maximum(1 / g.short_up_h, self.long_loss)
        self.short_return = np.maximum(1 / g.short_down_h, self.long_return)
        r = np.zeros((self.zones, 4, 4))
        for k, rate in ((0, self.short_return), (1, self.long_return)):
            r[:, k, 2], r[:, k, 3], r[:, k, k] = rate * g.short_up, rate * (1 - g.short_up), -rate
        for k, rate in ((2, self.short_loss), (3, self.long_loss)):
            r[:, k, 0], r[:, k, 1], r[:, k, k] = rate * g.short_down, rate * (1 - g.short_down), -rate
        self.rates = r
        self.chain = expm(r, self.tick_h)

    def stationary(self):
        g = self.setting
        w = np.stack([g.short_down / self.short_return, (1 - g.short_down) / self.long_return,
                      g.short_up / self.short_loss, (1 - g.short_up) / self.long_loss], 1)
        return w / w.sum(1, keepdims=True)

    def seldom(self):
        g = self.setting
        k = g.seldom_short
        up = k * g.short_up / self.short_loss + (1 - g.short_up) / self.long_loss
        down = k * g.short_down / self.short_return + (1 - g.short_down) / self.long_return
        a, b = (k * g.short_up + 1 - g.short_up), (k * g.short_down + 1 - g.short_down)
        return np.stack([a / up, b / down], 1)

    def tick(self, ticks: int) -> None:
        for _ in range(ticks):
            self.phase = np.einsum("zi,zij->zj", self.phase, self.chain)
        if ticks:
            self.before = self.phase
            self.last = self.now if ticks == 1 else [None] * self.zones
            self.now = [None] * self.zones

    def saw(self, z: int, up: bool) -> None:
        p = self.phase[z].copy()
        if self.now[z] is None and self.last[z] is not None:
            h = self.tick_h
            q = self.held[z] if hasattr(self, "held") else p
            if self.last[z]:
                long = q[3] / max(q[2] + q[3], 1e-12)
                self.up_h[z] += h * long
                if not up:
                    s, l = (1 - long) * self.short_loss[z], long * self.long_loss[z]
                    self.losses[z] += l / (s + l)
            else:
                long = q[1] / max(q[0] + q[1], 1e-12)
                self.down_h[z] += h * long
                if up:
                    s, l = (1 - long) * self.short_return[z], long * self.long_return[z]
                    self.returns[z] += l / (s + l)
        self.now[z] = up
        p = p * (UP == up)
        t = p.sum()
        self.phase[z] = p / t if t > 1e-9 else self.stationary()[z] * (UP == up) / (self.stationary()[z] * (UP == up)).sum()
        if not hasattr(self, "held"):
            self.held = self.phase.copy()
        self.held[z] = self.phase[z]

    def up(self):
        return self.phase[:, 2] + self.phase[:, 3]


class Placer:
    def __init__(self, *, work_h, left_h, startup_h, tick_h, egress_usd, setting=None):
        self.setting = setting or Setting()
        self.egress = np.array(egress_usd, float)
        self.zones = len(self.egress)
        self.startup_h, self.tick_h = startup_h, tick_h
        self.watch = Watch(self.zones, self.setting, tick_h)
        self.table: Table | None = None
        self.solves = 0

    def refresh(self, s: State, now_h: float) -> None:
        w, g = self.watch, self.setting
        if self.table is not None:
            if (s.home is not None) == (self.table.fresh is not None) or not self.home_ok(s):
                pass
            elif now_h - self.solved_h < g.every_h:
                return
            else:
                rates = np.log(np.concatenate([w.losses / w.up_h, w.returns / w.down_h]))
                if np.abs(rates - self.rates).max() < g.moved and now_h - self.solved_h < g.at_most_h:
                    return
        w.learn()
        self.rates = np.log(np.concatenate([w.losses / w.up_h, w.returns / w.down_h]))
        self.solved_h = now_h
        self.solves += 1
        slack_h = max(s.left_h - s.work_h, self.startup_h)
        if self.startup_h > 0:
            fine = int(min(g.most_fine, max(1, round(g.slack_steps * self.startup_h / slack_h))))
            step = self.startup_h / fine
        else:
            fine, step = 0, max(s.left_h / 300, self.tick_h)
        T, B = math.ceil(s.left_h / step) + 1, math.ceil((s.left_h - s.work_h) / step) + 1
        k = 1
        while k < min(self.zones, g.most_zones) and T * B * 3 * (k + 1) * 4 * 2 ** k <= g.cells:
            k += 1
        self.keep = keep = self.choose(s, k)
        self.at = {zone: i for i, zone in enumerate(keep)}
        od = np.array(s.on_demand_usd_h)[keep]
        found = self.watch.stationary()[keep]
        for half in (slice(0, 2), slice(2, 4)):
            found[:, half] /= found[:, half].sum(1, keepdims=True)
        if g.found_short >= 0:
            found[:, 2], found[:, 3] = g.found_short, 1 - g.found_short
        def market(sign):
          f, r = np.exp(-sign * g.spread_up), np.exp(sign * g.spread_down)
          q = w.rates[keep].copy(); q[:, :2] *= r; q[:, 2:] *= f
          sd = w.seldom()[keep] * np.array([f, r])
          return Market(step_h=step, startup=fine, spot_usd_h=np.array(s.spot_usd_h)[keep], on_demand_usd_h=od,
                   egress_usd=self.egress[np.ix_(keep, keep)], rates=q, seldom=sd, found=found, late_usd_h=g.late * od.max())
        signs = ((1, g.good), (-1, 1 - g.good)) if g.spread_up or g.spread_down else ((0, 1.0),)
        self.tables = [(solve(market(sg), T, B, s.home is None), wt) for sg, wt in signs]
        self.table = self.tables[0][0]

    def home_ok(self, s):
        return (s.zone if s.zone is not None else s.home) in (None, *self.keep)

    def choose(self, s: State, most: int) -> list[int]:
        z, w = self.zones, self.watch
        if z <= most:
            return list(range(z))
        at = s.zone if s.zone is not None else s.home
        keep = [] if at is None else [at]
        f, r = w.seldom().T
        share = r / (r + f)
        lost = 1 / (1 + self.startup_h * f)
        eg = self.egress[at] if at is not None else np.zeros(z)
        od = min(s.on_demand_usd_h)
        worth = share * (od - np.array(s.spot_usd_h) / lost) - 0.05 * eg
        for k in np.argsort(-worth, kind="stable"):
            if len(keep) < most and k not in keep:
                keep.append(int(k))
        return sorted(keep)

    def ev(self, part, left: float, slack: float, dist) -> float:
        """Interpolated over (work, slack); part [time, slack, states]."""
        w = left - slack
        if w <= 0:
            return 0.0
        late = 0.0
        if slack < 0:
            m = self.table.market
            late, slack = -slack * m.late_usd_h * m.step_h, 0.0
        T, B = part.shape[0] - 1, part.shape[1] - 1
        bi = min(int(slack), B - 1); fb = min(slack - bi, 1.0)
        wi = max(0, min(int(w), T - 2 - bi)); fw = min(w - wi, 1.0)
        t = wi + bi
        a = part[t, bi] @ dist; b = part[t + 1, bi + 1] @ dist
        c = part[t + 1, bi] @ dist; d = part[t + 2, bi + 1] @ dist
        return float((a * (1 - fb) + b * fb) * (1 - fw) + (c * (1 - fb) + d * fb) * fw + late)

    def dist(self, z: int | None, phase):
        up = (phase[:, 2] + phase[:, 3]).tolist()
        if z is None:
            return np.array(joint(up))
        rest = joint(up[:z] + up[z + 1:])
        return np.array([p * q for p in phase[z].tolist() for q in rest])

    def q_stay(self, s, phase):
        return sum(wt * self._q_stay(s, phase, tb) for tb, wt in self.tables)

    def q_go(self, s, z, kind, phase):
        return sum(wt * self._q_go(s, z, kind, phase, tb) for tb, wt in self.tables)

    def _q_stay(self, s, phase, table):
        m = self.table.market
        left, slack, sl = s.left_h / m.step_h, (s.left_h - s.work_h) / m.step_h, s.startup_left_h / m.step_h
        if s.mode == "idle":
            if s.home is None:
                return self.ev(table.fresh, left - 1, slack - 1, self.dist(None, phase))
            z = self.at[s.home]
            return self.ev(table.step[:, z, WAIT], left - 1, slack - 1, self.dist(z, phase))
        z = self.at[s.zone]
        kind, usd = (ON_SPOT, m.spot_usd_h[z]) if s.mode == "spot" else (ON_OD, m.on_demand_usd_h[z])
        return usd * m.step_h * (1 + sl) + self.ev(table.step[:, z, kind], left - 1 - sl, slack - sl, self.dist(z, phase))

    def _q_go(self, s, z, kind, phase, table):
        m = self.table.market
        left, slack = s.left_h / m.step_h, (s.left_h - s.work_h) / m.step_h
        e = 0.0 if s.home is None else self.egress[s.home][self.keep[z]]
        usd = (m.spot_usd_h if kind == "spot" else m.on_demand_usd_h)[z]
        n = m.startup
        return e + usd * n * m.step_h + self.ev(table.launch[:, z, 0 if kind == "spot" else 1], left - n, slack - n, self.dist(z, phase))

    def may_stay(self, s: State) -> bool:
        """A tick from now a start-up on demand still meets the deadline, whatever happens."""
        made = 0.0 if s.mode == "idle" else max(0.0, self.tick_h - s.startup_left_h)
        return s.left_h - self.tick_h - (s.work_h - made + self.startup_h) >= -1e-9

    def may_leave(self, s):
        return s.left_h - self.tick_h - (s.work_h - max(0.0, self.tick_h - self.startup_h) + self.startup_h) >= -1e-9

    def decide(self, s: State, now_h: float, asked: set[int]):
        """A launch (zone, kind) or None."""
        if s.mode == "on_demand" and not self.may_leave(s):
            return None
        if s.mode != "on_demand" and not self.may_stay(s):
            if s.mode == "spot" and s.startup_left_h <= 0:
                return None
            return (self.od_zone(s), "on_demand")
        g = self.setting
        self.refresh(s, now_h)
        phase = self.watch.phase[self.keep]
        best = None
        if self.may_leave(s):
            for z, zone in enumerate(self.keep):
                p = phase[z, 2] + phase[z, 3]
                if zone in asked or (s.mode == "spot" and zone == s.zone) or p <= 1e-6:
                    continue
                u = phase.copy(); u[z] = np.where(UP, u[z], 0) / p
                if g.use_found and zone != (s.zone if s.zone is not None else s.home):
                    u[z] = np.where(UP, self.table.market.found[z], 0)
                gain = self.q_stay(s, u) - self.q_go(s, z, "spot", u)
                if gain > 0 and (best is None or gain > best[0]):
                    best = (gain, zone)
        if best:
            return (best[1], "spot")
        if s.mode != "on_demand":
            stay = self.q_stay(s, phase)
            q, zone = min((self.q_go(s, z, "on_demand", phase), zone) for z, zone in enumerate(self.keep))
            if q < stay:
                return (zone, "on_demand")
        return None

    def od_zone(self, s):
        e = [0.0] * self.zones if s.home is None else self.egress[s.home]
        return min(range(self.zones), key=lambda z: e[z] + s.on_demand_usd_h[z] * (s.work_h + self.startup_h))
