"""Tasks that are told apart for a plan: what they say, what befell them, and what people said of them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from agent.model.codec import digest, encode
from agent.model.needs import Needs
from agent.model.snapshot import Group
from agent.model.verdicts import Verdict
from agent.state import task_specs as specs
from agent.state.approvals import Answers
from agent.state.statistics import Statistics
from agent.state.task_specs import Facts, TaskSpec
from agent.state.tasks import ReadyTask, TaskPast

Judge = Callable[[Facts], tuple[Verdict, ...]]

#: groups kept in memory before those of no task are forgotten
GROUPS_KEPT = 20_000


class PlacementGroups:
    """Groups by name: a digest of all that a plan may tell tasks apart by."""

    def __init__(self, judge: Judge, rules_facts: frozenset[str], statistics: Statistics, largest_mib: int) -> None:
        """Begin without a group.

        Args:
            largest_mib: memory of the largest pool's workers.
        """
        self.judge, self.rules_facts = judge, rules_facts
        self.known: dict[str, Group] = {}
        self.answers: dict[str, Answers] = {}
        self._statistics, self._largest_mib = statistics, largest_mib
        self._cache: dict[Any, str] = {}

    def judge_by(self, judge: Judge, rules_facts: frozenset[str]) -> None:
        """Other rules are in force."""
        self.judge, self.rules_facts = judge, rules_facts
        self._cache = {}

    def of(
        self, task: ReadyTask, spec: TaskSpec, past: TaskPast, now_ms: int, used: Callable[[], Iterable[str]]
    ) -> str:
        """The name of the group a task belongs to.

        Args:
            used: names of the groups that have tasks, asked for when there are very many.
        """
        oom_mib = self._statistics.oom_mib.get(spec.task_class, 0)
        urgency = _magnitude(task.dask_priority)
        key = (task.spec, task.input_mib, urgency, past, self.hour(now_ms), oom_mib)
        found = self._cache.get(key)
        if found is None:
            self._forget(used)
            facts = specs.facts(spec, task.input_mib, past.preemptions, past.losses, now_ms)
            verdicts = self.judge(facts)
            base = Group(
                id="",
                task_class=spec.task_class,
                name=spec.name,
                needs=self._with_memory(spec.needs, oom_mib),
                starved_mib=oom_mib,
                chunk=spec.chunk,
                root_run=spec.root_run,
                flow_run=spec.flow_run,
                team=spec.team,
                dask_priority=urgency,
                ready=0,
                since_ms=0,
                verdicts=verdicts,
                deadline_ms=spec.deadline_ms,
                preemptions=past.preemptions,
                losses=past.losses,
                tail_ms=past.tail_ms,
                done_ms=past.saved.done_ms if past.saved else 0,
                checkpoint_pool=past.saved.pool if past.saved else "",
                checkpoint_mib=past.saved.mib if past.saved else 0,
            )
            found = digest(encode([base, task.input_mib, spec.error]))[:16]
            self._cache[key] = found
            self.known[found] = replace(base, id=found)
        return found

    def now(self, name: str, tasks: Sequence[ReadyTask]) -> Group:
        """A group with these tasks, and with what people said of it."""
        base, said = self.known[name], self.answers.get(name, Answers())
        return replace(
            base,
            ready=len(tasks),
            since_ms=tasks[0].since_ms,
            dask_priority=max(task.dask_priority for task in tasks) if base.dask_priority else 0,
            tail_ms=base.tail_ms or round(self._statistics.tails.get(base.task_class, 0.0)),
            override=said.override,
            approved=said.approved,
            approved_pools=said.approved_pools,
            approved_by=said.approved_by,
            approved_usd_micros=said.approved_usd_micros,
            rejected_by=said.rejected_by,
        )

    def hour(self, now_ms: int) -> int:
        """The hour since 1970, when a rule reads the time; else 0."""
        return now_ms // 3_600_000 if self.rules_facts & {"hour", "weekday"} else 0

    def _with_memory(self, needs: Needs, oom_mib: int) -> Needs:
        """Needs with twice the memory that was too little, or the largest worker's where that is less."""
        if not oom_mib or (needs.memory_mib or 0) > oom_mib:
            return needs
        largest = self._largest_mib
        return replace(needs, memory_mib=min(2 * oom_mib, largest) if largest > oom_mib else 2 * oom_mib)

    def _forget(self, used: Callable[[], Iterable[str]]) -> None:
        """Groups of runs that are long over, when there are very many."""
        if len(self.known) < GROUPS_KEPT:
            return
        kept = set(used())
        self._cache = {key: group for key, group in self._cache.items() if group in kept}
        self.known = {name: group for name, group in self.known.items() if name in kept}
        self.answers = {name: said for name, said in self.answers.items() if name in kept}


def _magnitude(dask_priority: int) -> int:
    """Dask's priority as far as groups are told apart by it: by powers of two,
    or each of a thousand would be a group.
    """
    size = abs(dask_priority).bit_length()
    return size if dask_priority > 0 else -size
