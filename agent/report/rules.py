"""What each rule did over a time, read from the ledger."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import func, select

from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.parts import join, manifest
from agent.ledger.unreadable import decision_of
from agent.model.plans import Decision
from agent.model.records import Record
from agent.model.snapshot import Group, Snapshot
from agent.planner.plan import ranked_alone

logger = logging.getLogger("orc.report")

#: records read at once
_PAGE = 500


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
    #: what a task would have cost less there, summed over those decisions; below zero: it was better and dearer, micro-dollars
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    """A decision with what is needed of its row."""

    id: int
    seq: int
    at_ms: int
    said: Decision


def did(ledger: Ledger, since_ms: int, names: Iterable[str] = ()) -> list[RuleDid]:
    """What rules did from an instant on, busiest first, with rules of these names that did nothing at the end.

    The pool that would have been best is found by ranking again, from the snapshot on record, the group's pools
    without the rule; it is what one decision would have been, all else the same.
    """
    made: dict[str, RuleDid] = {name: RuleDid(rule=name) for name in names}
    decided = _decisions(ledger, since_ms)
    asked: dict[tuple[str, str], int] = {}
    kept: dict[int, list[tuple[_Decided, str]]] = {}
    for row in decided:
        _spoke(made, row.said)
        for rule in _kept_from(made, row.said):
            if row.said.verb != "refuse":
                kept.setdefault(row.seq, []).append((row, rule))
        if row.said.verb == "ask" and row.said.asked_by:
            asked.setdefault((row.said.asked_by, row.said.group), row.at_ms)
    for decision, tasks in _placements(ledger, since_ms).items():
        for word in decision.verdicts:
            _of(made, word.rule).placements += tasks
    for snapshot, seq in _snapshots(ledger, kept):
        for row, rule in kept[seq]:
            _counterfactual(made[rule], row.said, snapshot)
    _answers(ledger, made, asked)
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


def _snapshots(ledger: Ledger, wanted: Mapping[int, object]) -> Iterable[tuple[Snapshot, int]]:
    """The snapshots of some records, put together from their parts in one pass."""
    if not wanted:
        return
    named: Mapping[str, str] = {}
    for record in _records(ledger, _whole_before(ledger, min(wanted)) - 1, max(wanted)):
        said = record.body.get("parts")
        if said is None:
            continue
        named = manifest(named, said)
        if record.seq in wanted and "head" in record.body:
            parts = {name: ledger.decision_body(bytes.fromhex(digest)) for name, digest in named.items()}
            yield join(record.body["head"], parts), record.seq


def _whole_before(ledger: Ledger, seq: int) -> int:
    """The newest record at or before one that lists all parts of its snapshot."""
    at = seq
    while at > 1:
        found = ledger.records(max(0, at - _PAGE), min(_PAGE, at))
        whole = [r.seq for r in found if r.seq <= at and (r.body.get("parts") or {}).get("whole")]
        if whole:
            return whole[-1]
        at -= _PAGE
    return 1


def _records(ledger: Ledger, after: int, last: int) -> Iterable[Record]:
    while after < last:
        found = ledger.records(after, _PAGE)
        if not found:
            return
        for record in found:
            if record.seq > last:
                return
            yield record
        after = found[-1].seq


# ---------------------------------------------------------------------- rows
def _decisions(ledger: Ledger, since_ms: int) -> list[_Decided]:
    d, r = t.decision, t.record
    with ledger.reading() as db:
        joined = d.join(r, (r.c.chain == d.c.chain) & (r.c.seq == d.c.seq))
        query = select(d.c.id, d.c.seq, d.c.body, r.c.at_ms).select_from(joined)
        rows = db.execute(query.where(d.c.chain == ledger.chain, r.c.at_ms >= since_ms).order_by(d.c.id)).all()
    bodies = _bodies(ledger, {row.body: row.id for row in rows})
    return [
        _Decided(id=row.id, seq=row.seq, at_ms=row.at_ms, said=bodies[row.body]) for row in rows if row.body in bodies
    ]


def _placements(ledger: Ledger, since_ms: int) -> dict[Decision, int]:
    """Tasks placed since then, by what was decided, also before."""
    p, d, r = t.placement, t.decision, t.record
    with ledger.reading() as db:
        joined = p.join(r, (r.c.chain == p.c.chain) & (r.c.seq == p.c.seq)).join(
            d, (d.c.chain == p.c.chain) & (d.c.id == p.c.decision)
        )
        query = select(d.c.body, func.max(d.c.id).label("id"), func.count().label("tasks")).select_from(joined)
        rows = db.execute(query.where(p.c.chain == ledger.chain, r.c.at_ms >= since_ms).group_by(d.c.body)).all()
    bodies = _bodies(ledger, {row.body: row.id for row in rows})
    return {bodies[row.body]: row.tasks for row in rows if row.body in bodies}


def _bodies(ledger: Ledger, digests: Mapping[bytes, int]) -> dict[bytes, Decision]:
    """Decisions by the digests of their bodies; one that cannot be read is told, and left out."""
    made = {}
    for digest, id in sorted(digests.items()):
        decision = decision_of(ledger, digest, id)
        if isinstance(decision, Decision):
            made[digest] = decision
        else:
            logger.warning("left out: %s", decision)
    return made


def _said(ledger: Ledger, since_ms: int) -> Iterable[Record]:
    """Records of what people said, from an instant on."""
    r = t.record.c
    with ledger.reading() as db:
        first = db.execute(select(func.min(r.seq)).where(r.chain == ledger.chain, r.at_ms >= since_ms)).scalar()
    after = (first or 0) - 1
    while first is not None and (found := ledger.records(after, _PAGE, "said")):
        yield from found
        after = found[-1].seq


def _answers(ledger: Ledger, made: dict[str, RuleDid], asked: dict[tuple[str, str], int]) -> None:
    """The first answer to each question; words that were only carried over are none."""
    answers: dict[str, tuple[str, int, list[str]]] = {}
    for record in _said(ledger, min(asked.values(), default=2**62)):
        for said in record.body.get("said", ()):
            if "answer" in said and "carried_from" not in said:
                for group in said["groups"]:
                    answers.setdefault(group, (said["answer"], record.at_ms, said.get("rules", [])))
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
