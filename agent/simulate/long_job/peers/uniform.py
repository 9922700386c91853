"""Uniform Progress (Wu et al., Can't Be Late, NSDI 2024) and its variants over several zones (SkyNomad's baselines)."""

from __future__ import annotations

import math
from collections import deque

from agent.simulate.long_job.peers.steps import Steps, Stepwise, granted
from agent.simulate.long_job.protocol import IDLE, ON_DEMAND, SPOT, LaunchInstance, ProbeZone, Seen, StopInstance


class UniformProgressOfJob(Stepwise):
    """Keep the progress at or above the straight line from nothing to all of the work at the deadline.

    Behind the line: spot, else on demand; ahead of it: spot, else wait. On demand is left when the progress is ahead of
    the line two start-ups from now. With less than two start-ups of slack it does not leave (or goes) on demand.
    """

    #: after leaving on demand for spot that nobody granted, wait a tick
    keeps_out = True

    def request(self, seen: Seen, mode: str, spot: bool) -> str:
        """The kind wanted, given that zones have spot (or have none)."""
        job = self.job
        done, line = job.work_s - seen.work_left_s, job.work_s / job.deadline_s
        ahead = done - seen.now_s * line
        ahead_then = done - (seen.now_s + 2 * job.startup_s) * line
        want = SPOT if spot else IDLE
        if ahead < 0:
            want = SPOT if spot else ON_DEMAND
        if mode == ON_DEMAND and (not spot or ahead_then <= 0):
            want = ON_DEMAND
        left = self.remaining_s(seen)
        if self.whole(seen.work_left_s + 2 * job.startup_s) > left and mode in (IDLE, ON_DEMAND):
            want = ON_DEMAND
        if self.whole(seen.work_left_s + job.startup_s) >= left:
            want = SPOT if mode == SPOT and seen.startup_left_s < 1e-3 else ON_DEMAND
        self.hysteresis = mode == ON_DEMAND and spot and want == ON_DEMAND and ahead_then > 0
        return SPOT if self.hysteresis else want

    def begin(self) -> None:
        """Nothing ran yet."""
        self.hysteresis = False
        self.ran: int | None = None

    def order(self, seen: Seen) -> list[int]:
        """Zones in the order of asking."""
        return list(range(len(self.job.zones)))

    def tried(self, zone: int, ok: bool, seen: Seen) -> None:
        """A zone answered a launch."""

    def od_zone(self, seen: Seen, zone: int | None) -> int:
        """Where to go on demand: where it runs, else where the checkpoint is."""
        return zone if zone is not None else seen.home if seen.home is not None else 0

    def stay(self, seen: Seen) -> bool:
        """Keep the spot instance that runs."""
        return True

    def tick(self, seen: Seen) -> Steps:
        """One decision of the published rule."""
        zone, mode = seen.zone, seen.mode
        if zone is not None:
            self.ran = zone
        want = self.request(seen, mode, True)
        if zone is not None:
            if want == mode and (mode == ON_DEMAND or self.stay(seen)):
                return
            yield StopInstance()
            if want == IDLE:
                return
        if want == SPOT:
            for z in self.order(seen):
                ok = granted((yield LaunchInstance(z, SPOT)))
                self.tried(z, ok, seen)
                if ok:
                    return
            if self.hysteresis and self.keeps_out:
                return
            want = self.request(seen, IDLE, False)
        if want == ON_DEMAND:
            yield LaunchInstance(self.od_zone(seen, zone), ON_DEMAND)


class EagerFailover(UniformProgressOfJob):
    """UP(S): by price, the region that was lost last (all its zones) comes last."""

    def order(self, seen: Seen) -> list[int]:
        """Cheapest first, then those of the last region."""
        zones = self.job.zones
        cheap = sorted(range(len(zones)), key=seen.spot_usd_h.__getitem__)
        if self.ran is None:
            return cheap
        last = zones[self.ran].region
        return sorted(cheap, key=lambda z: zones[z].region == last)


