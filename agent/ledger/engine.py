"""The ledger's database: how it is connected to, and its errors by our names."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from agent.errors import LedgerAwayError, LedgerError
from agent.ledger.migrate import bring_up_to_date
from agent.model.addresses import without_secrets

#: seconds until a silent PostgreSQL counts as away; ms of unacknowledged data
_PATIENCE = {"connect_timeout": 3, "tcp_user_timeout": 5_000}
#: seconds that one waits for another's lock on SQLite's file
_BUSY_SECONDS = 10


class Database:
    """Connections to one ledger's database, SQLite or PostgreSQL, with its tables as this version has them."""

    def __init__(self, url: str) -> None:
        """Open it, and make or migrate its tables.

        Raises:
            LedgerAwayError: the database does not answer.
            LedgerNewerError: a newer ORC wrote it.
            LedgerError: the URL is none, or the database cannot be used.
        """
        self.url = url
        with self._named():
            if url.startswith("sqlite"):
                self.engine = create_engine(url)
                event.listen(self.engine, "connect", _sqlite)
            else:
                self.engine = create_engine(url, pool_pre_ping=True, connect_args=_PATIENCE)
            bring_up_to_date(self.engine)

    @property
    def shown(self) -> str:
        """Its URL without what may be secret in it."""
        return without_secrets(self.url)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with. Raises LedgerAwayError."""
        with self._named(), self.engine.connect() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: written whole when the block ends well, durable then. Raises LedgerAwayError."""
        with self._named(), self.engine.begin() as db:
            yield db

    def fold_wal(self) -> None:
        """Fold SQLite's write-ahead log back into the file, beside whoever writes; nothing to do on PostgreSQL."""
        if self.engine.dialect.name == "sqlite":
            with self.reading() as db:
                db.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    def _first_line(self, error: Exception) -> str:
        return str(error.__cause__ or error).splitlines()[0].replace(self.url, self.shown)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            raise LedgerAwayError(
                f"ledger {self.shown} cannot be reached: {self._first_line(error)}; "
                "is the database up, and ORC_LEDGER_URL right?"
            ) from error
        except (SQLAlchemyError, ImportError) as error:
            raise LedgerError(
                f"ledger {self.shown} cannot be used: {self._first_line(error)}; check ORC_LEDGER_URL"
            ) from error


def _sqlite(connection: Any, _: Any) -> None:
    # a power cut may lose nothing that was acknowledged: WAL alone would promise less
    # the log is folded back by `fold_wal`, off the path of commits, which would wait for it now and then
    connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
    _write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: Any) -> None:
    """Turn the write-ahead log on. Of several who do so at once with a new file, SQLite refuses some at once."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
