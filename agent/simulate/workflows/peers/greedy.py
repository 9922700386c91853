"""Greedy with a safety net: spot while a loss can still be made good on demand, else on demand.

The published rule leaves spot when the remaining time equals the remaining work and one start-up; here a task's
remaining work is its own and the longest path behind it, and what a loss would cost it (all since its checkpoint) is
counted too, or the rule would miss.
"""

from __future__ import annotations

from agent.model.plans import Plan
from agent.model.snapshot import Group, Snapshot
from agent.simulate.workflows.peers.fleet import Choice, PeerFleet


class Greedy:
    """Wait for spot until the latest start."""

    name = "greedy, safety net"

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        spot, on_demand = fleet.by_price("spot"), fleet.by_price("on-demand")

        def choose(group: Group) -> Choice:
            latest = fleet.latest_start_ms(group)
            if latest is None:
                return spot, None
            if snapshot.now_ms + fleet.at_risk_ms(group) + snapshot.policy.margin_ms <= latest:
                return spot, latest - fleet.at_risk_ms(group) - snapshot.policy.margin_ms + 1
            # what is free on spot may not be lost any more
            return (on_demand, None) if snapshot.now_ms >= latest else (on_demand, latest)

        return fleet.plan(choose)
