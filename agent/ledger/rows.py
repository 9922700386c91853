"""The rows of one ledger entry, and the digest that ties them to its record."""

from __future__ import annotations

import hashlib
import importlib
import zlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from agent.errors import BudgetTakenError
from agent.ledger import schema as t
from agent.model import codec
from agent.model.records import Decided, Ended, Entry, Placed


class Rows:
    """The rows of one entry, and the digest that ties them to the record. `bodies` are parts that may not be stored yet."""

    def __init__(self, chain: int, seq: int, entry: Entry, bodies: dict[bytes, bytes]) -> None:
        self.chain, self.seq, self.entry, self.bodies = chain, seq, entry, bodies
        self.decision_bodies: list[tuple[Decided, bytes]] = []
        for decided in entry.decisions:
            body = codec.encode(decided.decision)
            digest = content_digest(body)
            self.bodies.setdefault(digest, body)
            self.decision_bodies.append((decided, digest))

    def digest(self) -> bytes:
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
        e, chain, seq = self.entry, self.chain, self.seq
        for digest, body in self.bodies.items():
            db.execute(upsert(db, t.part, {"digest": digest, "body": zlib.compress(body, 6)}, ["digest"], {}))
        if e.runs:
            db.execute(
                insert(t.run),
                [
                    {
                        "chain": chain,
                        "no": r.no,
                        "seq": seq,
                        "flow_run": r.flow_run,
                        "root_run": r.root_run,
                        "flow": r.flow,
                        "deployment": r.deployment,
                        "team": r.team,
                        "trace": r.trace,
                    }
                    for r in e.runs
                ],
            )
        if self.decision_bodies:
            db.execute(
                insert(t.decision),
                [
                    {
                        "chain": chain,
                        "id": d.id,
                        "seq": seq,
                        "run": d.run,
                        "task_class": d.decision.task_class,
                        "pool": d.decision.pool or "",
                        "verb": d.decision.verb,
                        "team": d.team,
                        "body": digest,
                    }
                    for d, digest in self.decision_bodies
                ],
            )
        if e.placements:
            db.execute(
                insert(t.placement),
                [
                    {
                        "chain": chain,
                        "id": p.id,
                        "seq": seq,
                        "decision": p.decision,
                        "key": p.key,
                        "upstream": p.upstream,
                    }
                    for p in e.placements
                ],
            )
        self._reserve(db, [p for p in e.placements if p.budget is not None])
        if e.outcomes:
            db.execute(
                insert(t.outcome),
                [
                    {
                        "chain": chain,
                        "placement": o.placement,
                        "seq": seq,
                        "result": t.RESULT_CODE[o.result],
                        "lease": o.lease,
                        "start_ms": o.start_ms,
                        "run_ms": o.run_ms,
                        "usd_micros": o.usd_micros,
                        "ran_in": o.ran_in,
                        "spared_ms": o.spared_ms,
                        "items": o.items,
                    }
                    for o in e.outcomes
                ],
            )
            self._settle(db, e.outcomes)
        for lease in e.leases:
            values = {
                name: getattr(lease, name)
                for name in (
                    "id",
                    "pool",
                    "kind",
                    "worker",
                    "asked_ms",
                    "granted_ms",
                    "ready_ms",
                    "ended_ms",
                    "cause",
                    "price",
                    "usd_micros",
                )
            }
            values["end_cause"] = lease.end or ""
            db.execute(upsert(db, t.lease, {"chain": chain, **values}, ["chain", "id"], values))

    def _reserve(self, db: Connection, placed: list[Placed]) -> None:
        sums: dict[str, int] = {}
        for p in placed:
            sums[p.budget or ""] = sums.get(p.budget or "", 0) + p.reserve_usd_micros
        b = t.budget.c
        for name, usd in sorted(sums.items()):
            fits = (b.name == name) & (b.reserved_usd_micros + b.spent_usd_micros + usd <= b.limit_usd_micros)
            done = db.execute(update(t.budget).where(fits).values(reserved_usd_micros=b.reserved_usd_micros + usd))
            if done.rowcount != 1:
                raise BudgetTakenError(
                    f"budget {name} cannot cover {usd} micro-dollars more; another governor was faster"
                )
        if placed:
            db.execute(
                insert(t.reservation),
                [
                    {"chain": self.chain, "placement": p.id, "budget": p.budget, "usd_micros": p.reserve_usd_micros}
                    for p in placed
                ],
            )

    def _settle(self, db: Connection, ended: Sequence[Ended]) -> None:
        if db.execute(select(t.budget.c.name).limit(1)).first() is None:
            return
        r, b = t.reservation.c, t.budget.c
        spent = {o.placement: o.usd_micros for o in ended}
        found = db.execute(
            select(t.reservation).where(
                r.chain == self.chain, r.placement.in_(list(spent)), r.settled_usd_micros.is_(None)
            )
        ).all()
        for row in found:
            usd = spent[row.placement]
            db.execute(
                update(t.reservation)
                .where(r.chain == self.chain, r.placement == row.placement)
                .values(settled_usd_micros=usd)
            )
            db.execute(
                update(t.budget)
                .where(b.name == row.budget)
                .values(
                    reserved_usd_micros=b.reserved_usd_micros - row.usd_micros,
                    spent_usd_micros=b.spent_usd_micros + usd,
                    overrun_usd_micros=b.overrun_usd_micros + max(0, usd - row.usd_micros),
                )
            )


