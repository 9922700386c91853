"""Decisions as they stand in the ledger, found by task, by run, or the newest; one that cannot be read says so."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import LedgerPartError
from agent.ledger import queries
from agent.ledger import schema as t
from agent.ledger.reader import Reader
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


def newest(reader: Reader, most: int) -> list[RecordedDecision]:
    """The newest decisions, oldest of them first."""
    return read(reader, [row.id for row in reader.fetch(queries.newest_decisions(reader.chain, most))])


def of_run(reader: Reader, run: str, most: int) -> list[RecordedDecision]:
    """The newest decisions of flow runs whose id, or whose root run's id, begins so."""
    found = reader.fetch(queries.newest_decisions_of_run(reader.chain, run, most))
    return read(reader, [row.id for row in found])


def run_named(reader: Reader, beginning: str) -> str:
    """The flow run whose id begins so, where it is the only one; else what was given. Four characters at least."""
    found = reader.fetch(queries.run_ids(reader.chain, beginning)) if len(beginning) >= 4 else []
    return str(found[0].id) if len(found) == 1 else beginning


def placements(reader: Reader, task: str) -> list[PlacementLine]:
    """Placements of tasks whose key has this in it: an id of a task run, with or without its dashes, or a Dask key."""
    return [
        PlacementLine(
            id=row.id,
            key=row.key,
            decision=row.decision,
            result="running" if row.result is None else t.RESULTS[row.result],
            run_ms=row.run_ms or 0,
        )
        for row in reader.fetch(queries.placements_named(reader.chain, task))
    ]


def read(reader: Reader, ids: Sequence[int]) -> list[RecordedDecision]:
    """Decisions by their numbers, oldest first."""
    rows = reader.fetch(queries.decisions_with_bodies(reader.chain, ids))
    return [_read(row.id, row.seq, row.at_ms, row.body) for row in rows]


def _read(number: int, seq: int, at_ms: int, body: bytes | None) -> RecordedDecision:
    try:
        if body is None:
            raise LedgerPartError("its body is missing from the ledger")
        return RecordedDecision(id=number, at_ms=at_ms, decision=stored_decisions.read(zlib.decompress(body)))
    except UNREADABLE as error:
        told = f"decision {number} in record {seq} cannot be read: {why(error)}"
        return RecordedDecision(id=number, at_ms=at_ms, decision=None, unreadable=told)
