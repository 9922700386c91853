"""Notes: what is said besides decisions and outcomes. Each has its kind, also where older ledgers have one bag."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from agent.ledger import kinds
from agent.ledger.views import NoteView
from agent.model.records import Record

logger = logging.getLogger("orc.ledger")

#: a key that only notes of this kind have in the bag
_TOLD_BY = {
    "answer": kinds.ANSWER,
    "override": kinds.ANSWER,
    "rules_in_force": kinds.RULES,
    "rules_refused": kinds.RULES,
    "refused": kinds.REFUSAL,
    "starved": kinds.OUT_OF_MEMORY,
    "left": kinds.DEPARTURE,
    "cancelled by restart": kinds.RESTART,
}


def notes_of(record: Record) -> Iterator[NoteView]:
    """The notes of a record, in order; what is none is told in the log, and passed over."""
    bag = record.kind == kinds.SAID
    bodies = record.body.get(kinds.SAID if bag else "notes", ())
    for body in bodies if isinstance(bodies, list | tuple) else (bodies,):
        if not isinstance(body, Mapping):
            what = type(body).__name__
            logger.error(
                "record %d of the ledger holds a note that cannot be read (a %s); it is passed", record.seq, what
            )
            continue
        kind = _kind(body) if bag else record.kind
        yield NoteView(seq=record.seq, at_ms=record.at_ms, kind=kind, actor=record.actor, body=body)


def _kind(body: Mapping[str, Any]) -> str:
    return next((kind for key, kind in _TOLD_BY.items() if key in body), kinds.NOTICE)
