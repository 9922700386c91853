"""One checkpointed job over zones that sell spot and on-demand instances, tick by tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import SimulationError
from agent.simulate.long_job.protocol import (
    IDLE,
    ON_DEMAND,
    SPOT,
    Attempt,
    LaunchInstance,
    LongJobPolicy,
    ProbeZone,
    Seen,
    SimulatedJob,
    StopInstance,
)
from agent.simulate.long_job.trace import ZoneTrace, horizon

#: a policy that asks more often than this within a tick never settles
MOST_ACTIONS = 1000
#: seconds of work that count as none
DONE_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class LongJobOutcome:
    """What a run cost and how it went."""

    #: all of it, without the tick in which the job ended
    cost_usd: float
    #: of it, moving checkpoints between regions
    egress_usd: float
    #: of it, granted probes
    probe_usd: float
    #: seconds from the start to the end of the work; None when it missed its deadline
    finished_s: float | None
    #: granted launches, the moves among them
    launches: int
    #: launches in another zone than the checkpoint's
    moves: int
    #: spot instances lost
    preemptions: int
    #: hours billed on spot
    spot_h: float
    #: hours billed on demand
    on_demand_h: float

    @property
    def missed(self) -> bool:
        """The work was not done by the deadline."""
        return self.finished_s is None


def run(policy: LongJobPolicy, traces: Sequence[ZoneTrace], job: SimulatedJob, start: int = 0) -> LongJobOutcome:  # noqa: C901
    """One run from sample `start` of the traces.

    A decision each tick, any number of attempts in it. A refused launch costs nothing; a granted probe costs
    `probe_s` of spot; an instance is billed by the whole tick, its start-up makes no progress, at each launch and move;
    progress survives a loss; a move between regions pays egress; on demand is always granted. A spot instance is lost
    at a tick whose sample says unavailable. The tick in which the job ends is not billed (as published). Nothing here
    keeps the deadline for the policy.

    Raises TraceError when the traces are too short, SimulationError when the policy asks for what there is not.
    """
    ticks, tick_h = horizon(traces, job, start), job.tick_s / 3600
    up = [t.available[start : start + ticks].tolist() for t in traces]
    spot = list(zip(*(t.spot_usd_h[start : start + ticks].tolist() for t in traces), strict=True))
    on_demand = tuple(t.on_demand_usd_h for t in traces)
    work, startup, mode = job.work_s, 0.0, IDLE
    zone: int | None = None
    home: int | None = None
    cost = egress = probes = spot_h = on_demand_h = 0.0
    launches = moves = preemptions = 0
    policy.start(job)
    for k in range(ticks):
        now, lost = k * job.tick_s, None
        if mode == SPOT and zone is not None and not up[zone][k]:
            lost, zone, mode, startup = zone, None, IDLE, 0.0
            preemptions += 1
        seen = Seen(now, work, mode, zone, home, startup, lost, spot[k], on_demand)
        launched, probed, tick_probes = False, set[int](), 0.0
        while (action := policy.decide(seen)) is not None:
            if len(seen.tried) >= MOST_ACTIONS:
                raise SimulationError(f"at {now:g} s the policy asked {MOST_ACTIONS} times without settling")
            ok = True
            if isinstance(action, StopInstance):
                zone, mode, startup, launched = None, IDLE, 0.0, False
            elif not isinstance(action, LaunchInstance | ProbeZone) or not 0 <= action.zone < len(traces):
                raise SimulationError(f"at {now:g} s the policy asked for {action!r}; {len(traces)} zones are there")
            elif isinstance(action, ProbeZone):
                ok = up[action.zone][k]
                if ok and action.zone not in probed:
                    probed.add(action.zone)
                    tick_probes += spot[k][action.zone] * job.probe_s / 3600
            elif action.kind not in (SPOT, ON_DEMAND):
                raise SimulationError(f"at {now:g} s the policy asked for {action!r}; spot or on_demand is wanted")
            else:
                ok = action.kind == ON_DEMAND or up[action.zone][k]
                if ok and (action.zone, action.kind) != (zone, mode):
                    zone, mode, startup, launched = action.zone, action.kind, job.startup_s, True
                    launches += 1
            seen.tried.append(Attempt(action, ok))
            seen.mode, seen.zone, seen.startup_left_s = mode, zone, startup
        if launched and zone is not None and home is not None and home != zone:
            moves += 1
            egress += job.egress_usd[home][zone]
        if zone is not None:
            home = zone
            progress = min(work, max(0.0, job.tick_s - startup))
            if work - progress <= DONE_S:
                end = now + startup + work
                if end > job.deadline_s + DONE_S:
                    break
                return LongJobOutcome(
                    cost_usd=cost + egress + probes, egress_usd=egress, probe_usd=probes, finished_s=end,
                    launches=launches, moves=moves, preemptions=preemptions, spot_h=spot_h, on_demand_h=on_demand_h,
                )  # fmt: skip
            work -= progress
            startup = max(0.0, startup - job.tick_s)
            cost += (spot[k][zone] if mode == SPOT else on_demand[zone]) * tick_h
            spot_h += tick_h if mode == SPOT else 0.0
            on_demand_h += tick_h if mode == ON_DEMAND else 0.0
        probes += tick_probes
    return LongJobOutcome(
        cost_usd=cost + egress + probes, egress_usd=egress, probe_usd=probes, finished_s=None,
        launches=launches, moves=moves, preemptions=preemptions, spot_h=spot_h, on_demand_h=on_demand_h,
    )  # fmt: skip
