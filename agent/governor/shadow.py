"""Shadow mode: tasks that run where Dask put them are planned as if they were held; it is recorded, and nothing is
done.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.governor import round as rounds
from agent.governor.journal import Journal
from agent.model.effects import Effect
from agent.model.records import Entry
from agent.model.snapshot import Policy
from agent.planner.plan import plan
from agent.state import events
from agent.state import snapshot as snapshots
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder
from agent.state.tasks import BoundTask


async def shadow_round(
    state: ClusterState, recorder: Recorder, journal: Journal, policy: Policy, rules_digest: str, now_ms: int
) -> Sequence[Effect]:
    """Plan what Dask has placed since the last time; what the ends ask for that were heard of already."""
    tasks = state.shadow_groups(now_ms)
    groups = [state.groups.now(name, [task for task, _ in found]) for name, found in sorted(tasks.items())]
    snapshot = snapshots.take(state, now_ms, policy, groups, rules_digest=rules_digest)
    made = plan(snapshot)
    entry = Entry(kind="round", at_ms=now_ms, mode="shadow")
    rounds.enter_snapshot(entry, snapshot, made)
    draft = recorder.draft(entry, reversed(state.specs))
    placed = []
    for group in groups:
        decision = next(d for d in made.decisions if d.group == group.id)
        number, pool = draft.decided(decision, group.team), decision.pool or ""
        price = state.fleet.price(pool, now_ms)
        placed += [
            BoundTask(task, draft.placed(number, task), group.id, pool, address, now_ms, 0, price)
            for task, address in tasks[group.id]
        ]
    await journal.commit(entry)
    recorder.keep(draft)
    effects: list[Effect] = []
    for bound in placed:
        state.sent(bound)
        if (ended := state.shadow_ended.pop(bound.task.key, None)) is not None:
            # a short task is over before a busy governor has heard of it
            effects += events.apply(state, ended, now_ms)
    return effects
