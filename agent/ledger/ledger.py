"""A chain as its writer has it: the lease, appending, budgets and cursors, and everything a reader can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from agent.ledger import budgets, queries
from agent.ledger.cursors import Cursors
from agent.ledger.engine import Database
from agent.ledger.kinds import MERGED
from agent.ledger.lease import WriterLease, open_chain
from agent.ledger.reader import Reader
from agent.ledger.spool import Spool
from agent.ledger.writer import Writer
from agent.model.codec import encode
from agent.model.records import Entry

if TYPE_CHECKING:
    from agent.model.snapshot import Budget


class Ledger(Reader):
    """The ledger of one Dask scheduler. One writer at a time, fenced by its epoch; any number of readers."""

    def __init__(self, url: str, scheduler: str, spool: Path | None = None) -> None:
        """Open it; make its tables where there are none, and bring them up to date where an older version made them.

        Args:
            url: SQLAlchemy URL.
            scheduler: name of the chain.
            spool: file that keeps what the writer could not write while the database was away; None: it fails then.

        Raises:
            LedgerAwayError: the database does not answer.
            LedgerNewerError: a newer ORC wrote it.
        """
        self.url = url
        database = Database(url)
        super().__init__(database, scheduler, open_chain(database, scheduler))
        self.spool = Spool(spool) if spool is not None else None
        self.lease = WriterLease(database, scheduler, self.chain)
        self.writer = Writer(database, self.lease, self.spool)
        self.cursors = Cursors(database, self.chain)

    # ------------------------------------------------------------------ who may write
    @property
    def epoch(self) -> int:
        """The lease's number: only the newest may write. 0 before it was acquired."""
        return self.lease.epoch

    def acquire_lease(self, holder: str, now_ms: int, stale_ms: int) -> int | None:
        """Become the writer: the new epoch, or None while another holder was seen less than `stale_ms` ago.

        What an earlier writer on this machine left in the spool is written first; where somebody else has written
        since, it can no longer stand in its place and is kept whole in a record of its own, of kind `merged`.
        """
        late = self.writer.left_behind()
        epoch = self.lease.acquire(holder, now_ms, stale_ms)
        if epoch is None:
            return None
        self.writer.begin()
        if late:
            self.append(Entry(kind=MERGED, at_ms=now_ms, says={"records": [orjson.loads(encode(s)) for s in late]}))
            self.writer.drop(late)
        return epoch

    def renew_lease(self, now_ms: int) -> None:
        """Stay the writer; put off while the database is away, when nobody can take over. Raises FencedError."""
        self.writer.renew_lease(now_ms)

    def release_lease(self) -> None:
        """Let the next governor take over at once."""
        self.lease.release()

    # ------------------------------------------------------------------ writing
    def append(self, entry: Entry) -> int:
        """Write one record and its rows in one durable transaction; its sequence number.

        With a spool, a record waits there while the database is away, unless it reserves money.

        Raises:
            FencedError: another governor has taken over.
            BudgetTakenError: the money is not there.
            LedgerAwayError: the database is away, and the record may not or cannot wait.
        """
        return self.writer.append(entry)

    @property
    def spooled(self) -> int:
        """Records that wait in the spool."""
        return self.writer.spooled

    @property
    def away(self) -> bool:
        """Whether records wait for the database: money cannot be reserved, and people's answers wait."""
        return self.writer.spooled > 0

    def next_numbers(self) -> tuple[int, int, int, int]:
        """The first unused numbers of decisions, placements, leases and runs."""
        found = self.fetch(queries.next_numbers(self.chain))[0]
        return found.decision, found.placement, found.lease, found.run

    def budgets(self) -> dict[str, Budget]:
        """Every declared budget as it stands."""
        return budgets.declared(self.database)

    def declare_budgets(self, limits: dict[str, int]) -> None:
        """Set the limits of declared budgets, micro-dollars; what is reserved and spent stays."""
        budgets.declare(self.database, limits)

    # ------------------------------------------------------------------ the database
    def fold_wal(self) -> None:
        """Fold SQLite's write-ahead log back into the file, beside whoever writes; nothing to do on PostgreSQL."""
        self.database.fold_wal()

    def close(self) -> None:
        """Give the connections back."""
        self.database.close()
        if self.spool is not None:
            self.spool.close()
