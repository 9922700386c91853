"""One checkpointed job under the planner: the policy that other people's simulators can run.

`from agent.simulate.long_job.policy import policy; p = policy(); p.start(job); p.decide(seen)`, with the shapes of
`protocol`. Only the fields are used, so any classes of these shapes do. Where the module of the job's class has its own
`LaunchInstance`, the answers are of that class, so that a simulator may tell actions apart by type as well as by field.
"""

from __future__ import annotations

import sys
from typing import Any

from agent.planner.long_job.placement import LongJobPlacement
from agent.planner.long_job.setting import LongJobSetting
from agent.planner.long_job.values import LongJobState
from agent.simulate.long_job import protocol
from agent.simulate.long_job.protocol import SPOT, Action, Seen, SimulatedJob


class PlannedPolicy:
    """The planner's placement of a long job, tick by tick."""

    def __init__(self, setting: LongJobSetting | None = None):
        self._setting = setting or LongJobSetting()
        self._placement: LongJobPlacement | None = None

    def start(self, job: SimulatedJob) -> None:
        """A new job; what was learned for the last one is forgotten."""
        theirs = sys.modules.get(type(job).__module__)
        self._launch: Any = getattr(theirs, "LaunchInstance", protocol.LaunchInstance)
        self._deadline_s, self._tick_s = float(job.deadline_s), float(job.tick_s)
        self._last_s: float | None = None
        self._asked = set[int]()
        self._placement = LongJobPlacement(
            startup_h=job.startup_s / 3600,
            tick_h=job.tick_s / 3600,
            egress_usd=job.egress_usd,
            setting=self._setting,
        )

    def decide(self, seen: Seen) -> Action | None:
        """The next launch of this tick, or None."""
        if self._placement is None:
            raise RuntimeError("decide() before start(job)")
        beliefs = self._placement.beliefs
        if not seen.tried:
            if self._last_s is not None:
                beliefs.pass_ticks(round((seen.now_s - self._last_s) / self._tick_s))
            self._last_s = seen.now_s
            self._asked.clear()
            if seen.mode == SPOT and seen.zone is not None:
                beliefs.saw(seen.zone, True)
            if seen.preempted is not None:
                beliefs.saw(seen.preempted, False)
        else:
            action, ok = seen.tried[-1]
            kind = getattr(action, "kind", None)
            if not isinstance(action, protocol.StopInstance) and kind != protocol.ON_DEMAND:
                beliefs.saw(action.zone, bool(ok))
                self._asked.add(action.zone)
            if ok and kind is not None:
                return None
        choice = self._placement.decide(self._state(seen), self._asked)
        if choice is None:
            return None
        zone, what = choice
        asked: Action = self._launch(zone, what)
        return asked

    def shadow_price_usd_h(self, seen: Seen) -> float:
        """USD that an hour of slack is worth now."""
        if self._placement is None:
            raise RuntimeError("shadow_price_usd_h() before start(job)")
        return self._placement.shadow_price_usd_h(self._state(seen))

    def _state(self, seen: Seen) -> LongJobState:
        # whole ticks: a simulator that looks at ticks alone may take the work of the last, partial one for too late
        ticks = int((self._deadline_s - seen.now_s) / self._tick_s + 1e-9)
        return LongJobState(
            work_h=seen.work_left_s / 3600,
            left_h=ticks * self._tick_s / 3600,
            mode="spot" if seen.mode == SPOT else "on_demand" if seen.mode == protocol.ON_DEMAND else "idle",
            zone=seen.zone,
            home=seen.home,
            startup_left_h=seen.startup_left_s / 3600,
            spot_usd_h=tuple(seen.spot_usd_h),
            on_demand_usd_h=tuple(seen.on_demand_usd_h),
        )


def policy() -> PlannedPolicy:
    """A fresh policy with the one setting for every cloud, zone and deadline."""
    return PlannedPolicy()
