"""Uniform Progress (Can't Be Late, NSDI'24) over a graph: per run, and with a deadline for each task."""

from __future__ import annotations

from agent.model.plans import Plan
from agent.model.snapshot import Group, Snapshot
from agent.simulate.workflows.peers.fleet import Choice, PeerFleet


class UniformProgress:
    """Progress along the longest path against the straight line from the run's first sight to its deadline.

    Behind the line and without spot: on demand. Spot when it is there. Safety net: R(t) < C(t) + 2d. A task that was
    started on demand stays there to its end, since it has no checkpoint to move.
    """

    name = "Uniform Progress, per run"

    def __init__(self) -> None:
        self._began: dict[str, tuple[int, int]] = {}

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        spot, on_demand = fleet.by_price("spot"), fleet.by_price("on-demand")
        paths = {run.root_run: run.path_ms for run in snapshot.runs}
        for run in snapshot.runs:
            self._began.setdefault(run.root_run, (snapshot.now_ms, run.path_ms))

        def choose(group: Group) -> Choice:
            latest = fleet.latest_start_ms(group)
            if latest is None or group.deadline_ms is None:
                return spot, None
            if snapshot.now_ms + fleet.at_risk_ms(group) + fleet.startup_ms() > latest:
                return on_demand, None
            began, path = self._began[group.root_run]
            line = path * (snapshot.now_ms - began) / max(1, group.deadline_ms - began)
            behind = path - paths[group.root_run] < line
            return ([*spot, *on_demand] if behind else spot), latest - fleet.at_risk_ms(group) - fleet.startup_ms() + 1

        return fleet.plan(choose)


class UniformTaskDeadlines:
    """The run's time is spread over the path in proportion; each task waits for spot until its own deadline's last
    start.
    """

    name = "Uniform Progress, per task"

    def __init__(self) -> None:
        self._began: dict[str, tuple[int, int]] = {}

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        spot, on_demand = fleet.by_price("spot"), fleet.by_price("on-demand")
        for run in snapshot.runs:
            self._began.setdefault(run.root_run, (snapshot.now_ms, run.path_ms))

        def choose(group: Group) -> Choice:
            latest = fleet.latest_start_ms(group)
            if latest is None or group.deadline_ms is None:
                return spot, None
            risk, double = fleet.at_risk_ms(group), 2 * fleet.startup_ms()
            if snapshot.now_ms + risk + fleet.startup_ms() > latest:
                return on_demand, None
            began, path = self._began[group.root_run]
            run = min(fleet.run_ms(group, pool) for pool in on_demand)
            own = group.deadline_ms - round(group.tail_ms * (group.deadline_ms - began) / max(1, path))
            last = own - run - double
            if snapshot.now_ms < last:
                return spot, last
            return [*spot, *on_demand], latest - risk - fleet.startup_ms() + 1

        return fleet.plan(choose)
