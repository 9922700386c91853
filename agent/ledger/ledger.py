"""Appending to the ledger and reading it back."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select, true, update
from sqlalchemy.exc import SQLAlchemyError

from agent.errors import FencedError, LedgerError, LedgerNewerError
from agent.ledger import schema as t
from agent.ledger.records import Entry, Lease, Record, Run
from agent.ledger.rows import Rows, content_digest, upsert
from agent.model.snapshot import Budget

#: a record carries the whole list of its snapshot's parts each so many records; the others carry what changed
WHOLE_EVERY = 64


class Ledger:
    """The ledger of one Dask scheduler. One writer at a time, fenced by its epoch; any number of readers."""

    def __init__(self, url: str, scheduler: str) -> None:
        self.scheduler = scheduler
        self.epoch = 0
        try:
            self.engine = create_engine(url)
            if self.engine.dialect.name == "sqlite":
                event.listen(self.engine, "connect", _sqlite)
            _check_version(self.engine)
            self.chain = self._chain()
        except SQLAlchemyError as error:
            raise LedgerError(
                f"ledger {self._shown(url)} cannot be opened: {_first_line(error)}; check ORC_LEDGER_URL"
            ) from error
        self._seq, self._hash = self._last()
        self._manifest: dict[str, bytes] = {}
        self._known: set[bytes] = set()

    @staticmethod
    def _shown(url: str) -> str:
        return url.split("@")[-1] if "@" in url else url

    def _chain(self) -> int:
        with self.engine.begin() as db:
            found = db.execute(select(t.chain.c.id).where(t.chain.c.scheduler == self.scheduler)).scalar()
            if found is None:
                db.execute(insert(t.chain).values(scheduler=self.scheduler, epoch=0, holder="", seen_ms=0, last_seq=0))
                found = db.execute(select(t.chain.c.id).where(t.chain.c.scheduler == self.scheduler)).scalar_one()
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
        """Become the writer: the new epoch, or None while another holder was seen less than `stale_ms` ago."""
        with self.engine.begin() as db:
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
        return epoch

    def seen(self, now_ms: int) -> None:
        """Renew the writer's lease. Raises FencedError when another has taken it."""
        with self.engine.begin() as db:
            self._renew(db, now_ms)

    def _renew(self, db: Connection, now_ms: int, seq: int | None = None) -> None:
        values = {"seen_ms": now_ms} if seq is None else {"seen_ms": now_ms, "last_seq": seq}
        done = db.execute(
            update(t.chain).where(t.chain.c.id == self.chain, t.chain.c.epoch == self.epoch).values(**values)
        )
        if done.rowcount != 1:
            raise FencedError(f"another governor has taken over {self.scheduler}; this one (epoch {self.epoch}) stops")

    def resign(self) -> None:
        """Let the next governor take over at once."""
        with self.engine.begin() as db:
            db.execute(
                update(t.chain)
                .where(t.chain.c.id == self.chain, t.chain.c.epoch == self.epoch)
                .values(holder="", seen_ms=0)
            )

    # ------------------------------------------------------------------ writing
    def append(self, entry: Entry) -> int:
        """Write one record and its rows in one durable transaction; its sequence number. Raises FencedError, LedgerError."""
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
        head = [
            self.scheduler,
            seq,
            self.epoch,
            entry.kind,
            entry.at_ms,
            entry.mode,
            entry.actor,
            entry.team,
            entry.trace,
            entry.root_run,
        ]
        chained = chain_hash(self._hash, head, body)
        try:
            with self.engine.begin() as db:
                self._renew(db, entry.at_ms, seq)
                rows.write(db)
                db.execute(
                    insert(t.record).values(
                        chain=self.chain,
                        seq=seq,
                        epoch=self.epoch,
                        kind=entry.kind,
                        at_ms=entry.at_ms,
                        mode=entry.mode,
                        actor=entry.actor,
                        team=entry.team,
                        trace=entry.trace,
                        root_run=entry.root_run,
                        body=body,
                        hash=chained,
                    )
                )
        except SQLAlchemyError as error:
            raise LedgerError(f"ledger record {seq} could not be written: {_first_line(error)}") from error
        self._seq, self._hash = seq, chained
        self._known.update(bodies)
        if entry.parts:
            self._manifest = parts
        return seq

    def declare_budgets(self, limits: dict[str, int]) -> None:
        """Set the limits of declared budgets; what is reserved and spent stays."""
        with self.engine.begin() as db:
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
        with self.engine.connect() as db:
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
        with self.engine.connect() as db:
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
        with self.engine.connect() as db:
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
        with self.engine.connect() as db:
            joined = d.join(r, (r.c.chain == d.c.chain) & (r.c.no == d.c.run))
            columns = (d.c.id, d.c.task_class, d.c.pool, d.c.verb, d.c.body, r.c.flow_run, r.c.root_run, r.c.flow, r.c.team, r.c.deployment)  # fmt: skip
            query = select(*columns).select_from(joined).where(d.c.chain == self.chain, d.c.seq == seq)
            return list(db.execute(query.order_by(d.c.id)))

    def last_seq(self) -> int:
        """Number of the last record."""
        with self.engine.connect() as db:
            return int(db.execute(select(t.chain.c.last_seq).where(t.chain.c.id == self.chain)).scalar_one())

    def decision_body(self, digest: bytes) -> bytes:
        """A stored part, by its digest."""
        with self.engine.connect() as db:
            body = db.execute(select(t.part.c.body).where(t.part.c.digest == digest)).scalar()
        if body is None:
            raise LedgerError(f"part {digest.hex()} is missing from the ledger")
        return zlib.decompress(body)

    def open_placements(self) -> list[tuple[int, str, int, str, str]]:
        """Placements without an outcome: id, key, decision, pool, task class."""
        p, o, d = t.placement, t.outcome, t.decision
        with self.engine.connect() as db:
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
        with self.engine.connect() as db:
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
        with self.engine.connect() as db:
            return [_lease(r) for r in db.execute(select(l).where(l.c.chain == self.chain, l.c.id.in_(wanted)))]

    def leases(self, since_ms: int = 0) -> list[Lease]:
        """Leases that were alive at or after an instant."""
        l = t.lease
        with self.engine.connect() as db:
            query = (
                select(l)
                .where(l.c.chain == self.chain, (l.c.ended_ms.is_(None)) | (l.c.ended_ms >= since_ms))
                .order_by(l.c.id)
            )
            return [_lease(row) for row in db.execute(query)]

    def runs(self) -> list[Run]:
        """Every flow run that had tasks here."""
        with self.engine.connect() as db:
            rows = db.execute(select(t.run).where(t.run.c.chain == self.chain).order_by(t.run.c.no))
            return [
                Run(
                    no=r.no, flow_run=r.flow_run, root_run=r.root_run, flow=r.flow, deployment=r.deployment, team=r.team
                )
                for r in rows
            ]

    def executions(self, limit: int = 200_000) -> Iterator[tuple[str, str, str, int, int, str]]:
        """Outcomes of the past, oldest first: task class, pool, result, start ms, run ms, root run."""
        o, p, d, r = t.outcome, t.placement, t.decision, t.run
        joined = o.join(p, (p.c.chain == o.c.chain) & (p.c.id == o.c.placement)).join(
            d, (d.c.chain == p.c.chain) & (d.c.id == p.c.decision)
        )
        joined = joined.join(r, (r.c.chain == d.c.chain) & (r.c.no == d.c.run))
        query = select(d.c.task_class, d.c.pool, o.c.result, o.c.start_ms, o.c.run_ms, r.c.root_run).select_from(joined)
        with self.engine.connect() as db:
            for row in reversed(
                db.execute(query.where(o.c.chain == self.chain).order_by(o.c.placement.desc()).limit(limit)).all()
            ):
                yield row.task_class, row.pool, t.RESULTS[row.result], row.start_ms, row.run_ms, row.root_run

    def next_ids(self) -> tuple[int, int, int, int]:
        """The first unused numbers of decisions, placements, leases and runs."""
        with self.engine.connect() as db:
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
        with self.engine.connect() as db:
            found = db.execute(
                select(t.cursor.c.seq).where(t.cursor.c.consumer == consumer, t.cursor.c.chain == self.chain)
            ).scalar()
            return int(found or 0)

    def advance(self, consumer: str, seq: int) -> None:
        """Remember how far a consumer has read."""
        with self.engine.begin() as db:
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
            with self.engine.connect() as db:
                db.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def chain_hash(previous: bytes, head: list[Any], body: bytes) -> bytes:
    """SHA-256 over the record before, this record's columns and its body."""
    return hashlib.sha256(previous + orjson.dumps(head) + body).digest()


