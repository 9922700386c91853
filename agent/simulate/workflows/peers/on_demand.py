"""Everything on demand, by upward rank (HEFT's order on as many workers as it takes)."""

from __future__ import annotations

from agent.model.plans import Plan
from agent.model.snapshot import Snapshot
from agent.simulate.workflows.peers.fleet import PeerFleet


class AllOnDemand:
    """The cheapest on-demand pool."""

    name = "on-demand"

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        return fleet.plan(lambda group: (fleet.by_price("on-demand"), None))
