"""Records the database could not take, kept as durably on this machine until it is back."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import LedgerError
from agent.model import codec
from agent.model.leases import Lease
from agent.model.records import Decided, Ended, FlowRun, Placed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A record as it will stand in the chain: numbered, hashed, with its rows; whoever writes it, it is the same."""

    seq: int
    epoch: int
    kind: str
    at_ms: int
    mode: str
    actor: str
    # of records that a version before wrote; see the columns of their name
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


def text(content: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(content).decode()


def raw(content: str) -> bytes:
    """And back."""
    return base64.b64decode(content)


class Spool:
    """A file of sealed records, oldest first. An entry that was put is there after a power cut."""

    def __init__(self, path: Path) -> None:
        try:
            # the ledger's one writer thread uses it, and whoever opens the ledger
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS sealed (scheduler TEXT, seq INTEGER, body BLOB, PRIMARY KEY (scheduler, seq))"
            )
        except sqlite3.Error as error:
            raise LedgerError(f"spool {path} cannot be opened: {error}") from error
        path.chmod(0o600)

    def put(self, scheduler: str, sealed: Sealed) -> None:
        """Keep a record. Durable when it returns. Raises LedgerError."""
        try:
            self._db.execute("INSERT INTO sealed VALUES (?, ?, ?)", (scheduler, sealed.seq, codec.encode(sealed)))
        except sqlite3.Error as error:
            raise LedgerError(
                f"the spool cannot take record {sealed.seq}: {error}; nothing more is decided until it can"
            ) from error

    def records(self, scheduler: str) -> Iterator[Sealed]:
        """What is kept, oldest first."""
        for (body,) in self._db.execute(
            "SELECT body FROM sealed WHERE scheduler = ? ORDER BY seq", (scheduler,)
        ).fetchall():
            yield codec.decode(Sealed, body)

    def drop(self, scheduler: str, seq: int) -> None:
        """A record is in the database."""
        self._db.execute("DELETE FROM sealed WHERE scheduler = ? AND seq = ?", (scheduler, seq))

    def close(self) -> None:
        """Give the file back."""
        self._db.close()
