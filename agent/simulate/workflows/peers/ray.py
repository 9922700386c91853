"""Ray's autoscaler score: GPUs kept for those who need them, matching resources, least and mean utilisation; no price.

`ray.autoscaler` rates each node type by (does a CPU task leave GPU nodes alone, how many resource types are used, the
least, the mean utilisation) and takes the highest; ties go by name.
"""

from __future__ import annotations

from agent.model.plans import Plan
from agent.model.snapshot import Group, Snapshot
from agent.planner.feasible import gpus_taken
from agent.simulate.workflows.peers.fleet import Choice, PeerFleet


class Ray:
    """The highest score; what has refused just now comes last."""

    name = "Ray's scorer"

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)

        def choose(group: Group) -> Choice:
            rated = []
            for name, state in fleet.states.items():
                pool, gpus = state.pool, gpus_taken(group, state.pool)
                tasks = max(1, min(pool.slots, group.ready))
                used = [min(1.0, tasks * group.needs.cpus / pool.cpus)]
                if group.needs.memory_mib:
                    used.append(min(1.0, tasks * group.needs.memory_mib / pool.memory_mib))
                if pool.gpus:
                    used.append(min(1.0, tasks * gpus / pool.gpus))
                fits = bool(gpus) or not pool.gpus
                matching = sum(value > 0 for value in used)
                rated.append(
                    (state.retry_ms > snapshot.now_ms, not fits, -matching, -min(used), -sum(used) / len(used), name)
                )
            return [row[-1] for row in sorted(rated)], None

        return fleet.plan(choose)
