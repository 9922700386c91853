"""`plan(snapshot)`: what every waiting group does now, and which workers are launched and ended. Pure."""

from __future__ import annotations

from agent.model.plans import Option, Plan
from agent.model.snapshot import Group, Snapshot
from agent.planner.draft import Draft
from agent.planner.fair_share import FairShare, rank
from agent.planner.fleet import fleet, wanted
from agent.planner.moving import keep_slots, move
from agent.planner.placing import in_turns, place
from agent.planner.slack import Urgency

#: raised whenever the same snapshot would give another plan
VERSION = "10"


def plan(snapshot: Snapshot) -> Plan:
    """The plan for a snapshot: the same snapshot gives the same plan, whatever the order of its pools and groups.

    Groups are taken by priority class, then by Dask's own priority, then by slack, then by age; teams and runs that
    wait side by side take turns. Each group's tasks go, batch by batch, to the pool that is best for them at that
    moment; a pool without room competes with the wait it means, so a cheap full pool wins over a dear empty one until
    the queue gets too long.
    """
    draft = Draft(snapshot)
    urgent = draft.urgencies = {group.id: draft.urgency(group) for group in snapshot.groups}

    def ranked(group: Group) -> int:
        return rank(group, snapshot.policy, snapshot.now_ms)

    waiting = sorted(
        snapshot.groups, key=lambda g: (ranked(g), -g.dask_priority, _slack(urgent[g.id]), g.since_ms, g.id)
    )
    keep_slots(draft)
    if len({(group.team, group.root_run) for group in waiting}) > 1:
        in_turns(draft, FairShare(waiting, snapshot.usage, snapshot.policy, ranked))
    else:
        for group in waiting:
            place(draft, group, group.ready)
    move(draft)
    fleet(draft)
    wanted(draft)
    return draft.plan()


def ranked_alone(group: Group, snapshot: Snapshot) -> list[Option]:
    """Every pool for a group as if it were the only one, best first, the infeasible last."""
    draft = Draft(snapshot)
    return draft.ranked(group, max(1, group.ready), draft.urgency(group))


def _slack(urgent: Urgency) -> int:
    return 2**62 if urgent.slack_ms is None else urgent.slack_ms
