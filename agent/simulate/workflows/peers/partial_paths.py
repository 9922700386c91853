"""IC-PCP's idea (Abrishami 2013) online: on demand only, a task goes to a worker that is there as long as its latest
finish allows.

The published algorithm assigns whole partial critical paths to the cheapest instance that still meets their latest
finish; with one kind of instance that is: prefer a slot that will be free in time, launch only for what would be late.
"""

from __future__ import annotations

import heapq

from agent.model.plans import Plan
from agent.model.snapshot import Group, Snapshot
from agent.simulate.workflows.peers.fleet import Choice, PeerFleet


class PartialCriticalPaths:
    """As few on-demand workers as the latest finishes allow."""

    name = "IC-PCP, on demand"

    def __call__(self, snapshot: Snapshot) -> Plan:
        """The plan."""
        fleet = PeerFleet(snapshot)
        on_demand = fleet.by_price("on-demand")
        state = fleet.states[on_demand[0]]
        slots = [
            max(snapshot.now_ms, worker.frees_ms or snapshot.now_ms)
            for worker in state.workers
            for _ in range(worker.slots)
        ]
        slots += [s.asked_ms + state.startup_ms for s in state.starting for _ in range(state.pool.slots)]
        heapq.heapify(slots)

        def choose(group: Group) -> Choice:
            latest, run = fleet.latest_start_ms(group), fleet.run_ms(group, on_demand[0])
            if latest is None:
                return on_demand, None
            wait = 0
            while wait < group.ready and slots and slots[0] <= latest:
                heapq.heapreplace(slots, slots[0] + run)
                wait += 1
            return (on_demand if wait < group.ready else []), latest

        def free(group: Group) -> Choice:
            pools, until = choose(group)
            if not pools:
                fits = fleet.rooms[on_demand[0]].tasks(group, 0, group.ready)
                return (on_demand if fits == group.ready else []), until
            return pools, until

        return fleet.plan(free)
