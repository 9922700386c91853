"""What the cluster's state asks to be done: returned by its events, interpreted elsewhere."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent.model.leases import Lease

#: kinds of records that are neither a decision nor an outcome
NoteKind = Literal[
    "answer", "approval", "notice", "departure", "rules", "refusal", "out_of_memory", "checkpoint", "restart"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that happened goes on record, before anything that follows from it."""

    kind: NoteKind
    body: Mapping[str, Any]
    #: who it comes from: a person's word is never the governor's
    actor: str = "governor"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOff:
    """Results that only this worker has are brought elsewhere: it will be taken away."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeeTo:
    """A launched worker left the scheduler: its process may still run, and cost money."""

    lease: Lease
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseTask:
    """A task's needs cannot be read: it fails with the reason."""

    key: Hashable
    why: str


Effect = Note | CopyOff | SeeTo | RefuseTask
