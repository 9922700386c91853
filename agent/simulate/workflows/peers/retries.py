"""Spot with retries: spot only, again after each loss, for as long as it takes."""

from __future__ import annotations

from agent.model.plans import Plan
from agent.model.snapshot import Snapshot
from agent.simulate.workflows.peers.fleet import PeerFleet


class SpotRetries:
    """The cheapest spot pool that gives workers."""

    name = "spot with retries"

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        return fleet.plan(lambda group: (fleet.by_price("spot"), None))


class FlyteInterruptible:
    """Flyte's interruptible tasks: the first attempts on spot, the last on demand."""

    name = "Flyte interruptible"

    def __init__(self, attempts: int = 4) -> None:
        self.attempts = attempts

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        return fleet.plan(
            lambda group: (
                fleet.by_price("spot" if group.preemptions + group.losses < self.attempts - 1 else "on-demand"),
                None,
            )
        )
