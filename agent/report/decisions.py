"""Decisions as they stand in the ledger, found by task, by run, or the newest; one that cannot be read says so."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from agent.errors import LedgerPartError
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.unreadable import UNREADABLE, why
from agent.model import stored_decisions
from agent.model.plans import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """A decision with its number and its time."""

    id: int
    at_ms: int
    #: None when its body cannot be read
    decision: Decision | None
    #: why not, and where it stands; "" when it can
    unreadable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementLine:
    """One task sent to a pool, and what became of it so far."""

    id: int
    key: str
    decision: int
    #: "running" until its outcome is on record
    result: str
    run_ms: int


def newest(ledger: Ledger, most: int) -> list[RecordedDecision]:
    """The newest decisions, oldest of them first."""
    d = t.decision
    with ledger.reading() as db:
        query = select(d.c.id).where(d.c.chain == ledger.chain).order_by(d.c.id.desc()).limit(most)
        ids = [row.id for row in db.execute(query)]
    return read(ledger, ids)


def of_run(ledger: Ledger, run: str, most: int) -> list[RecordedDecision]:
    """The newest decisions of flow runs whose id, or whose root run's id, begins so."""
    d, r = t.decision, t.run
    joined = d.join(r, (r.c.chain == d.c.chain) & (r.c.no == d.c.run))
    begins = r.c.flow_run.startswith(run, autoescape=True) | r.c.root_run.startswith(run, autoescape=True)
    with ledger.reading() as db:
        query = select(d.c.id).select_from(joined).where(d.c.chain == ledger.chain, begins)
        ids = [row.id for row in db.execute(query.order_by(d.c.id.desc()).limit(most))]
    return read(ledger, ids)


def run_named(ledger: Ledger, beginning: str) -> str:
    """The flow run whose id begins so, where it is the only one; else what was given. Four characters at least."""
    if len(beginning) < 4:
        return beginning
    found: set[str] = set()
    with ledger.reading() as db:
        for column in (t.run.c.flow_run, t.run.c.root_run):
            begins = column.startswith(beginning, autoescape=True)
            found.update(db.execute(select(column).where(t.run.c.chain == ledger.chain, begins).distinct()).scalars())
    return found.pop() if len(found) == 1 else beginning


def placements(ledger: Ledger, task: str) -> list[PlacementLine]:
    """Placements of tasks whose key has this in it: an id of a task run, with or without its dashes, or a Dask key."""
    p, o = t.placement, t.outcome
    joined = p.outerjoin(o, (o.c.chain == p.c.chain) & (o.c.placement == p.c.id))
    wanted = p.c.key.contains(task.replace("-", ""), autoescape=True) | p.c.key.contains(task, autoescape=True)
    query = select(p.c.id, p.c.key, p.c.decision, o.c.result, o.c.run_ms).select_from(joined)
    with ledger.reading() as db:
        rows = db.execute(query.where(p.c.chain == ledger.chain, wanted).order_by(p.c.id)).all()
    return [
        PlacementLine(
            id=row.id,
            key=row.key,
            decision=row.decision,
            result="running" if row.result is None else t.RESULTS[row.result],
            run_ms=row.run_ms or 0,
        )
        for row in rows
    ]


def read(ledger: Ledger, ids: Sequence[int]) -> list[RecordedDecision]:
    """Decisions by their numbers, oldest first."""
    d, r = t.decision, t.record
    joined = d.join(r, (r.c.chain == d.c.chain) & (r.c.seq == d.c.seq)).outerjoin(t.part, t.part.c.digest == d.c.body)
    query = select(d.c.id, d.c.seq, r.c.at_ms, t.part.c.body).select_from(joined)
    with ledger.reading() as db:
        rows = db.execute(query.where(d.c.chain == ledger.chain, d.c.id.in_(ids)).order_by(d.c.id)).all()
    return [_read(row.id, row.seq, row.at_ms, row.body) for row in rows]


def _read(id: int, seq: int, at_ms: int, body: bytes | None) -> RecordedDecision:
    try:
        if body is None:
            raise LedgerPartError("its body is missing from the ledger")
        return RecordedDecision(id=id, at_ms=at_ms, decision=stored_decisions.read(zlib.decompress(body)))
    except UNREADABLE as error:
        told = f"decision {id} in record {seq} cannot be read: {why(error)}"
        return RecordedDecision(id=id, at_ms=at_ms, decision=None, unreadable=told)
