"""Records the database could not take, kept as durably on this machine until it is back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from agent.errors import LedgerError
from agent.ledger.sealed import Sealed
from agent.model import codec


class Spool:
    """A file of sealed records, oldest first. An entry that was put is there after a power cut."""

    def __init__(self, path: Path) -> None:
        try:
            # the ledger's one writer thread uses it, and whoever opens the ledger
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS sealed "
                "(scheduler TEXT, seq INTEGER, body BLOB, PRIMARY KEY (scheduler, seq))"
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
