"""How far each follower has read a chain."""

from __future__ import annotations

from sqlalchemy import select

from agent.ledger import schema as t
from agent.ledger.engine import Database
from agent.ledger.upsert import upsert


class Cursors:
    """The cursors of one chain's followers, by name."""

    def __init__(self, database: Database, chain: int) -> None:
        self.database, self.chain = database, chain

    def position(self, consumer: str) -> int:
        """Number of the last record it has read; 0: none."""
        query = select(t.cursor.c.seq).where(t.cursor.c.consumer == consumer, t.cursor.c.chain == self.chain)
        with self.database.reading() as db:
            return int(db.execute(query).scalar() or 0)

    def advance(self, consumer: str, seq: int) -> None:
        """Remember how far it has read."""
        values = {"consumer": consumer, "chain": self.chain, "seq": seq}
        with self.database.writing() as db:
            db.execute(upsert(db, t.cursor, values, ["consumer", "chain"], {"seq": seq}))
