"""Spot with fallback (Coiled, SkyPilot): spot when it is granted, else on demand; with and without coming back."""

from __future__ import annotations

from agent.model.plans import Plan
from agent.model.snapshot import Snapshot
from agent.simulate.workflows.peers.fleet import PeerFleet


class SpotFallback:
    """Once a run has fallen back it stays on demand, unless it comes back."""

    def __init__(self, comes_back: bool) -> None:
        self.comes_back = comes_back
        self.name = f"spot with fallback, {'coming back' if comes_back else 'staying'}"
        self._fallen: set[str] = set()

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        spot, on_demand = fleet.by_price("spot"), fleet.by_price("on-demand")
        refused = all(fleet.states[name].retry_ms > snapshot.now_ms for name in spot)
        made = fleet.plan(lambda group: (on_demand if group.root_run in self._fallen else [*spot, *on_demand], None))
        if not self.comes_back and refused:
            self._fallen.update(group.root_run for group in snapshot.groups)
        return made
