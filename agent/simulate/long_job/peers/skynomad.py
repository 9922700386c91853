"""SkyNomad (NSDI 2027): the zone with the highest value of progress, net of price and of the move."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from agent.simulate.long_job.peers.steps import Steps, Stepwise, granted
from agent.simulate.long_job.protocol import ON_DEMAND, SPOT, LaunchInstance, ProbeZone, Seen

#: hazard per hour where none was observed
TINY = 1e-8


@dataclass(slots=True)
class Watched:
    """What one zone showed."""

    #: lifetimes in hours, and whether they ended in a loss
    lives: list[tuple[float, bool]] = field(default_factory=list)
    #: when each of them began
    begun_s: list[float] = field(default_factory=list)
    #: when the life in progress began, and whether a probe that was granted is taken to go on
    since_s: float | None = None
    probe: bool = False
    #: hazard met and losses, newest last
    bursts: deque[tuple[float, int]] = field(default_factory=deque)
    #: how much more often than expected it was lost lately, at least 1
    burst: float = 1.0
    #: refusals and losses since the last tick
    failures: int = 0
    #: its age at the last tick
    age_h: float | None = None
    #: hours of probes paid, and whether it was up when last asked (for `virtual`)
    probed_h: float = 0.0
    up: bool | None = None

    def knots(self, now_s: float, running: bool) -> tuple[list[tuple[float, float]], float]:
        """Nelson–Aalen increments at the observed lifetimes, and the one to go on with after the last."""
        lives = list(self.lives)
        if running and self.since_s is not None and now_s > self.since_s:
            lives.append(((now_s - self.since_s) / 3600, False))
        ends = sorted({d for d, lost in lives if lost})
        steps = [
            (e, sum(lost and abs(d - e) <= 1e-9 for d, lost in lives) / sum(d + 1e-9 >= e for d, _ in lives))
            for e in ends
        ]
        return steps, max(steps[-1][1], TINY) if steps else TINY


class SkyNomad(Stepwise):
    """The rule as published, with the settings of its V100 figure or of its H100 figure (`h100=True`).

    The artifact runs the two figures with different settings: on V100 the value of progress is
    C_od · (work left / time left) / (work / deadline), lifetimes are not capped and a zone's availability goes on being
    watched; on H100 it is 1.2 times a reference cost, and lifetimes are capped at two hours.
    """

    def __init__(self, *, h100: bool = False, probe_ticks: int = 6):
        self.h100, self.probe_ticks = h100, probe_ticks
        self.cap_h = 2.0 if h100 else math.inf

    def begin(self) -> None:
        """Nothing was seen yet."""
        self.zones = [Watched() for _ in self.job.zones]
        self.next_probe = [0.0] * len(self.zones)
        self.refused = set[int]()
        self.running: int | None = None
        self.left: int | None = None
        self.done_s: list[float] = []
        self.place: int | None = None
        self.tick_h = self.job.tick_s / 3600

    # what was observed

    def began(self, z: int, now_s: float) -> None:
        """A life begins."""
        self.zones[z].since_s = now_s

    def ended(self, z: int, now_s: float, lost: bool) -> None:
        """A life ends, by a loss or by us."""
        w = self.zones[z]
        if w.since_s is not None:
            w.lives.append((max(0.0, (now_s - w.since_s) / 3600), lost))
            w.begun_s.append(w.since_s)
        w.since_s = None
        w.failures += lost

    def known(self, z: int, now_s: float, up: bool) -> None:
        """On V100: availability that is watched without an instance counts as a life."""
        if self.h100 or self.running == z:
            return
        w = self.zones[z]
        if up and not w.up:
            self.began(z, now_s)
        elif w.up and not up:
            self.ended(z, now_s, True)
        w.up = up

    def observe(self, seen: Seen) -> None:
        """Losses since the last tick, then how much more often than expected each zone is being lost."""
        work = self.job.work_s - seen.work_left_s
        self.done_s.append(work)
        if self.running is not None and (seen.mode, seen.zone) != (SPOT, self.running):
            z, self.running = self.running, None
            self.ended(z, seen.now_s, self.left != z)
            self.left = None
        for w in self.zones:
            steps, tail = w.knots(seen.now_s, not self.h100)
            age = None if w.since_s is None else max(0.0, (seen.now_s - w.since_s) / 3600)
            before = w.age_h if w.age_h is not None else None if age is None else max(age - self.tick_h, 0.0)
            w.age_h = age if age is not None or self.h100 else w.age_h
            risk = 0.0
            if age is not None and before is not None:
                risk = max(0.0, _hazard(steps, age, tail) - _hazard(steps, before, tail))
            if risk <= 0 and (age is not None or w.failures) and not steps:
                risk = tail * self.tick_h
            if w.failures and risk <= 0:
                risk = tail * self.tick_h
            if risk > 0 or w.failures:
                w.bursts.append((risk, w.failures))
                _trim(w.bursts)
                w.burst = _burst(w.bursts)
            w.failures = 0

    # what it expects

    def life_h(self, z: int, seen: Seen) -> float:
        """Expected remaining lifetime of a spot instance in a zone."""
        w = self.zones[z]
        age = 0.0 if w.since_s is None else max(0.0, (seen.now_s - w.since_s) / 3600)
        if not self.h100:
            age = max(age, w.probed_h)
        steps, tail = w.knots(seen.now_s, not self.h100)
        expected, alive = 0.0, 1.0
        for at, step in steps:
            if at > age + 1e-12:
                expected += alive * (at - age)
                alive *= math.exp(-w.burst * step)
                age = at
        fails = -math.expm1(-w.burst * tail)
        expected += alive * self.tick_h / (fails if fails > 1e-9 else max(w.burst * tail, 1e-9))
        return min(expected, self.cap_h, max((self.job.deadline_s - seen.now_s) / 3600, 0.0))

    def value(self, seen: Seen) -> float:
        """USD that an hour of progress is worth."""
        time_s = self.job.deadline_s - seen.now_s
        if self.h100:
            return 1.2 * self.reference(seen)
        pace = seen.work_left_s * self.job.deadline_s / (time_s * self.job.work_s)
        return max(min(seen.on_demand_usd_h) * pace, min(seen.spot_usd_h))

    def reference(self, seen: Seen) -> float:
        """USD per hour of a plan that covers the work left with spot as each zone is expected to give it, else on
        demand.
        """
        work, time, startup_h = seen.work_left_s, self.job.deadline_s - seen.now_s, self.job.startup_s / 3600
        offers = []
        for z, price in enumerate(seen.spot_usd_h):
            life = self.life_h(z, seen)
            part = max(0.0, 1 - startup_h / life) if life > 0 else 0.0
            gives = self.availability(z, seen.now_s) * time * part
            if gives > 0:
                offers.append((price * life / max(life - startup_h, 1e-6), gives))
        od = self.on_demand_part(seen) * work
        want, usd, got, used = max(0.0, work - od), od / 3600 * min(seen.on_demand_usd_h), 0.0, 0
        for price, gives in sorted(offers):
            take = min(gives, want - got)
            if take <= 0:
                break
            usd, got, used = usd + take / 3600 * price, got + take, used + 1
        if got < want:
            usd, od = usd + (want - got) / 3600 * min(seen.on_demand_usd_h), od + want - got
        moves = max(0, used + (od > 0) - 1)
        return (usd + moves * self.job.checkpoint_gb * 0.02) / max(work / 3600, 1e-6)

    def availability(self, z: int, now_s: float) -> float:
        """The part of the last 12 h in which a zone was seen up."""
        w, since = self.zones[z], max(0.0, now_s - 12 * 3600)
        ends = [(b, b + d * 3600) for b, (d, _) in zip(w.begun_s, w.lives, strict=True)]
        if w.since_s is not None:
            ends.append((w.since_s, now_s))
        up = sum(max(0.0, min(e, now_s) - max(b, since)) for b, e in ends)
        span = min(12 * 3600, now_s)
        return min(1.0, up / span) if span > 0 else 0.0

    def on_demand_part(self, seen: Seen) -> float:
        """The part of the remaining time after the line of recent progress meets the last line on demand."""
        work, deadline, t = self.job.work_s, self.job.deadline_s, seen.now_s
        done = work - seen.work_left_s
        if t <= 0:
            return 0.0
        if abs(done - t) < 1e-6:
            return 0.5
        pace = self.pace(t)
        if abs(pace - 1) < 1e-6:
            return 0.0
        meets = (pace * t - done + work + 2 * self.job.startup_s - deadline) / (pace - 1)
        if meets >= deadline:
            return 0.0
        return 1.0 if meets <= 0 else max(0.0, min(1.0, (deadline - meets) / (deadline - t)))

    def pace(self, now_s: float) -> float:
        """Progress per second over the last 10 h."""
        if now_s < 600:
            return self.done_s[-1] / now_s if now_s > 0 else 0.0
        since = max(0.0, now_s - 36000.0)
        first = int(since / self.job.tick_s)
        return max(0.0, min(1.0, (self.done_s[-1] - self.done_s[min(first, len(self.done_s) - 1)]) / (now_s - since)))

    # what it does

    def tick(self, seen: Seen) -> Steps:
        """Rank all options; take the best that is granted and better than what runs by a margin; then probe."""
        self.observe(seen)
        job, now = self.job, seen.now_s
        worth = self.value(seen)
        startup_h = job.startup_s / 3600
        at, mode = seen.zone, seen.mode
        if at is not None:
            self.place = at
        here = at if at is not None else self.place
        margin = 0.5 + 0.0002 * job.checkpoint_gb + 0.05 * worth if at is not None else -math.inf

        def spot_value(z: int, running: bool) -> float:
            life = self.life_h(z, seen)
            useful = life if running else life - startup_h
            return (worth * useful - seen.spot_usd_h[z] * life) / life if useful > 0 else -math.inf

        current = 0.0
        if at is not None:
            current = spot_value(at, True) if mode == SPOT else worth - seen.on_demand_usd_h[at]
        options: list[tuple[float, str, int | None]] = [(0.0, "", None)]
        for other in range(len(job.zones)):
            value = spot_value(other, mode == SPOT and other == at)
            if here is not None and here != other:
                value -= job.egress_usd[here][other] / max(self.life_h(other, seen), 1e-6)
            if value >= 0 and (other == at or value > current + margin):
                options.append((value, SPOT, other))
        for other in range(len(job.zones)):
            value = worth - seen.on_demand_usd_h[other]
            if here is not None and here != other:
                value -= job.egress_usd[here][other]
            if value >= 0 and (mode, at) != (ON_DEMAND, other) and value > current + margin:
                options.append((value, ON_DEMAND, other))
        options.sort(key=lambda o: -o[0])
        primary = at
        for value, kind, z in options:
            if value <= current:
                break
            if z is None:
                primary = self.place = None
                break
            if (kind, z) == (mode, at):
                continue
            w = self.zones[z]
            if kind == SPOT and w.probe:
                self.ended(z, now, False)
                w.probe, w.age_h = False, None
            ok = granted((yield LaunchInstance(z, kind)))
            if kind == SPOT and ok:
                self.running, self.left = z, None
                self.began(z, now)
                w.age_h = 0.0
                self.refused.discard(z)
                if mode == SPOT and at is not None:
                    # as published: the life of an instance that was left for another zone's goes on
                    self.known(at, now, False)
            elif kind == SPOT:
                self.refused.add(z)
                w.failures += 1
                self.known(z, now, False)
            elif mode == SPOT:
                self.left = at
            if ok:
                self.place = primary = z
                break
        for z, w in enumerate(self.zones):
            if z == primary or w.probe or z in self.refused or now < self.next_probe[z]:
                continue
            up = granted((yield ProbeZone(z)))
            self.next_probe[z] = now + self.probe_ticks * job.tick_s
            if up:
                self.began(z, now)
                w.probe, w.age_h = True, 0.0
                w.probed_h += job.probe_s / 3600
            else:
                w.failures += 1
                w.age_h = None
            self.known(z, now, up)
        self.refused.clear()


def _hazard(steps: list[tuple[float, float]], age_h: float, tail: float) -> float:
    """Cumulative hazard before an age."""
    if age_h <= 0:
        return 0.0
    if not steps:
        return age_h * tail
    passed = [(at, step) for at, step in steps if at < age_h]
    return sum(step for _, step in passed) + (age_h - (passed[-1][0] if passed else 0.0)) * tail


def _trim(bursts: deque[tuple[float, int]], most: float = 8.0) -> None:
    """Forget the oldest while the rest still holds so much hazard."""
    total = sum(risk for risk, _ in bursts)
    while bursts and total - bursts[0][0] >= most:
        total -= bursts.popleft()[0]


def _burst(bursts: deque[tuple[float, int]]) -> float:
    """Losses per hazard met, in the newest stretch of at most 1 where they were densest; at least 1."""
    if sum(risk for risk, _ in bursts) < 1:
        return 1.0
    risk, lost, best, some = 0.0, 0, 0.0, False
    for n, (r, f) in enumerate(reversed(bursts)):
        risk, lost = risk + r, lost + f
        if n == 0 and risk <= 1e-6 and lost == 0:
            continue
        if risk > 1 + 1e-9:
            if n == 0:
                best, some = lost / risk, True
            break
        ratio = lost / (risk if risk > 0 else 1e-6) if lost or risk > 0 else 0.0
        if not some or ratio > best + 1e-9:
            best, some = ratio, True
    if not some and bursts:
        r, f = bursts[-1]
        best = f / r if r > 0 else f / 1e-6
    return max(1.0, best)
