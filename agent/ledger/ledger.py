"""Appending to the ledger and reading it back."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, create_engine, event, func, insert, select, true, update
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from agent.errors import FencedError, LedgerAwayError, LedgerError, LedgerPartError
from agent.ledger import schema as t
from agent.ledger.migrate import bring_up_to_date
from agent.ledger.rows import Rows, content_digest, upsert
from agent.ledger.spool import Sealed, Spool, raw, text
from agent.model.addresses import without_secrets
from agent.model.codec import encode
from agent.model.leases import EndCause, Lease
from agent.model.records import Ended, Entry, Execution, FlowRun, Record
from agent.model.snapshot import Budget

#: a record carries the whole list of its snapshot's parts each so many records; the others carry what changed
WHOLE_EVERY = 64
#: seconds until a silent PostgreSQL counts as away; ms of unacknowledged data
_PATIENCE = {"connect_timeout": 3, "tcp_user_timeout": 5_000}


class Ledger:
    """The ledger of one Dask scheduler. One writer at a time, fenced by its epoch; any number of readers."""

    def __init__(self, url: str, scheduler: str, spool: Path | None = None) -> None:
        """Open it, and make its tables where there are none.

        Args:
            url: SQLAlchemy URL.
            scheduler: name of the chain.
            spool: file that keeps what the writer could not write while the database was away; None: it fails then.

        Raises:
            LedgerAwayError: the database does not answer.
            LedgerNewerError: a newer ORC wrote it.
        """
        self.scheduler, self.url = scheduler, url
        self.epoch = 0
        self.spool = Spool(spool) if spool is not None else None
        #: records that wait in the spool
        self.spooled = 0
        self._retry_at = 0.0
        with self._named():
            sqlite = url.startswith("sqlite")
            self.engine = (
                create_engine(url) if sqlite else create_engine(url, pool_pre_ping=True, connect_args=_PATIENCE)
            )
            if sqlite:
                event.listen(self.engine, "connect", _sqlite)
            bring_up_to_date(self.engine)
            self.chain = self._chain()
            self._seq, self._hash = self._last()
        self._manifest: dict[str, bytes] = {}
        self._known: set[bytes] = set()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """The database's errors by our names."""
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            raise LedgerAwayError(
                f"ledger {without_secrets(self.url)} cannot be reached: {self._first_line(error)}; is the database up, and ORC_LEDGER_URL right?"
            ) from error
        except (SQLAlchemyError, ImportError) as error:
            raise LedgerError(
                f"ledger {without_secrets(self.url)} cannot be used: {self._first_line(error)}; check ORC_LEDGER_URL"
            ) from error

    def _first_line(self, error: Exception) -> str:
        return str(error.__cause__ or error).splitlines()[0].replace(self.url, without_secrets(self.url))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with. Raises LedgerAwayError."""
        with self._named(), self.engine.connect() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._named(), self.engine.begin() as db:
            yield db

    def _chain(self) -> int:
        with self.engine.begin() as db:
            mine = select(t.chain.c.id).where(t.chain.c.scheduler == self.scheduler)
            if (found := db.execute(mine).scalar()) is None:
                values = {"scheduler": self.scheduler, "epoch": 0, "holder": "", "seen_ms": 0, "last_seq": 0}
                db.execute(upsert(db, t.chain, values, ["scheduler"], {}))
                found = db.execute(mine).scalar_one()
            return int(found)

    def _last(self) -> tuple[int, bytes]:
        with self.engine.connect() as db:
            row = db.execute(
                select(t.record.c.seq, t.record.c.hash)
                .where(t.record.c.chain == self.chain)
                .order_by(t.record.c.seq.desc())
                .limit(1)
            ).first()
            return (int(row.seq), bytes(row.hash)) if row else (0, b"")

    # ------------------------------------------------------------------ who may write
    def take(self, holder: str, now_ms: int, stale_ms: int) -> int | None:
        """Become the writer: the new epoch, or None while another holder was seen less than `stale_ms` ago.

        What an earlier writer on this machine left in the spool is written first; where somebody else has written since,
        it can no longer stand in its place and is kept whole in a record of its own, of kind `merged`.
        """
        late = self._spooled_before()
        with self._writing() as db:
            row = db.execute(select(t.chain).where(t.chain.c.id == self.chain).with_for_update()).one()
            if row.holder and row.holder != holder and now_ms - row.seen_ms < stale_ms:
                return None
            epoch = int(row.epoch) + 1
            taken = db.execute(
                update(t.chain)
                .where(t.chain.c.id == self.chain, t.chain.c.epoch == row.epoch)
                .values(epoch=epoch, holder=holder, seen_ms=now_ms)
            )
            if taken.rowcount != 1:
                return None
        self.epoch = epoch
        self._seq, self._hash = self._last()
        self._manifest = {}
        if late:
            self.append(Entry(kind="merged", at_ms=now_ms, says={"records": [orjson.loads(encode(s)) for s in late]}))
            self._drop(late)
        return epoch

    def seen(self, now_ms: int) -> None:
        """Renew the writer's lease; not while the database is away, when nobody can take it. Raises FencedError when another has taken it."""
        if self.spool is not None and time.monotonic() < self._retry_at:
            return
        try:
            self._flush()
            with self._writing() as db:
                self._renew(db, now_ms)
        except LedgerAwayError:
            if self.spool is None:
                raise
            self._put_off()

    def _renew(self, db: Connection, now_ms: int, seq: int | None = None) -> None:
        values = {"seen_ms": now_ms} if seq is None else {"seen_ms": now_ms, "last_seq": seq}
        done = db.execute(
            update(t.chain).where(t.chain.c.id == self.chain, t.chain.c.epoch == self.epoch).values(**values)
        )
        if done.rowcount != 1:
            raise FencedError(f"another governor has taken over {self.scheduler}; this one (epoch {self.epoch}) stops")

    def resign(self) -> None:
        """Let the next governor take over at once."""
        with self._writing() as db:
            db.execute(
                update(t.chain)
                .where(t.chain.c.id == self.chain, t.chain.c.epoch == self.epoch)
                .values(holder="", seen_ms=0)
            )

    # ------------------------------------------------------------------ writing
    def append(self, entry: Entry) -> int:
        """Write one record and its rows in one durable transaction; its sequence number.

        With a spool, a record waits there while the database is away, unless it reserves money.

        Raises:
            FencedError: another governor has taken over.
            BudgetTakenError: the money is not there.
            LedgerAwayError: the database is away, and the record may not or cannot wait.
        """
        sealed, parts, rows = self._sealed(entry)
        try:
            if self.spooled and time.monotonic() < self._retry_at:
                raise LedgerAwayError(f"ledger {without_secrets(self.url)} was away a moment ago")
            self._flush()
            self._write(sealed, rows)
        except LedgerAwayError:
            if self.spool is None or sealed.reserves:
                raise
            self.spool.put(self.scheduler, sealed)
            self.spooled += 1
            self._put_off()
        self._seq, self._hash = sealed.seq, raw(sealed.hash)
        self._known.update(rows.bodies)
        if entry.parts:
            self._manifest = parts
        return sealed.seq

    def _sealed(self, entry: Entry) -> tuple[Sealed, dict[str, bytes], Rows]:
        """The record that follows the last one, the digests of its parts, and its rows."""
        parts = {name: content_digest(body) for name, body in entry.parts.items()}
        seq = self._seq + 1
        whole = not self._manifest or seq % WHOLE_EVERY == 0
        changed = {name: key.hex() for name, key in parts.items() if whole or self._manifest.get(name) != key}
        gone = [] if whole else [name for name in self._manifest if name not in parts]
        bodies = {digest: body for name, body in entry.parts.items() if (digest := parts[name]) not in self._known}
        rows = Rows(self.chain, seq, entry, bodies)
        says: dict[str, Any] = {**entry.says, "rows": rows.digest().hex()}
        if entry.leases:
            says["leases"] = [lease.id for lease in entry.leases]
        if lineage := [[o.placement, *named] for o in entry.outcomes for named in o.lineage]:
            says["lineage"] = lineage
        if entry.parts:
            says["parts"] = {"whole": whole, "set": changed, "gone": gone}
        body = zlib.compress(orjson.dumps(says, option=orjson.OPT_SORT_KEYS), 6)
        about = (entry.kind, entry.at_ms, entry.mode, entry.actor, "", "", "")
        sealed = Sealed(
            seq=seq, epoch=self.epoch, kind=entry.kind, at_ms=entry.at_ms, mode=entry.mode, actor=entry.actor, body=text(body), hash=text(chain_hash(self._hash, [self.scheduler, seq, self.epoch, *about], body)),
            runs=tuple(entry.runs), decisions=tuple(entry.decisions), placements=tuple(entry.placements), outcomes=tuple(entry.outcomes),
            leases=tuple(entry.leases), bodies=tuple((text(k), text(v)) for k, v in rows.bodies.items()) if self.spool is not None else (),
        )  # fmt: skip
        return sealed, parts, rows

    def _write(self, sealed: Sealed, rows: Rows) -> None:
        with self._writing() as db:
            self._renew(db, sealed.at_ms, sealed.seq)
            rows.write(db)
            db.execute(insert(t.record).values(chain=self.chain, **sealed.columns()))

    # ------------------------------------------------------------------ while the database is away
    @property
    def away(self) -> bool:
        """Whether records wait for the database: money cannot be reserved, and people's answers wait."""
        return self.spooled > 0

    def _put_off(self) -> None:
        """Ask the database again in a second: every round would wait for it otherwise."""
        self._retry_at = time.monotonic() + 1.0

    def _flush(self) -> None:
        """Write what waits, in order. One that is there already, its answer having been lost, is not written twice."""
        if not self.spooled or self.spool is None:
            return
        for sealed in self.spool.records(self.scheduler):
            if not self._stands(sealed):
                self._write(sealed, _rows_of(self.chain, sealed))
            self._drop([sealed])

    def _stands(self, sealed: Sealed) -> bool:
        r = t.record.c
        with self.reading() as db:
            found = db.execute(select(r.hash).where(r.chain == self.chain, r.seq == sealed.seq)).scalar()
        return found is not None and bytes(found) == raw(sealed.hash)

    def _drop(self, written: Iterable[Sealed]) -> None:
        if self.spool is not None:
            for sealed in written:
                self.spool.drop(self.scheduler, sealed.seq)
                self.spooled = max(0, self.spooled - 1)

    def _spooled_before(self) -> list[Sealed]:
        """At the start: write what an earlier writer left, where it still fits; what does not fit is returned."""
        left = list(self.spool.records(self.scheduler)) if self.spool is not None else []
        for at, sealed in enumerate(left):
            if self._stands(sealed):
                self._drop([sealed])
                continue
            seq, _ = self._last()
            self.epoch = sealed.epoch
            if seq != sealed.seq - 1:
                return left[at:]
            try:
                self._write(sealed, _rows_of(self.chain, sealed))
            except FencedError:
                return left[at:]
            self._drop([sealed])
        return []

    def declare_budgets(self, limits: dict[str, int]) -> None:
        """Set the limits of declared budgets; what is reserved and spent stays."""
        with self._writing() as db:
            for name, limit in limits.items():
                values = {
                    "name": name,
                    "limit_usd_micros": limit,
                    "reserved_usd_micros": 0,
                    "spent_usd_micros": 0,
                    "overrun_usd_micros": 0,
                }
                db.execute(upsert(db, t.budget, values, ["name"], {"limit_usd_micros": limit}))

    # ------------------------------------------------------------------ reading
    def budgets(self) -> dict[str, Budget]:
        """Every declared budget as it stands."""
        with self.reading() as db:
            return {
                row.name: Budget(
                    name=row.name,
                    limit_usd_micros=row.limit_usd_micros,
                    reserved_usd_micros=row.reserved_usd_micros,
                    spent_usd_micros=row.spent_usd_micros,
                )
                for row in db.execute(select(t.budget))
            }

    def records(self, after: int = 0, limit: int = 1000, kind: str | None = None) -> list[Record]:
        """Records behind a sequence number, oldest first; of one kind, when it is given."""
        of_kind = t.record.c.kind == kind if kind is not None else true()
        with self.reading() as db:
            rows = db.execute(
                select(t.record)
                .where(t.record.c.chain == self.chain, t.record.c.seq > after, of_kind)
                .order_by(t.record.c.seq)
                .limit(limit)
            ).all()
        return [_record(self.scheduler, row) for row in rows]

    def rows(self, seq: int) -> tuple[list[Any], list[Any]]:
        """Placements (with their decision and run) and outcomes (with their placement) of one record."""
        p, o, d, r, l = t.placement, t.outcome, t.decision, t.run, t.lease
        with self.reading() as db:
            base = p.join(d, (d.c.chain == p.c.chain) & (d.c.id == p.c.decision)).join(
                r, (r.c.chain == d.c.chain) & (r.c.no == d.c.run)
            )
            columns = [
                p.c.id, p.c.key, p.c.upstream, p.c.decision, d.c.pool, d.c.task_class,
                r.c.flow_run, r.c.root_run, r.c.flow, r.c.team, r.c.deployment,
            ]  # fmt: skip
            placed = db.execute(
                select(*columns).select_from(base).where(p.c.chain == self.chain, p.c.seq == seq).order_by(p.c.id)
            ).all()
            joined = o.join(base, (p.c.chain == o.c.chain) & (p.c.id == o.c.placement)).outerjoin(
                l, (l.c.chain == o.c.chain) & (l.c.id == o.c.lease)
            )
            ended = db.execute(
                select(*columns, o.c.result, o.c.lease, o.c.start_ms, o.c.run_ms, o.c.usd_micros, l.c.worker)
                .select_from(joined)
                .where(o.c.chain == self.chain, o.c.seq == seq)
                .order_by(o.c.placement)
            ).all()
        return list(placed), list(ended)

    def decided(self, seq: int) -> list[Any]:
        """Decisions of one record, with their run."""
        d, r = t.decision, t.run
        with self.reading() as db:
            joined = d.join(r, (r.c.chain == d.c.chain) & (r.c.no == d.c.run))
            columns = (d.c.id, d.c.task_class, d.c.pool, d.c.verb, d.c.body, r.c.flow_run, r.c.root_run, r.c.flow, r.c.team, r.c.deployment)  # fmt: skip
            query = select(*columns).select_from(joined).where(d.c.chain == self.chain, d.c.seq == seq)
            return list(db.execute(query.order_by(d.c.id)))

    def last_seq(self) -> int:
        """Number of the last record."""
        with self.reading() as db:
            return int(db.execute(select(t.chain.c.last_seq).where(t.chain.c.id == self.chain)).scalar_one())

    def decision_body(self, digest: bytes) -> bytes:
        """A stored part, by its digest."""
        with self.reading() as db:
            body = db.execute(select(t.part.c.body).where(t.part.c.digest == digest)).scalar()
        if body is None:
            raise LedgerPartError(f"part {digest.hex()} is missing from the ledger")
        return zlib.decompress(body)

    def open_placements(self) -> list[tuple[int, str, int, str, str]]:
        """Placements without an outcome: id, key, decision, pool, task class."""
        p, o, d = t.placement, t.outcome, t.decision
        with self.reading() as db:
            joined = p.join(d, (d.c.chain == p.c.chain) & (d.c.id == p.c.decision)).outerjoin(
                o, (o.c.chain == p.c.chain) & (o.c.placement == p.c.id)
            )
            query = (
                select(p.c.id, p.c.key, p.c.decision, d.c.pool, d.c.task_class)
                .select_from(joined)
                .where(p.c.chain == self.chain, o.c.placement.is_(None))
            )
            return [(r.id, r.key, r.decision, r.pool, r.task_class) for r in db.execute(query.order_by(p.c.id))]

    def open_leases(self) -> list[Lease]:
        """Leases that have not ended."""
        with self.reading() as db:
            return [
                _lease(r)
                for r in db.execute(
                    select(t.lease)
                    .where(t.lease.c.chain == self.chain, t.lease.c.ended_ms.is_(None))
                    .order_by(t.lease.c.id)
                )
            ]

    def leases_of(self, ids: Iterable[int]) -> list[Lease]:
        """Some leases, as they stand."""
        l, wanted = t.lease, list(ids)
        if not wanted:
            return []
        with self.reading() as db:
            return [_lease(r) for r in db.execute(select(l).where(l.c.chain == self.chain, l.c.id.in_(wanted)))]

    def leases(self, since_ms: int = 0) -> list[Lease]:
        """Leases that were alive at or after an instant."""
        l = t.lease
        with self.reading() as db:
            query = (
                select(l)
                .where(l.c.chain == self.chain, (l.c.ended_ms.is_(None)) | (l.c.ended_ms >= since_ms))
                .order_by(l.c.id)
            )
            return [_lease(row) for row in db.execute(query)]

    def runs(self) -> list[FlowRun]:
        """Every flow run that had tasks here."""
        with self.reading() as db:
            rows = db.execute(select(t.run).where(t.run.c.chain == self.chain).order_by(t.run.c.no))
            return [
                FlowRun(
                    no=r.no,
                    flow_run=r.flow_run,
                    root_run=r.root_run,
                    flow=r.flow,
                    deployment=r.deployment,
                    team=r.team,
                    trace=r.trace,
                )
                for r in rows
            ]

    def executions(self, limit: int = 200_000) -> Iterator[Execution]:
        """The newest outcomes, oldest first, in the order in which they went on record."""
        o, p, d, r = t.outcome, t.placement, t.decision, t.run
        joined = o.join(p, (p.c.chain == o.c.chain) & (p.c.id == o.c.placement)).join(
            d, (d.c.chain == p.c.chain) & (d.c.id == p.c.decision)
        )
        joined = joined.join(r, (r.c.chain == d.c.chain) & (r.c.no == d.c.run))
        query = select(o, d.c.task_class, d.c.pool, r.c.root_run).select_from(joined).where(o.c.chain == self.chain)
        with self.reading() as db:
            rows = db.execute(query.order_by(o.c.seq.desc(), o.c.placement.desc()).limit(limit)).all()
        for row in reversed(rows):
            yield Execution(
                task_class=row.task_class,
                pool=row.ran_in or row.pool,
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

    def next_ids(self) -> tuple[int, int, int, int]:
        """The first unused numbers of decisions, placements, leases and runs."""
        with self.reading() as db:
            columns = (t.decision.c.id, t.placement.c.id, t.lease.c.id, t.run.c.no)
            a, b, c, d = (
                int(
                    db.execute(
                        select(func.coalesce(func.max(col), 0)).where(col.table.c.chain == self.chain)
                    ).scalar_one()
                )
                + 1
                for col in columns
            )
            return a, b, c, d

    # ------------------------------------------------------------------ followers
    def cursor(self, consumer: str) -> int:
        """How far a consumer has read."""
        with self.reading() as db:
            found = db.execute(
                select(t.cursor.c.seq).where(t.cursor.c.consumer == consumer, t.cursor.c.chain == self.chain)
            ).scalar()
            return int(found or 0)

    def advance(self, consumer: str, seq: int) -> None:
        """Remember how far a consumer has read."""
        with self._writing() as db:
            db.execute(
                upsert(
                    db,
                    t.cursor,
                    {"consumer": consumer, "chain": self.chain, "seq": seq},
                    ["consumer", "chain"],
                    {"seq": seq},
                )
            )

    def checkpoint(self) -> None:
        """Fold SQLite's write-ahead log back into the file, beside whoever writes; nothing to do on PostgreSQL."""
        if self.engine.dialect.name == "sqlite":
            with self.reading() as db:
                db.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        if self.spool is not None:
            self.spool.close()


def chain_hash(previous: bytes, head: list[Any], body: bytes) -> bytes:
    """SHA-256 over the record before, this record's columns and its body."""
    return hashlib.sha256(previous + orjson.dumps(head) + body).digest()


def _rows_of(chain: int, sealed: Sealed) -> Rows:
    """The rows of a record that waited."""
    entry = Entry(
        kind=sealed.kind, at_ms=sealed.at_ms, runs=list(sealed.runs), decisions=list(sealed.decisions), placements=list(sealed.placements),
        outcomes=list(sealed.outcomes), leases=list(sealed.leases),
    )  # fmt: skip
    return Rows(chain, sealed.seq, entry, {raw(digest): raw(body) for digest, body in sealed.bodies})


def _record(scheduler: str, row: Any) -> Record:
    body: dict[str, Any] = {}
    unreadable = ""
    try:
        found = orjson.loads(zlib.decompress(row.body))
        if isinstance(found, dict):
            body = found
        else:
            unreadable = f"its body is a {type(found).__name__}, not an object"
    except (ValueError, zlib.error) as error:
        unreadable = f"its body is damaged: {error}"
    return Record(
        scheduler=scheduler,
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


def _sqlite(connection: Any, _: Any) -> None:
    # a power cut may lose nothing that was acknowledged: WAL alone would promise less
    # the log is folded back by `checkpoint`, off the path of commits, which would wait for it now and then
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=10000",
        "foreign_keys=ON",
        "wal_autocheckpoint=0",
    ):
        connection.execute(f"PRAGMA {pragma}")
