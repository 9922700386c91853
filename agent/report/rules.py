"""What each rule did over a time, read from the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from agent.ledger import history
from agent.ledger.kinds import ANSWER
from agent.ledger.reader import Reader
from agent.ledger.views import DecidedAt
from agent.model.plans import Decision
from agent.model.snapshot import Group, Snapshot
from agent.planner.plan import ranked_alone


@dataclass(slots=True, kw_only=True)
class RuleDid:
    """One rule's work."""

    rule: str
    #: "" when it did not speak
    verb: str = ""
    #: decisions it spoke in
    decisions: int = 0
    #: tasks placed by those decisions
    placements: int = 0
    #: pool → decisions in which it, first of all tests, kept the tasks from it
    kept_from: Counter[str] = field(default_factory=Counter)
    #: pool → those of them in which that pool would have been the best, the rule apart
    would_be_best: Counter[str] = field(default_factory=Counter)
    #: what a task would have cost less there, summed over those decisions, micro-dollars; below zero: it was better and
    #: dearer
    forgone_usd_micros: int = 0
    #: pool → decisions in which a pool that it prefers was chosen
    preferred: Counter[str] = field(default_factory=Counter)
    #: groups of tasks it asked a person about
    asked: int = 0
    approved: int = 0
    rejected: int = 0
    #: neither yet
    unanswered: int = 0
    #: from question to answer, ms, oldest first
    answer_ms: list[int] = field(default_factory=list)


def did(reader: Reader, since_ms: int, names: Iterable[str] = ()) -> list[RuleDid]:
    """What rules did from an instant on, busiest first, with rules of these names that did nothing at the end.

    The pool that would have been best is found by ranking again, from the snapshot on record, the group's pools
    without the rule; it is what one decision would have been, all else the same.
    """
    made: dict[str, RuleDid] = {name: RuleDid(rule=name) for name in names}
    decided = history.decisions_since(reader, since_ms)
    asked: dict[tuple[str, str], int] = {}
    kept: dict[int, list[tuple[DecidedAt, str]]] = {}
    for row in decided:
        _spoke(made, row.decision)
        for rule in _kept_from(made, row.decision):
            if row.decision.verb != "refuse":
                kept.setdefault(row.seq, []).append((row, rule))
        if row.decision.verb == "ask" and row.decision.asked_by:
            asked.setdefault((row.decision.asked_by, row.decision.group), row.at_ms)
    for decision, tasks in history.placed_since(reader, since_ms).items():
        for word in decision.verdicts:
            _of(made, word.rule).placements += tasks
    for seq, snapshot in history.snapshots(reader, kept):
        for row, rule in kept[seq]:
            _counterfactual(made[rule], row.decision, snapshot)
    _answers(reader, made, asked)
    return sorted(made.values(), key=lambda x: (-x.decisions, x.rule))


def _of(made: dict[str, RuleDid], rule: str) -> RuleDid:
    return made.setdefault(rule, RuleDid(rule=rule))


def _spoke(made: dict[str, RuleDid], said: Decision) -> None:
    for word in said.verdicts:
        entry = _of(made, word.rule)
        entry.verb, entry.decisions = word.verb, entry.decisions + 1
    chosen = next((entry for entry in said.options if entry.pool == said.pool), None)
    for rule in chosen.preferred_by if chosen is not None else ():
        _of(made, rule).preferred[said.pool or ""] += 1


def _kept_from(made: dict[str, RuleDid], said: Decision) -> set[str]:
    """Rules that kept the tasks from a pool, counted."""
    rules = set()
    for entry in said.options:
        if entry.block_rule:
            _of(made, entry.block_rule).kept_from[entry.pool] += 1
            rules.add(entry.block_rule)
    return rules


# ---------------------------------------------------------------------- what would have been
def _counterfactual(entry: RuleDid, said: Decision, snapshot: Snapshot) -> None:
    group = next((group for group in snapshot.groups if group.id == said.group), None)
    if group is None:
        return
    best = _best(replace(group, verdicts=tuple(v for v in group.verdicts if v.rule != entry.rule)), snapshot)
    chosen = next((one for one in said.options if one.pool == said.pool), None)
    kept = {one.pool for one in said.options if one.block_rule == entry.rule}
    if best is None or best.pool not in kept:
        return
    entry.would_be_best[best.pool] += 1
    entry.forgone_usd_micros += chosen.usd_micros - best.usd_micros if chosen is not None else 0


def _best(group: Group, snapshot: Snapshot) -> Any:
    """The best pool of a group by itself, or None when there is none."""
    ranked = ranked_alone(group, snapshot)
    return ranked[0] if ranked and not ranked[0].why_not else None


def _answers(reader: Reader, made: dict[str, RuleDid], asked: dict[tuple[str, str], int]) -> None:
    """The first answer to each question; words that were only carried over are none."""
    answers: dict[str, tuple[str, int, list[str]]] = {}
    first = reader.first_since(min(asked.values(), default=2**62))
    for note in reader.notes((ANSWER,), first - 1) if first is not None else ():
        said = note.body
        if "answer" in said and "carried_from" not in said:
            for group in said["groups"]:
                answers.setdefault(group, (said["answer"], note.at_ms, said.get("rules", [])))
    for (rule, group), at_ms in asked.items():
        entry = _of(made, rule)
        entry.asked += 1
        answer, when, rules = answers.get(group, ("", 0, []))
        if not answer or when < at_ms or rule not in rules:
            entry.unanswered += 1
            continue
        entry.approved += answer == "approve"
        entry.rejected += answer == "reject"
        entry.answer_ms.append(when - at_ms)
