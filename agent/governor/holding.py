"""Why what waits does, by the last plan, and which questions to people are open."""

from __future__ import annotations

from agent.governor.round import Round
from agent.model.approvals import Approval
from agent.model.holds import Hold, hold_of
from agent.state.cluster import ClusterState


def holds_of(state: ClusterState, drawn: Round) -> tuple[dict[str, Hold], list[Approval]]:
    """The holds of a round, by group and reason, and the questions that were opened or closed by it."""
    groups = {group.id: group for group in drawn.snapshot.groups}
    holds: dict[str, Hold] = {}
    changed: list[Approval] = []
    for wait in drawn.plan.waits:
        group, decision, approval = groups[wait.group], drawn.plan.decisions[wait.decision], ""
        if wait.reason == "approval" and decision.pool is not None:
            rules = tuple(verdict.rule for verdict in group.verdicts if verdict.verb == "escalate")
            asked, new = state.approvals.ask(group, decision.pool, rules, drawn.snapshot.now_ms)
            approval = asked.id
            changed += [asked] if new else []
        holds[wait.group + wait.reason] = hold_of(group, wait, decision, approval)
    changed += state.approvals.withdraw(lambda group: group in state.waiting.by_group)
    return holds, changed