def _record(scheduler: str, row: Any) -> Record:
    return Record(
        scheduler=scheduler,
        seq=row.seq,
        epoch=row.epoch,
        kind=row.kind,
        at_ms=row.at_ms,
        mode=row.mode,
        actor=row.actor,
        team=row.team,
        trace=row.trace,
        root_run=row.root_run,
        body=orjson.loads(zlib.decompress(row.body)),
        hash=bytes(row.hash),
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
        price=row.price,
        usd_micros=row.usd_micros,
    )


def _check_version(engine: Engine) -> None:
    if inspect(engine).has_table(t.version.name):
        with engine.connect() as db:
            found = db.execute(select(t.version.c.version)).scalar() or 0
        if found > t.VERSION:
            raise LedgerNewerError(
                f"the ledger has version {found} and this ORC knows {t.VERSION}; install a newer orc-agent, nothing was changed"
            )
        if found < t.VERSION:
            _migrate(engine, found)
        return
    t.metadata.create_all(engine)
    with engine.begin() as db:
        db.execute(upsert(db, t.version, {"version": t.VERSION}, ["version"], {}))


def _migrate(engine: Engine, found: int) -> None:
    """Bring an older ledger up to this version, in one transaction."""
    with engine.begin() as db:
        for version in range(found, t.VERSION):
            for statement in t.MIGRATIONS[version]:
                db.exec_driver_sql(statement)
        db.execute(update(t.version).values(version=t.VERSION))


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


def _first_line(error: Exception) -> str:
    return str(error.__cause__ or error).splitlines()[0]
