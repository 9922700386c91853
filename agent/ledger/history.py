"""What reports ask of a chain's past: executions and decisions, with their bodies read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.ledger import queries
from agent.ledger import schema as t
from agent.ledger.reader import PAGE, Reader, _run
from agent.ledger.snapshots import join, manifest
from agent.ledger.unreadable import decision_of
from agent.ledger.views import DecidedAt, EndedWell, RunExecution, ShadowExecution
from agent.model import codec
from agent.model.plans import Decision
from agent.model.pools import Pool
from agent.model.records import FlowRun
from agent.model.snapshot import Snapshot

logger = logging.getLogger("orc.report")


def declared_pools(reader: Reader) -> dict[str, Pool]:
    """The pools as the newest governor had them."""
    start = reader.newest("start")
    if start is None:
        return {}
    pools = [codec.decode(Pool, body.encode()) for body in start.body["pools"]]
    return {pool.name: pool for pool in pools}


def runs_of(reader: Reader, run: str) -> list[FlowRun]:
    """The flow run of an id, or those below the root run of that id."""
    return [_run(row) for row in reader.fetch(queries.runs_of(reader.chain, run))]


def executions_of(reader: Reader, runs: Iterable[FlowRun]) -> list[RunExecution]:
    """Placements of some runs, in order."""
    rows = reader.fetch(queries.placements_of_runs(reader.chain, [run.no for run in runs]))
    bodies = decision_bodies(reader, {row.body: row.decision for row in rows})
    return [
        RunExecution(
            id=row.id,
            key=row.key,
            decision=row.decision,
            pool=row.pool,
            task_class=row.task_class,
            decided=bodies.get(row.body) or _unread(reader, row),
            result=t.RESULTS[row.result] if row.result is not None else "running",
            lease=row.lease or 0,
            start_ms=row.start_ms or 0,
            run_ms=row.run_ms or 0,
            usd_micros=row.usd_micros or 0,
        )
        for row in rows
    ]


def has_decisions(reader: Reader, runs: Iterable[FlowRun]) -> bool:
    """Whether anything was decided for some runs."""
    return bool(reader.fetch(queries.decisions_of_runs(reader.chain, [run.no for run in runs]))[0][0])


def decisions_since(reader: Reader, since_ms: int) -> list[DecidedAt]:
    """Decisions from an instant on, in order."""
    rows = reader.fetch(queries.decisions_since(reader.chain, since_ms))
    bodies = decision_bodies(reader, {row.body: row.id for row in rows})
    return [
        DecidedAt(id=row.id, seq=row.seq, at_ms=row.at_ms, decision=bodies[row.body])
        for row in rows
        if row.body in bodies
    ]


def placed_since(reader: Reader, since_ms: int) -> dict[Decision, int]:
    """Tasks placed from an instant on, by what was decided, also before."""
    rows = reader.fetch(queries.placed_since(reader.chain, since_ms))
    bodies = decision_bodies(reader, {row.body: row.id for row in rows})
    return {bodies[row.body]: row.tasks for row in rows if row.body in bodies}


def shadowed_since(reader: Reader, since_ms: int) -> list[ShadowExecution]:
    """Executions of shadow mode that began at or after an instant."""
    return [ShadowExecution(**row._mapping) for row in reader.fetch(queries.shadowed_since(reader.chain, since_ms))]


def ended_well(reader: Reader) -> dict[int, EndedWell]:
    """Executions that were done, by their placement."""
    rows = reader.fetch(queries.ended_well(reader.chain))
    bodies = decision_bodies(reader, {row.body: row.decision for row in rows})
    return {
        row.id: EndedWell(
            placement=row.id,
            group=bodies[row.body].group,
            start_ms=row.start_ms,
            run_ms=row.run_ms,
            usd_micros=row.usd_micros,
        )
        for row in rows
        if row.body in bodies
    }


def decision_bodies(reader: Reader, digests: Mapping[bytes, int]) -> dict[bytes, Decision]:
    """Decisions by the digests of their bodies, each given with a number it is known by.

    One that cannot be read is told in the log, and left out.
    """
    made = {}
    for digest, number in sorted(digests.items()):
        decision = decision_of(reader, digest, number)
        if isinstance(decision, Decision):
            made[digest] = decision
        else:
            logger.warning("left out: %s", decision)
    return made


def _unread(reader: Reader, row: Any) -> Decision:
    """What stands in for a decision that cannot be read: the placement's own columns, and why."""
    why = decision_of(reader, row.body, row.decision)
    return Decision(
        group="",
        task_class=row.task_class,
        name=row.task_class,
        root_run="",
        flow_run="",
        verb="bind",
        pool=row.pool,
        reason=str(why),
        options=(),
    )


def snapshots(reader: Reader, wanted: Iterable[int]) -> Iterator[tuple[int, Snapshot]]:
    """The snapshots of some records, put together from their parts in one pass: number, snapshot."""
    numbers = set(wanted)
    if not numbers:
        return
    named: Mapping[str, str] = {}
    for record in reader.every_record(_whole_before(reader, min(numbers)) - 1, max(numbers)):
        said = record.body.get("parts")
        if said is None:
            continue
        named = manifest(named, said)
        if record.seq in numbers and "head" in record.body:
            parts = {name: reader.part(bytes.fromhex(digest)) for name, digest in named.items()}
            yield record.seq, join(record.body["head"], parts)


def _whole_before(reader: Reader, seq: int) -> int:
    """The newest record at or before one that lists all parts of its snapshot."""
    at = seq
    while at > 1:
        found = reader.records(max(0, at - PAGE), min(PAGE, at))
        whole = [r.seq for r in found if r.seq <= at and (r.body.get("parts") or {}).get("whole")]
        if whole:
            return whole[-1]
        at -= PAGE
    return 1
