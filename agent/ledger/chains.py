"""Which chains a ledger has, read without beginning one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from agent.errors import LedgerAwayError, LedgerError
from agent.ledger import schema as t


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The records of one scheduler."""

    name: str
    #: number of the last record that was acknowledged; 0: none was
    records: int


def chains(url: str) -> tuple[Chain, ...]:
    """Every chain of the ledger, by name; () where there is no ledger yet, and none is made.

    Raises:
        LedgerAwayError: the database does not answer.
        LedgerError: the URL is none.
    """
    try:
        at = make_url(url)
        if at.get_backend_name() == "sqlite" and at.database and not Path(at.database).exists():
            return ()
        engine = create_engine(at)
    except (SQLAlchemyError, ImportError) as error:
        raise LedgerError(f"the ledger cannot be opened: {error}; check ORC_LEDGER_URL") from error
    try:
        with engine.connect() as db:
            if not inspect(db).has_table(t.chain.name):
                return ()
            rows = db.execute(select(t.chain.c.scheduler, t.chain.c.last_seq).order_by(t.chain.c.scheduler)).all()
            return tuple(Chain(name=row.scheduler, records=row.last_seq) for row in rows)
    except SQLAlchemyError as error:
        why = str(error.__cause__ or error).splitlines()[0]
        raise LedgerAwayError(
            f"the ledger cannot be read: {why}; is the database up, and ORC_LEDGER_URL right?"
        ) from error
    finally:
        engine.dispose()
