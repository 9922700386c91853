"""A record as it will stand in the chain, whoever writes it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from agent.model.leases import Lease
from agent.model.records import Decided, Ended, Entry, FlowRun, Placed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A record that is numbered and hashed, with its rows: written now, or kept in the spool for a while."""

    seq: int
    epoch: int
    kind: str
    at_ms: int
    mode: str
    actor: str
    # of records that a version before kept; see the columns of their name
    team: str = ""
    trace: str = ""
    root_run: str = ""
    #: compressed body and chain hash, base64
    body: str
    hash: str
    runs: tuple[FlowRun, ...]
    decisions: tuple[Decided, ...]
    placements: tuple[Placed, ...]
    outcomes: tuple[Ended, ...]
    leases: tuple[Lease, ...]
    #: (digest, content) of parts that may not be stored yet, base64
    bodies: tuple[tuple[str, str], ...]

    @property
    def reserves(self) -> bool:
        """Whether it reserves money, which only the database can grant."""
        return any(placed.budget is not None for placed in self.placements)

    def columns(self) -> dict[str, Any]:
        """The columns of its row in the chain, but for the chain's number."""
        names = ("seq", "epoch", "kind", "at_ms", "mode", "actor", "team", "trace", "root_run")
        return {**{name: getattr(self, name) for name in names}, "body": raw(self.body), "hash": raw(self.hash)}

    def entry(self) -> Entry:
        """What it was made from, as far as its rows go."""
        return Entry(
            kind=self.kind,
            at_ms=self.at_ms,
            runs=list(self.runs),
            decisions=list(self.decisions),
            placements=list(self.placements),
            outcomes=list(self.outcomes),
            leases=list(self.leases),
        )


def text(content: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(content).decode()


def raw(content: str) -> bytes:
    """Bytes from base64."""
    return base64.b64decode(content)
