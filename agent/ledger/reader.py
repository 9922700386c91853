"""Reading a chain: records as they follow each other, and what is open."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import orjson
from sqlalchemy import Connection, Select, select

from agent.errors import LedgerPartError
from agent.ledger import queries
from agent.ledger import schema as t
from agent.ledger.engine import Database
from agent.ledger.kinds import ANSWER, SAID
from agent.ledger.notes import notes_of
from agent.ledger.views import DecisionView, NoteView, OpenPlacement, OutcomeView, PlacementView
from agent.model.leases import EndCause, Lease
from agent.model.records import Ended, Execution, FlowRun, Record

#: records read at once
PAGE = 500


class Reader:
    """One chain of a ledger, for whoever reads it; any number at a time, beside the writer."""

    def __init__(self, database: Database, scheduler: str, chain: int) -> None:
        self.database, self.scheduler, self.chain = database, scheduler, chain

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection to read with. Raises LedgerAwayError."""
        return self.database.reading()

    def fetch(self, query: Select[Any]) -> list[Any]:
        """The rows of a query. Raises LedgerAwayError."""
        with self.reading() as db:
            return list(db.execute(query))

    # ------------------------------------------------------------------ records
    def records(self, after: int = 0, limit: int = 1000, kind: str | None = None) -> list[Record]:
        """Records behind a sequence number, oldest first; of one kind, when it is given."""
        kinds = () if kind is None else (kind,)
        return [self._record(row) for row in self.fetch(queries.records(self.chain, after, limit, kinds))]

    def every_record(self, after: int = 0, last: int | None = None, kinds: Collection[str] = ()) -> Iterator[Record]:
        """Records behind a sequence number, up to and with `last`, of some kinds where any are given; by pages."""
        while found := self.fetch(queries.records(self.chain, after, PAGE, kinds)):
            for row in found:
                if last is not None and row.seq > last:
                    return
                yield self._record(row)
            after = found[-1].seq

    def newest(self, kind: str) -> Record | None:
        """The newest record of a kind."""
        found = self.fetch(queries.newest_of_kind(self.chain, kind))
        return self._record(found[0]) if found else None

    def first_since(self, since_ms: int) -> int | None:
        """Number of the first record at or after an instant; None when there is none."""
        found = self.fetch(queries.first_since(self.chain, since_ms))[0][0]
        return int(found) if found is not None else None

    def last_seq(self) -> int:
        """Number of the last record."""
        return int(self.fetch(select(t.chain.c.last_seq).where(t.chain.c.id == self.chain))[0][0])

    def notes(self, kinds: Collection[str], after: int = 0) -> Iterator[NoteView]:
        """Notes of some kinds, oldest first, all of them, also out of the bag that older ledgers have of them."""
        for record in self.every_record(after, kinds=(*kinds, SAID)):
            yield from (note for note in notes_of(record) if note.kind in kinds)

    def answers(self) -> Iterator[NoteView]:
        """Every answer and override of a person, oldest first."""
        return self.notes((ANSWER,))

    def part(self, digest: bytes) -> bytes:
        """A stored part, a snapshot's or the body of a decision, by its digest. Raises LedgerPartError."""
        found = self.fetch(select(t.part.c.body).where(t.part.c.digest == digest))
        if not found:
            raise LedgerPartError(f"part {digest.hex()} is missing from the ledger")
        return zlib.decompress(found[0].body)

    # ------------------------------------------------------------------ rows of a record
    def placements_of(self, seq: int) -> list[PlacementView]:
        """Placements of a record."""
        found = self.fetch(queries.placements_of_record(self.chain, seq))
        return [PlacementView(**row._mapping) for row in found]

    def outcomes_of(self, seq: int) -> list[OutcomeView]:
        """Outcomes of a record."""
        found = self.fetch(queries.outcomes_of_record(self.chain, seq))
        return [OutcomeView(**{**row._mapping, "result": t.RESULTS[row.result]}) for row in found]

    def decisions_of(self, seq: int) -> list[DecisionView]:
        """Decisions of a record."""
        return [DecisionView(**row._mapping) for row in self.fetch(queries.decisions_of_record(self.chain, seq))]

    # ------------------------------------------------------------------ the whole chain
    def open_placements(self) -> list[OpenPlacement]:
        """Placements without an outcome."""
        return [OpenPlacement(*row) for row in self.fetch(queries.open_placements(self.chain))]

    def leases(self, since_ms: int = 0, ids: Iterable[int] | None = None) -> list[Lease]:
        """Leases that were alive at or after an instant, as they stand; of some numbers, where any are given."""
        l = t.lease.c
        wanted = l.chain == self.chain
        if since_ms:
            wanted &= l.ended_ms.is_(None) | (l.ended_ms >= since_ms)
        if ids is not None:
            wanted &= l.id.in_(list(ids))
        return [_lease(row) for row in self.fetch(select(t.lease).where(wanted).order_by(l.id))]

    def open_leases(self) -> list[Lease]:
        """Leases that have not ended."""
        l = t.lease.c
        query = select(t.lease).where(l.chain == self.chain, l.ended_ms.is_(None)).order_by(l.id)
        return [_lease(row) for row in self.fetch(query)]

    def runs(self) -> list[FlowRun]:
        """Every flow run that had tasks here."""
        return [_run(row) for row in self.fetch(select(t.run).where(t.run.c.chain == self.chain).order_by(t.run.c.no))]

    def executions(self, limit: int = 200_000) -> list[Execution]:
        """The newest outcomes with what they were of, in the order of records; in a record, in that of their ends."""
        return [
            Execution(
                task_class=row.task_class,
                pool=row.pool,
                root_run=row.root_run,
                ended=Ended(
                    placement=row.placement,
                    result=t.RESULTS[row.result],
                    lease=row.lease,
                    start_ms=row.start_ms,
                    run_ms=row.run_ms,
                    usd_micros=row.usd_micros,
                    ran_in=row.ran_in,
                    spared_ms=row.spared_ms,
                    items=row.items,
                ),
            )
            for row in reversed(self.fetch(queries.executions(self.chain, limit)))
        ]

    def _record(self, row: Any) -> Record:
        body, unreadable = _body(row.body)
        return Record(
            scheduler=self.scheduler,
            seq=row.seq,
            epoch=row.epoch,
            kind=row.kind,
            at_ms=row.at_ms,
            mode=row.mode,
            actor=row.actor,
            body=body,
            hash=bytes(row.hash),
            unreadable=unreadable,
        )


def _body(stored: bytes) -> tuple[dict[str, Any], str]:
    """A record's body, or an empty one and why it cannot be read."""
    try:
        found = orjson.loads(zlib.decompress(stored))
    except (ValueError, zlib.error) as error:
        return {}, f"its body is damaged: {error}"
    if not isinstance(found, dict):
        return {}, f"its body is a {type(found).__name__}, not an object"
    return found, ""


def _lease(row: Any) -> Lease:
    return Lease(
        id=row.id,
        pool=row.pool,
        kind=row.kind,
        worker=row.worker,
        asked_ms=row.asked_ms,
        granted_ms=row.granted_ms,
        ready_ms=row.ready_ms,
        ended_ms=row.ended_ms,
        cause=row.cause,
        end=EndCause(row.end_cause) if row.end_cause else None,
        price=row.price,
        usd_micros=row.usd_micros,
    )


def _run(row: Any) -> FlowRun:
    return FlowRun(
        no=row.no,
        flow_run=row.flow_run,
        root_run=row.root_run,
        flow=row.flow,
        deployment=row.deployment,
        team=row.team,
        trace=row.trace,
    )