class ByAvailability(UniformProgressOfJob):
    """UP(A): the zone whose last five samples were most often up; one zone is probed every two hours."""

    #: samples kept by zone
    window = 5
    #: seconds between samples
    every_s = 7200.0
    #: seconds between background probes that come due in one tick
    several = False

    def begin(self) -> None:
        """No sample yet."""
        super().begin()
        zones = range(len(self.job.zones))
        self.samples = [deque[bool](maxlen=self.window) for _ in zones]
        self.next_probe, self.next_sample = [0.0 for _ in zones], [0.0 for _ in zones]
        self.main: int | None = None
        self.every = max(1, round(self.every_s / self.job.tick_s)) * self.job.tick_s

    def share(self, z: int) -> float:
        """The part of a zone's samples that were up; a half without any."""
        return sum(self.samples[z]) / len(self.samples[z]) if self.samples[z] else 0.5

    def score(self, z: int, seen: Seen) -> float:
        """What zones are ranked by."""
        return self.share(z)

    def near(self, now: float, best: float) -> bool:
        """The zone that runs is as good as the best."""
        return now >= best - 1e-6

    def order(self, seen: Seen) -> list[int]:
        """Best score first."""
        return sorted(range(len(self.job.zones)), key=lambda z: -self.score(z, seen))

    def tried(self, zone: int, ok: bool, seen: Seen) -> None:
        """A launch is a sample."""
        self.samples[zone].append(ok)
        if ok:
            self.main = zone
            self.next_sample[zone] = seen.now_s + self.every

    def stay(self, seen: Seen) -> bool:
        """Unless another zone scores better."""
        assert seen.zone is not None
        best = self.order(seen)[0]
        if seen.zone == best or self.near(self.score(seen.zone, seen), self.score(best, seen)):
            self.main = seen.zone
            return True
        self.main = None
        return False

    def probes(self, seen: Seen) -> bool:
        """ProbeZone in this tick."""
        return seen.mode == SPOT

    def tick(self, seen: Seen) -> Steps:
        """Samples, the rule, then probes."""
        if self.main is not None and (seen.mode, seen.zone) != (SPOT, self.main):
            self.samples[self.main].append(False)
            self.main = None
        if seen.mode == SPOT:
            self.main = seen.zone
        if self.main is not None and seen.now_s >= self.next_sample[self.main]:
            self.samples[self.main].append(True)
            self.next_sample[self.main] = seen.now_s + self.every
        yield from super().tick(seen)
        if seen.mode != SPOT:
            self.main = None
        if not self.probes(seen):
            return
        due = [z for z in range(len(self.job.zones)) if z != seen.zone and seen.now_s >= self.next_probe[z]]
        due.sort(key=lambda z: len(self.samples[z]))
        for z in due if self.several else due[:1]:
            self.samples[z].append(granted((yield ProbeZone(z))))
            self.next_probe[z] = seen.now_s + self.every


class ByAvailabilityAndPrice(ByAvailability):
    """UP(AP): the zone with most successes per dollar, over all samples; every zone is probed each hour."""

    window = 1_000_000
    every_s = 3600.0
    several = True
    keeps_out = False

    def begin(self) -> None:
        """Samples and probes of a zone share one clock."""
        super().begin()
        self.next_sample = self.next_probe

    def score(self, z: int, seen: Seen) -> float:
        """Successes per dollar."""
        return self.share(z) / seen.spot_usd_h[z] if seen.spot_usd_h[z] > 0 else math.inf

    def request(self, seen: Seen, mode: str, spot: bool) -> str:
        """As always; remembers whether spot was wanted, which is when it probes."""
        want = super().request(seen, mode, spot)
        if spot:
            self.wanted = want
        return want

    def probes(self, seen: Seen) -> bool:
        """Whenever spot was wanted, granted or not."""
        return self.wanted == SPOT

    def near(self, now: float, best: float) -> bool:
        """Within a tenth."""
        return now >= 0.9 * best

    def od_zone(self, seen: Seen, zone: int | None) -> int:
        """Where it runs, else the first."""
        return zone if zone is not None else 0