def run_line(no: int, flow_run: str, root_run: str, flow: str, deployment: str, team: str, trace: str) -> str:
    """A run row as it is hashed."""
    return "|".join((str(no), flow_run, root_run, flow, deployment, team, trace))


def decision_line(id: int, run: int, task_class: str, pool: str, verb: str, body: bytes, team: str = "") -> str:
    """A decision row as it is hashed; what a column of a later version does not say is left out, as it was before."""
    return f"{id}|{run}|{task_class}|{pool}|{verb}|{body.hex()}" + (f"|{team}" if team else "")


def placement_line(id: int, decision: int, key: str, upstream: str) -> str:
    """A placement row as it is hashed."""
    return f"{id}|{decision}|{key}|{upstream}" if upstream else f"{id}|{decision}|{key}"


def outcome_line(
    placement: int,
    result: int,
    lease: int,
    start_ms: int,
    run_ms: int,
    usd_micros: int,
    ran_in: str = "",
    spared_ms: int = 0,
    items: int = 1,
) -> str:
    """An outcome row as it is hashed."""
    line = f"{placement}|{result}|{lease}|{start_ms}|{run_ms}|{usd_micros}"
    return f"{line}|{ran_in}|{spared_ms}|{items}" if (ran_in, spared_ms, items) != ("", 0, 1) else line


def rows_digest(decided: Sequence[str], placed: Sequence[str], ended: Sequence[str], runs: Sequence[str] = ()) -> bytes:
    """SHA-256 over a record's rows. Runs were covered from version 3 of the tables on."""
    lines = (*decided, "--", *placed, "--", *ended, *(("--", *runs) if runs else ()))
    return hashlib.sha256("\n".join(lines).encode()).digest()


def content_digest(body: bytes) -> bytes:
    """Address of a stored part."""
    return hashlib.sha256(body).digest()[:16]


def upsert(db: Connection, table: Any, values: dict[str, Any], keys: list[str], change: dict[str, Any]) -> Any:
    """An insert that changes the row that is there; in the dialect of the database."""
    # the dialect in use is loaded already; the other one takes a tenth of a second, and only readers notice
    dialect = importlib.import_module(f"sqlalchemy.dialects.{db.dialect.name}")
    statement = dialect.insert(table).values(**values)
    return (
        statement.on_conflict_do_update(index_elements=keys, set_=change)
        if change
        else statement.on_conflict_do_nothing(index_elements=keys)
    )
