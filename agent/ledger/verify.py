"""Is the ledger whole? The chain, the rows it covers, and, by replay, the plans themselves."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Table, select

from agent.ledger import schema as t
from agent.ledger.digests import chain_hash, decision_line, outcome_line, placement_line, rows_digest, run_line
from agent.ledger.reader import Reader
from agent.ledger.snapshots import join, manifest
from agent.ledger.unreadable import UNREADABLE, why
from agent.model import codec
from agent.planner.plan import VERSION, plan

#: records whose rows are read at once
PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is not as it was written."""

    seq: int
    what: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What a verification found."""

    records: int = 0
    replayed: int = 0
    #: rounds of another planner's version, which cannot be replayed here
    other_version: int = 0
    #: rounds behind a record that cannot be read, up to the next one that lists its whole snapshot
    not_replayed: int = 0


def verify(ledger: Reader, report: Report, replay: bool = False) -> Iterator[Fault]:
    """Every fault of the chain, oldest first.

    A changed, missing or reordered record, a changed row, a plan that differs.
    """
    previous, expected = b"", 1
    #: name → digest of the parts of the newest snapshot; None: a record that cannot be read changed them
    named: Mapping[str, str] | None = {}
    lines = _Rows(ledger)
    with ledger.reading() as db:
        last = int(db.execute(select(t.chain.c.last_seq).where(t.chain.c.id == ledger.chain)).scalar_one())
        for row in db.execute(select(t.record).where(t.record.c.chain == ledger.chain).order_by(t.record.c.seq)):
            report.records += 1
            if row.seq != expected:
                yield Fault(
                    seq=expected,
                    what=f"record {expected} is missing"
                    if row.seq == expected + 1
                    else f"records {expected} to {row.seq - 1} are missing",
                )
            head = [
                ledger.scheduler,
                row.seq,
                row.epoch,
                row.kind,
                row.at_ms,
                row.mode,
                row.actor,
                row.team,
                row.trace,
                row.root_run,
            ]
            if chain_hash(previous, head, row.body) != row.hash:
                yield Fault(seq=row.seq, what="the record was changed or moved, or the one before it is missing")
            previous, expected = row.hash, row.seq + 1
            try:
                body = orjson.loads(zlib.decompress(row.body))
                rows, parts = body["rows"], body.get("parts")
                if parts is not None:
                    named = manifest(named or {}, parts) if named is not None or parts["whole"] else None
            except UNREADABLE as error:
                yield Fault(seq=row.seq, what=f"the record cannot be read: {why(error)}")
                named = None
                continue
            if lines.digest(row.seq).hex() != rows:
                yield Fault(
                    seq=row.seq,
                    what="a decision, placement, outcome or run of the record was changed, added or removed",
                )
            if replay and "plan" in body:
                yield from _replayed(ledger, report, row.seq, body, named)
    if expected <= last:
        yield Fault(seq=expected, what=f"the end is missing: record {last} was acknowledged")


def _replayed(
    ledger: Reader, report: Report, seq: int, body: Mapping[str, Any], named: Mapping[str, str] | None
) -> Iterator[Fault]:
    """The fault of a round whose plan, made again from its snapshot, is another."""
    try:
        if body["head"]["planner"] != VERSION:
            report.other_version += 1
            return
        if named is None:
            report.not_replayed += 1
            return
        parts = {name: ledger.part(bytes.fromhex(digest)) for name, digest in named.items()}
        made = codec.digest(codec.encode(plan(join(body["head"], parts))))
    except UNREADABLE as error:
        yield Fault(seq=seq, what=f"its plan cannot be made again: {why(error)}")
        return
    report.replayed += 1
    if made != body["plan"]:
        yield Fault(seq=seq, what="the plan made from the recorded snapshot is not the recorded plan")


class _Rows:
    """Digests of the rows of records, read in pages: a query a record and table would take most of the time."""

    def __init__(self, ledger: Reader) -> None:
        self._ledger = ledger
        #: the first record that is on no page yet
        self._next = 0
        #: record → lines of its decisions, placements, outcomes and runs
        self._page: dict[int, tuple[list[str], list[str], list[str], list[str]]] = {}

    def digest(self, seq: int) -> bytes:
        """Of one record; records are asked for in their order."""
        if seq >= self._next:
            self._read(seq, seq + PAGE)
        return rows_digest(*self._page.get(seq, ((), (), (), ())))

    def _read(self, first: int, end: int) -> None:
        self._next, self._page = end, {}
        with self._ledger.reading() as db:
            for number, (table, order, line) in enumerate(_LINES):
                c = table.c
                wanted = (c.chain == self._ledger.chain, c.seq >= first, c.seq < end)
                for row in db.execute(select(table).where(*wanted).order_by(c.seq, c[order])):
                    self._page.setdefault(row.seq, ([], [], [], []))[number].append(line(row))


#: table, the order of its rows within a record, a row as it is hashed
_LINES: tuple[tuple[Table, str, Callable[[Any], str]], ...] = (
    (t.decision, "id", lambda r: decision_line(r.id, r.run, r.task_class, r.pool, r.verb, r.body, r.team)),
    (t.placement, "id", lambda r: placement_line(r.id, r.decision, r.key, r.upstream)),
    (
        t.outcome,
        "placement",
        lambda r: outcome_line(
            r.placement, r.result, r.lease, r.start_ms, r.run_ms, r.usd_micros, r.ran_in, r.spared_ms, r.items
        ),
    ),
    (t.run, "no", lambda r: run_line(r.no, r.flow_run, r.root_run, r.flow, r.deployment, r.team, r.trace)),
)
