"""Who may write a chain: one holder at a time, by a lease with an epoch."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from agent.errors import FencedError
from agent.ledger import schema as t
from agent.ledger.engine import Database
from agent.ledger.upsert import upsert


def open_chain(database: Database, scheduler: str) -> int:
    """The number of a scheduler's chain, which is begun where there is none."""
    mine = select(t.chain.c.id).where(t.chain.c.scheduler == scheduler)
    with database.writing() as db:
        if (found := db.execute(mine).scalar()) is None:
            values = {"scheduler": scheduler, "epoch": 0, "holder": "", "seen_ms": 0, "last_seq": 0}
            db.execute(upsert(db, t.chain, values, ["scheduler"], {}))
            found = db.execute(mine).scalar_one()
        return int(found)


class WriterLease:
    """The right to write one chain. Whoever acquires it raises the epoch, and older epochs are fenced."""

    def __init__(self, database: Database, scheduler: str, chain: int) -> None:
        self.database, self.scheduler, self.chain = database, scheduler, chain
        #: 0 before it was acquired
        self.epoch = 0

    def acquire(self, holder: str, now_ms: int, stale_ms: int) -> int | None:
        """The new epoch, or None while another holder renewed it less than `stale_ms` ago."""
        with self.database.writing() as db:
            row = db.execute(select(t.chain).where(t.chain.c.id == self.chain).with_for_update()).one()
            if row.holder and row.holder != holder and now_ms - row.seen_ms < stale_ms:
                return None
            epoch = int(row.epoch) + 1
            taken = db.execute(
                update(t.chain)
                .where(t.chain.c.id == self.chain, t.chain.c.epoch == row.epoch)
                .values(epoch=epoch, holder=holder, seen_ms=now_ms)
            )
            if taken.rowcount != 1:
                return None
        self.epoch = epoch
        return epoch

    def renew(self, db: Connection, now_ms: int, epoch: int, seq: int | None = None) -> None:
        """Renew it in a transaction, which writes record `seq` where one is given. Raises FencedError when lost."""
        values = {"seen_ms": now_ms} if seq is None else {"seen_ms": now_ms, "last_seq": seq}
        done = db.execute(update(t.chain).where(t.chain.c.id == self.chain, t.chain.c.epoch == epoch).values(**values))
        if done.rowcount != 1:
            raise FencedError(f"another governor has taken over {self.scheduler}; this one (epoch {epoch}) stops")

    def release(self) -> None:
        """Let the next governor take over at once."""
        with self.database.writing() as db:
            db.execute(
                update(t.chain)
                .where(t.chain.c.id == self.chain, t.chain.c.epoch == self.epoch)
                .values(holder="", seen_ms=0)
            )
