"""What goes on record of a plan: decisions that say something new, the runs they are of, and why tasks wait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from agent.model.plans import Decision, Wait
from agent.model.records import Decided, Entry, Placed, Run
from agent.model.snapshot import Group
from agent.state.cluster import ClusterState
from agent.state.groups import Task

#: decisions kept in memory, and groups whose last one is known
KEPT = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Why tasks of a group wait: the one answer to "why is it not running?"."""

    group: str
    name: str
    task_class: str
    root_run: str
    flow_run: str
    count: int
    reason: str
    why: str
    release: str
    since_ms: int
    #: the pool it waits for, or a person is asked about
    pool: str


class Recorder:
    """Numbers decisions, placements and runs as they are entered."""

    def __init__(self, view: ClusterState) -> None:
        self.state = view
        self.next_decision = self.next_placement = self.next_run = 1
        #: flow run → its number
        self.runs: dict[str, int] = {}
        self.decisions: dict[int, Decision] = {}
        self._last: dict[tuple[str, str], tuple[Any, int]] = {}

    def decided(self, decision: Decision, entry: Entry) -> int:
        """The number of a decision; one that says the same as the group's last keeps its number."""
        about = (decision.group, f"{decision.verb}/{decision.pool}")
        signature = (
            decision.verdicts,
            decision.approved_by,
            decision.overridden,
            tuple(
                (
                    o.pool,
                    o.why_not,
                    o.estimate.source if o.estimate else "",
                    round(4 * math.log2(o.score_usd_micros + 1)),
                )
                for o in decision.options
            ),
        )
        known = self._last.get(about)
        if known is not None and known[0] == signature:
            return int(known[1])
        number: int = self.next_decision
        self.next_decision += 1
        self._last[about] = (signature, number)
        self.decisions[number] = decision
        run = self._run(decision, entry)
        group = self.state.groups.known.get(decision.group)
        team = group.team if group is not None else ""
        entry.decisions.append(Decided(id=number, run=run, team=team, decision=decision))
        self.state.tally.decisions[decision.verb, decision.pool or ""] += 1
        if len(self._last) > KEPT:
            self._last.clear()
        if len(self.decisions) > KEPT:
            self.decisions.pop(next(iter(self.decisions)))
        return number

    def placed(
        self, decision: int, task: Task, entry: Entry, budget: str | None = None, reserve_usd_micros: int = 0
    ) -> int:
        """The number of a new placement.

        Args:
            decision: the number of the decision it follows from.
            budget: of which so much is reserved for the task.
        """
        number, self.next_placement = self.next_placement, self.next_placement + 1
        entry.placements.append(
            Placed(
                id=number, decision=decision, key=str(task.key), upstream=task.upstream, budget=budget, reserve_usd_micros=reserve_usd_micros,
            )
        )  # fmt: skip
        return number

    def _run(self, decision: Decision, entry: Entry) -> int:
        number = self.runs.get(decision.flow_run)
        if number is None:
            spec = next((s for s in reversed(self.state.specs) if s.flow_run == decision.flow_run), None)
            number, self.next_run = self.next_run, self.next_run + 1
            self.runs[decision.flow_run] = number
            entry.runs.append(
                Run(
                    no=number,
                    flow_run=decision.flow_run,
                    root_run=decision.root_run,
                    flow=spec.flow if spec else "",
                    deployment=spec.deployment if spec else "",
                    team=spec.team if spec else "",
                    trace=spec.trace if spec else "",
                )
            )
        return number


def held(group: Group, wait: Wait, decision: Decision) -> Held:
    """Why tasks of a group wait, as a plan says it."""
    return Held(
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
    )
