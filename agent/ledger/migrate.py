"""The ledger's tables: made where there are none, and brought up to this version where an older one made them."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Connection, Engine, String, inspect, select
from sqlalchemy.schema import Column, MetaData, Table

from agent.errors import LedgerNewerError
from agent.ledger import schema as t

logger = logging.getLogger("orc.ledger")

#: Alembic's own table: PostgreSQL may hold others' tables beside ours
REVISIONS = "orc_revision"
_LOCK = 0x0C1ED6E4
_REVISIONS = Table(REVISIONS, MetaData(), Column("version_num", String(32), primary_key=True))


def bring_up_to_date(engine: Engine) -> None:
    """Make the tables, or migrate them, under a lock: of two that begin at once the second waits, and finds it done.

    Raises:
        LedgerNewerError: a newer ORC wrote it; nothing was changed.
    """
    with engine.connect() as db:
        if _version(db) == t.VERSION:
            return
    with engine.begin() as db:
        postgresql = db.dialect.name == "postgresql"
        db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})" if postgresql else "BEGIN IMMEDIATE")
        found = _version(db)
        if found is None:
            t.metadata.create_all(db)
            _stamp(db, t.VERSION)
        elif found < t.VERSION:
            logger.info("the ledger's tables are brought from version %d up to %d", found, t.VERSION)
            if not inspect(db).has_table(REVISIONS):
                # of before Alembic
                _stamp(db, found)
            _upgrade(db)
        db.execute(t.version.delete())
        db.execute(t.version.insert().values(version=t.VERSION))


def _version(db: Connection) -> int | None:
    """The version of the tables; None when there are none. Raises LedgerNewerError."""
    if not inspect(db).has_table(t.version.name):
        return None
    found = int(db.execute(select(t.version.c.version)).scalar() or 0)
    if found > t.VERSION:
        raise LedgerNewerError(
            f"the ledger has version {found} and this ORC knows {t.VERSION}; "
            "install a newer orc-agent, nothing was changed"
        )
    return found


def _stamp(db: Connection, version: int) -> None:
    _REVISIONS.create(db, checkfirst=True)
    db.execute(_REVISIONS.insert().values(version_num=f"{version:04}"))


def _upgrade(db: Connection) -> None:
    # imported here: it takes longer than most commands may take, and is needed once a version
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = db
    command.upgrade(config, "head")
