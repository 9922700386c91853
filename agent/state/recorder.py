"""What goes on record of a plan: decisions that say something new, the runs they are of,
and where tasks were placed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from agent.model.plans import Decision
from agent.model.records import Decided, Entry, FlowRun, Placed
from agent.state.task_specs import TaskSpec
from agent.state.tasks import ReadyTask

#: decisions kept in memory, and groups whose last one is known
KEPT = 5_000


class Recorder:
    """Numbers decisions, placements and runs. What a draft numbers counts once its entry is on record."""

    def __init__(self) -> None:
        self.next_decision = self.next_placement = self.next_run = 1
        #: flow run → its number
        self.runs: dict[str, int] = {}
        #: the newest decisions, by number
        self.decisions: dict[int, Decision] = {}
        #: group, verb and pool → what was decided last, and its number
        self._last: dict[tuple[str, str], tuple[Any, int]] = {}

    def draft(self, entry: Entry, specs: Iterable[TaskSpec]) -> RecorderDraft:
        """Enter a plan's decisions and placements, to be kept or dropped with the entry."""
        return RecorderDraft(self, entry, specs)

    def last(self, about: tuple[str, str]) -> tuple[Any, int] | None:
        """What was decided last about a group, a verb and a pool, and its number."""
        return self._last.get(about)

    def keep(self, draft: RecorderDraft) -> None:
        """The draft's entry is on record."""
        self.next_decision, self.next_placement = draft.next_decision, draft.next_placement
        self.next_run = draft.next_run
        self.runs.update(draft.runs)
        self._last.update(draft.last)
        self.decisions.update((decided.id, decided.decision) for decided in draft.entry.decisions)
        if len(self._last) > KEPT:
            self._last.clear()
        while len(self.decisions) > KEPT:
            self.decisions.pop(next(iter(self.decisions)))


class RecorderDraft:
    """The numbers of one entry."""

    def __init__(self, recorder: Recorder, entry: Entry, specs: Iterable[TaskSpec]) -> None:
        self.entry = entry
        self.next_decision, self.next_placement = recorder.next_decision, recorder.next_placement
        self.next_run = recorder.next_run
        self.runs: dict[str, int] = {}
        self.last: dict[tuple[str, str], tuple[Any, int]] = {}
        self._recorder, self._specs = recorder, specs

    def decided(self, decision: Decision, team: str) -> int:
        """The number of a decision about a team's work; one that says the same as the group's last keeps its number."""
        about = (decision.group, f"{decision.verb}/{decision.pool}")
        signature = _signature(decision)
        known = self.last.get(about) or self._recorder.last(about)
        if known is not None and known[0] == signature:
            return int(known[1])
        number, self.next_decision = self.next_decision, self.next_decision + 1
        self.last[about] = (signature, number)
        self.entry.decisions.append(Decided(id=number, run=self._run(decision), team=team, decision=decision))
        return number

    def placed(self, decision: int, task: ReadyTask, budget: str | None = None, reserve_usd_micros: int = 0) -> int:
        """The number of a new placement.

        Args:
            decision: the number of the decision it follows from.
            budget: of which so much is reserved for the task.
        """
        number, self.next_placement = self.next_placement, self.next_placement + 1
        self.entry.placements.append(
            Placed(
                id=number,
                decision=decision,
                key=str(task.key),
                upstream=task.upstream,
                budget=budget,
                reserve_usd_micros=reserve_usd_micros,
            )
        )
        return number

    def _run(self, decision: Decision) -> int:
        number = self.runs.get(decision.flow_run) or self._recorder.runs.get(decision.flow_run)
        if number is None:
            spec = next((s for s in self._specs if s.flow_run == decision.flow_run), None)
            number, self.next_run = self.next_run, self.next_run + 1
            self.runs[decision.flow_run] = number
            self.entry.runs.append(
                FlowRun(
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


def _signature(decision: Decision) -> Any:
    """What makes a decision another than the last: rules, people, pools, and scores by more than a step."""
    return (
        decision.verdicts,
        decision.approved_by,
        decision.overridden,
        tuple(
            (o.pool, o.why_not, o.estimate.source if o.estimate else "", round(4 * math.log2(o.score_usd_micros + 1)))
            for o in decision.options
        ),
    )
