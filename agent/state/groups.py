"""Tasks that are told apart for a plan: what they say, what befell them, and what people said of them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from agent.model.codec import digest, encode
from agent.model.needs import Needs
from agent.model.snapshot import Group
from agent.model.verdicts import Verdict
from agent.state import task_specs as specs
from agent.state.statistics import Statistics
from agent.state.task_specs import Facts, Spec

Judge = Callable[[Facts], tuple[Verdict, ...]]

#: groups kept in memory before those of no task are forgotten
GROUPS_KEPT = 20_000


@dataclass(slots=True)
class Task:
    """A task that is ready and not bound."""

    key: Any
    spec: int
    input_mib: int
    since_ms: int
    #: placements whose results it takes in, as the ledger stores them
    upstream: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a checkpoint keeps of a task that was interrupted."""

    done_ms: int
    pool: str
    mib: int


@dataclass(slots=True)
class Word:
    """What people said about a group: approvals and overrides."""

    approved: tuple[str, ...] = ()
    approved_pools: tuple[str, ...] = ()
    approved_by: str | None = None
    approved_usd_micros: int | None = None
    rejected_by: str | None = None
    override: str | None = None


class Groups:
    """Groups by name: a digest of all that a plan may tell tasks apart by."""

    def __init__(self, judge: Judge, rules_facts: frozenset[str], statistics: Statistics, largest_mib: int) -> None:
        """Begin without a group.

        Args:
            largest_mib: memory of the largest pool's workers.
        """
        self.judge, self.rules_facts = judge, rules_facts
        self.known: dict[str, Group] = {}
        self.words: dict[str, Word] = {}
        self._statistics, self._largest_mib = statistics, largest_mib
        self._cache: dict[Any, str] = {}

    def judge_by(self, judge: Judge, rules_facts: frozenset[str]) -> None:
        """Other rules are in force."""
        self.judge, self.rules_facts = judge, rules_facts
        self._cache = {}

    def of(
        self,
        task: Task,
        spec: Spec,
        losses: tuple[int, int],
        kept: Kept | None,
        tail_ms: int,
        now_ms: int,
        used: Callable[[], Iterable[str]],
    ) -> str:
        """The name of the group a task belongs to.

        Args:
            losses: the task's preemptions, and its other losses.
            tail_ms: the longest path behind it.
            used: names of the groups that have tasks, asked for when there are very many.
        """
        preemptions, lost = losses
        starved = self._statistics.starved_mib.get(spec.task_class, 0)
        key = (task.spec, task.input_mib, preemptions, lost, self.hour(now_ms), tail_ms, kept, starved)
        found = self._cache.get(key)
        if found is None:
            self._forget(used)
            facts = specs.facts(spec, task.input_mib, preemptions, lost, now_ms)
            verdicts = self.judge(facts)
            base = Group(
                id="",
                task_class=spec.task_class,
                name=spec.name,
                needs=self._fed(spec.needs, starved),
                starved_mib=starved,
                chunk=spec.chunk,
                root_run=spec.root_run,
                flow_run=spec.flow_run,
                team=spec.team,
                ready=0,
                since_ms=0,
                verdicts=verdicts,
                deadline_ms=spec.deadline_ms,
                preemptions=preemptions,
                losses=lost,
                tail_ms=tail_ms,
                done_ms=kept.done_ms if kept else 0,
                checkpoint_pool=kept.pool if kept else "",
                checkpoint_mib=kept.mib if kept else 0,
            )
            found = digest(encode([base, task.input_mib, spec.error]))[:16]
            self._cache[key] = found
            self.known[found] = replace(base, id=found)
        return found

    def now(self, name: str, tasks: list[Task]) -> Group:
        """A group with these tasks, and with what people said of it."""
        base, word = self.known[name], self.words.get(name, Word())
        return replace(
            base,
            ready=len(tasks),
            since_ms=tasks[0].since_ms,
            tail_ms=base.tail_ms or round(self._statistics.tails.get(base.task_class, 0.0)),
            override=word.override,
            approved=word.approved,
            approved_pools=word.approved_pools,
            approved_by=word.approved_by,
            approved_usd_micros=word.approved_usd_micros,
            rejected_by=word.rejected_by,
        )

    def hour(self, now_ms: int) -> int:
        """The hour since 1970, when a rule reads the time; else 0."""
        return now_ms // 3_600_000 if self.rules_facts & {"hour", "weekday"} else 0

    def _fed(self, needs: Needs, starved_mib: int) -> Needs:
        """Needs with twice the memory that was too little, or the largest worker's where that is less."""
        if not starved_mib or (needs.memory_mib or 0) > starved_mib:
            return needs
        largest = self._largest_mib
        return replace(needs, memory_mib=min(2 * starved_mib, largest) if largest > starved_mib else 2 * starved_mib)

    def _forget(self, used: Callable[[], Iterable[str]]) -> None:
        """Groups of runs that are long over, when there are very many."""
        if len(self.known) < GROUPS_KEPT:
            return
        kept = set(used())
        self._cache = {key: group for key, group in self._cache.items() if group in kept}
        self.known = {id: group for id, group in self.known.items() if id in kept}
        self.words = {id: word for id, word in self.words.items() if id in kept}
