"""The rows of one ledger entry, and the digest that ties them to its record."""

from __future__ import annotations

import zlib
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Table, insert

from agent.ledger import budgets
from agent.ledger import schema as t
from agent.ledger.digests import content_digest, decision_line, outcome_line, placement_line, rows_digest, run_line
from agent.ledger.upsert import upsert
from agent.model import codec
from agent.model.leases import Lease
from agent.model.records import Decided, Entry

#: fields of a lease that are columns of their own name
_LEASE = tuple(field.name for field in fields(Lease) if field.name in t.lease.c)


class Rows:
    """The rows of one entry, and the digest that ties them to the record.

    `bodies` are parts that may not be stored yet.
    """

    def __init__(self, chain: int, seq: int, entry: Entry, bodies: dict[bytes, bytes]) -> None:
        self.chain, self.seq, self.entry, self.bodies = chain, seq, entry, bodies
        self.decision_bodies: list[tuple[Decided, bytes]] = []
        for decided in entry.decisions:
            body = codec.encode(decided.decision)
            digest = content_digest(body)
            self.bodies.setdefault(digest, body)
            self.decision_bodies.append((decided, digest))

    def digest(self) -> bytes:
        """SHA-256 over the rows, as they are read back."""
        e = self.entry
        placed = [placement_line(p.id, p.decision, p.key, p.upstream) for p in e.placements]
        ended = [
            outcome_line(
                o.placement,
                t.RESULT_CODE[o.result],
                o.lease,
                o.start_ms,
                o.run_ms,
                o.usd_micros,
                o.ran_in,
                o.spared_ms,
                o.items,
            )
            for o in sorted(e.outcomes, key=lambda o: o.placement)
        ]
        decided = [
            decision_line(d.id, d.run, d.decision.task_class, d.decision.pool or "", d.decision.verb, digest, d.team)
            for d, digest in self.decision_bodies
        ]
        runs = [run_line(r.no, r.flow_run, r.root_run, r.flow, r.deployment, r.team, r.trace) for r in e.runs]
        return rows_digest(decided, placed, ended, runs)

    def write(self, db: Connection) -> None:
        """Insert them in a transaction. Raises BudgetTakenError."""
        e = self.entry
        for digest, body in self.bodies.items():
            db.execute(upsert(db, t.part, {"digest": digest, "body": zlib.compress(body, 6)}, ["digest"], {}))
        self._insert(db, t.run, [_columns(r, t.run) for r in e.runs])
        self._insert(db, t.decision, [_decision(d, digest) for d, digest in self.decision_bodies])
        self._insert(db, t.placement, [_columns(p, t.placement) for p in e.placements])
        self._insert(db, t.outcome, [{**_columns(o, t.outcome), "result": t.RESULT_CODE[o.result]} for o in e.outcomes])
        budgets.reserve(db, self.chain, e.placements)
        budgets.settle(db, self.chain, e.outcomes)
        for lease in e.leases:
            values = {**{name: getattr(lease, name) for name in _LEASE}, "end_cause": lease.end or ""}
            db.execute(upsert(db, t.lease, {"chain": self.chain, **values}, ["chain", "id"], values))

    def _insert(self, db: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        if rows:
            db.execute(insert(table), [{**row, "chain": self.chain, "seq": self.seq} for row in rows])


def _columns(value: Any, table: Table) -> dict[str, Any]:
    """The fields of a value that are columns of a table."""
    return {field.name: getattr(value, field.name) for field in fields(value) if field.name in table.c}


def _decision(decided: Decided, digest: bytes) -> dict[str, Any]:
    said = decided.decision
    return {
        "id": decided.id,
        "run": decided.run,
        "task_class": said.task_class,
        "pool": said.pool or "",
        "verb": said.verb,
        "team": decided.team,
        "body": digest,
    }
