"""Appending to a chain: each record is sealed, and written whole or kept in the spool."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import insert, select

from agent.errors import FencedError, LedgerAwayError
from agent.ledger import schema as t
from agent.ledger.digests import chain_hash, content_digest
from agent.ledger.engine import Database
from agent.ledger.lease import WriterLease
from agent.ledger.manifest import Manifest
from agent.ledger.rows import Rows
from agent.ledger.sealed import Sealed, raw, text
from agent.ledger.spool import Spool
from agent.model.records import Entry

#: seconds until a database that was away is asked again: every round would wait for it otherwise
_ASK_AGAIN = 1.0


class Writer:
    """Writes the chain of one lease. With a spool, what the database cannot take waits there, and is written first."""

    def __init__(self, database: Database, lease: WriterLease, spool: Spool | None) -> None:
        self.database, self.lease, self.spool = database, lease, spool
        #: records that wait in the spool
        self.spooled = 0
        #: not before then is a database that was away asked again, on the monotonic clock
        self.retry_at = 0.0
        self._seq, self._hash = self._last()
        self._manifest = Manifest()
        self._known: set[bytes] = set()

    def begin(self) -> None:
        """The lease was acquired: go on behind the last record."""
        self._seq, self._hash = self._last()
        self._manifest = Manifest()

    def append(self, entry: Entry) -> int:
        """Write one record and its rows in one durable transaction; its sequence number.

        With a spool, a record waits there while the database is away, unless it reserves money.

        Raises:
            FencedError: another governor has taken over.
            BudgetTakenError: the money is not there.
            LedgerAwayError: the database is away, and the record may not or cannot wait.
        """
        sealed, digests, rows = self.seal(entry)
        try:
            if self.spooled and time.monotonic() < self.retry_at:
                raise LedgerAwayError(f"ledger {self.database.shown} was away a moment ago")
            self._flush()
            self.write(sealed, rows)
        except LedgerAwayError:
            if self.spool is None or sealed.reserves:
                raise
            self.spool.put(self.lease.scheduler, sealed)
            self.spooled += 1
            self._put_off()
        self._seq, self._hash = sealed.seq, raw(sealed.hash)
        self._known.update(rows.bodies)
        self._manifest.keep(digests)
        return sealed.seq

    def renew_lease(self, now_ms: int) -> None:
        """Renew the lease; not while the database is away, when nobody can take it. Raises FencedError."""
        if self.spool is not None and time.monotonic() < self.retry_at:
            return
        try:
            self._flush()
            with self.database.writing() as db:
                self.lease.renew(db, now_ms, self.lease.epoch)
        except LedgerAwayError:
            if self.spool is None:
                raise
            self._put_off()

    def seal(self, entry: Entry) -> tuple[Sealed, dict[str, bytes], Rows]:
        """The record that follows the last one, the digests of its parts, and its rows."""
        seq, lease = self._seq + 1, self.lease
        digests = {name: content_digest(body) for name, body in entry.parts.items()}
        bodies = {digest: entry.parts[name] for name, digest in digests.items() if digest not in self._known}
        rows = Rows(lease.chain, seq, entry, bodies)
        says: dict[str, Any] = {**entry.says, "rows": rows.digest().hex()}
        if entry.leases:
            says["leases"] = [x.id for x in entry.leases]
        if lineage := [[o.placement, *named] for o in entry.outcomes for named in o.lineage]:
            says["lineage"] = lineage
        if entry.parts:
            says["parts"] = self._manifest.change(digests, seq)
        body = zlib.compress(orjson.dumps(says, option=orjson.OPT_SORT_KEYS), 6)
        # the last three are columns of before, hashed as they always were
        head = [lease.scheduler, seq, lease.epoch, entry.kind, entry.at_ms, entry.mode, entry.actor, "", "", ""]
        sealed = Sealed(
            seq=seq,
            epoch=lease.epoch,
            kind=entry.kind,
            at_ms=entry.at_ms,
            mode=entry.mode,
            actor=entry.actor,
            body=text(body),
            hash=text(chain_hash(self._hash, head, body)),
            runs=tuple(entry.runs),
            decisions=tuple(entry.decisions),
            placements=tuple(entry.placements),
            outcomes=tuple(entry.outcomes),
            leases=tuple(entry.leases),
            bodies=tuple((text(k), text(v)) for k, v in rows.bodies.items()) if self.spool is not None else (),
        )
        return sealed, digests, rows

    def write(self, sealed: Sealed, rows: Rows) -> None:
        """Write a sealed record. Raises FencedError, BudgetTakenError, LedgerAwayError."""
        with self.database.writing() as db:
            self.lease.renew(db, sealed.at_ms, sealed.epoch, sealed.seq)
            rows.write(db)
            db.execute(insert(t.record).values(chain=self.lease.chain, **sealed.columns()))

    def left_behind(self) -> list[Sealed]:
        """Write what an earlier writer left in the spool, where it still fits; what does not fit is returned."""
        left = list(self.spool.records(self.lease.scheduler)) if self.spool is not None else []
        for at, sealed in enumerate(left):
            if not self._stands(sealed):
                if self._last()[0] != sealed.seq - 1:
                    return left[at:]
                try:
                    self.write(sealed, self._rows(sealed))
                except FencedError:
                    return left[at:]
            self.drop([sealed])
        return []

    def drop(self, written: Iterable[Sealed]) -> None:
        """These are in the database."""
        if self.spool is not None:
            for sealed in written:
                self.spool.drop(self.lease.scheduler, sealed.seq)
                self.spooled = max(0, self.spooled - 1)

    def _flush(self) -> None:
        """Write what waits, in order. One that is there already, its answer having been lost, is not written twice."""
        if not self.spooled or self.spool is None:
            return
        for sealed in self.spool.records(self.lease.scheduler):
            if not self._stands(sealed):
                self.write(sealed, self._rows(sealed))
            self.drop([sealed])

    def _stands(self, sealed: Sealed) -> bool:
        r = t.record.c
        with self.database.reading() as db:
            query = select(r.hash).where(r.chain == self.lease.chain, r.seq == sealed.seq)
            found = db.execute(query).scalar()
        return found is not None and bytes(found) == raw(sealed.hash)

    def _rows(self, sealed: Sealed) -> Rows:
        return Rows(
            self.lease.chain, sealed.seq, sealed.entry(), {raw(digest): raw(body) for digest, body in sealed.bodies}
        )

    def _last(self) -> tuple[int, bytes]:
        """Number and hash of the last record."""
        r = t.record.c
        query = select(r.seq, r.hash).where(r.chain == self.lease.chain).order_by(r.seq.desc()).limit(1)
        with self.database.reading() as db:
            row = db.execute(query).first()
        return (int(row.seq), bytes(row.hash)) if row else (0, b"")

    def _put_off(self) -> None:
        self.retry_at = time.monotonic() + _ASK_AGAIN
