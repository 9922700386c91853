"""A policy written as what it does in a tick, with the safety net that the published ones run under."""

from __future__ import annotations

import math
from collections.abc import Generator

from agent.simulate.long_job.protocol import (
    IDLE,
    ON_DEMAND,
    SPOT,
    Action,
    Attempt,
    LaunchInstance,
    Seen,
    SimulatedJob,
)

Steps = Generator[Action, Attempt | None, None]


def granted(result: Attempt | None) -> bool:
    """Whether an action was."""
    return result is not None and result.ok


class Stepwise:
    """Runs `tick` as a generator: it yields actions and is sent their outcomes.

    With `net`, the net of the published simulator takes over, for good, at the last tick at which a start-up on demand
    still meets the deadline by whole ticks: it moves to on demand where it runs, or where finishing is cheapest.
    """

    #: whether the net is under it
    net = True

    def start(self, job: SimulatedJob) -> None:
        """A new job."""
        self.job = job
        self.caught = False
        self._steps: Steps | None = None
        self.begin()

    def begin(self) -> None:
        """Forget the last job."""

    def tick(self, seen: Seen) -> Steps:
        """What to do in one tick."""
        raise NotImplementedError

    def decide(self, seen: Seen) -> Action | None:
        """The next action of the tick."""
        if seen.tried and self._steps is not None:
            try:
                return self._steps.send(seen.tried[-1])
            except StopIteration:
                return None
        self._steps = self._caught(seen) if self.net and self._catch(seen) else self.tick(seen)
        return next(self._steps, None)

    def whole(self, seconds: float) -> float:
        """Seconds rounded up to whole ticks."""
        return math.ceil(seconds / self.job.tick_s) * self.job.tick_s

    def remaining_s(self, seen: Seen) -> float:
        """Seconds to the deadline in whole ticks."""
        return math.floor((self.job.deadline_s - seen.now_s) / self.job.tick_s) * self.job.tick_s

    def cheapest_finish(self, seen: Seen) -> int:
        """The zone in which the rest costs least on demand, the move included."""
        hours = seen.work_left_s / 3600
        return min(
            range(len(self.job.zones)),
            key=lambda z: (
                seen.on_demand_usd_h[z] * hours + (0.0 if seen.home is None else self.job.egress_usd[seen.home][z])
            ),
        )

    def _catch(self, seen: Seen) -> bool:
        if not self.caught:
            self.caught = self.whole(seen.work_left_s + self.job.startup_s) >= self.remaining_s(seen)
            self._fresh = self.caught
        else:
            self._fresh = False
        return self.caught

    def _caught(self, seen: Seen) -> Steps:
        if seen.mode == IDLE:
            yield LaunchInstance(self.cheapest_finish(seen), ON_DEMAND)
        elif seen.mode == SPOT and self._fresh and seen.zone is not None:
            yield LaunchInstance(seen.zone, ON_DEMAND)
