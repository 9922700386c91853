"""Why tasks wait: the one answer to "why is it not running?"."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.plans import Decision, HoldReason, Wait
from agent.model.snapshot import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Tasks of a group that wait for the same thing."""

    group: str
    name: str
    task_class: str
    root_run: str
    flow_run: str
    count: int
    reason: HoldReason
    why: str
    release: str
    since_ms: int
    #: the pool it waits for, or a person is asked about
    pool: str
    #: the open question to a person; ""
    approval: str = ""


def hold_of(group: Group, wait: Wait, decision: Decision, approval: str = "") -> Hold:
    """Why tasks of a group wait, as a plan says it."""
    return Hold(
        group=group.id,
        name=group.name,
        task_class=group.task_class,
        root_run=group.root_run,
        flow_run=group.flow_run,
        count=wait.count,
        reason=wait.reason,
        why=wait.why,
        release=wait.release,
        since_ms=group.since_ms,
        pool=decision.pool or "",
        approval=approval,
    )
