"""The rules that most people run: on demand, spot with retries, spot with fallback, greedy."""

from __future__ import annotations

from agent.simulate.long_job.peers.steps import Steps, Stepwise, granted
from agent.simulate.long_job.protocol import IDLE, ON_DEMAND, SPOT, LaunchInstance, Seen


class OnDemandOnly(Stepwise):
    """Everything on demand, in the zone where it is cheapest."""

    def tick(self, seen: Seen) -> Steps:
        """LaunchInstance once."""
        if seen.mode == IDLE:
            yield LaunchInstance(self.cheapest_finish(seen), ON_DEMAND)


class Retries(Stepwise):
    """Spot only, again after each loss, cheapest zone first; no net, so it may miss the deadline."""

    net = False

    def tick(self, seen: Seen) -> Steps:
        """Ask each zone until one grants."""
        if seen.mode == IDLE:
            for zone in sorted(range(len(self.job.zones)), key=seen.spot_usd_h.__getitem__):
                if granted((yield LaunchInstance(zone, SPOT))):
                    return


class SpotUntilLate(Retries):
    """Spot while there is some; on demand once the time left equals the work left and one start-up."""

    net = True


class Fallback(Stepwise):
    """Spot, else on demand, and there it stays (Coiled's and SkyPilot's `use spot with fallback`)."""

    #: come back from on demand when a zone has spot
    back = False

    def tick(self, seen: Seen) -> Steps:
        """Ask each zone, then on demand."""
        if seen.mode == IDLE or (self.back and seen.mode == ON_DEMAND):
            for zone in sorted(range(len(self.job.zones)), key=seen.spot_usd_h.__getitem__):
                if granted((yield LaunchInstance(zone, SPOT))):
                    return
        if seen.mode == IDLE:
            yield LaunchInstance(self.cheapest_finish(seen), ON_DEMAND)


class FallbackAndBack(Fallback):
    """Spot, else on demand, and back to spot as soon as a zone grants it."""

    back = True
