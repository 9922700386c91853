"""The ledger's tables, made anew and brought up to date, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, select, text, update

import agent.ledger.migrations
from agent.errors import LedgerNewerError
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.migrate import REVISIONS
from agent.ledger.verify import Report, verify
from tests.contract.test_ledgers import fill


def before(url, version):
    """A ledger as ORC made it before Alembic: the tables of that version, and its number."""
    config, engine = Config(), create_engine(url)
    config.set_main_option("script_location", str(Path(agent.ledger.migrations.__file__).parent))
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, f"{version:04}")
        db.execute(text(f"DROP TABLE {REVISIONS}"))
        db.execute(insert(t.version).values(version=version))
        db.execute(
            text("INSERT INTO orc_chain (id, scheduler, epoch, holder, seen_ms, last_seq) VALUES (1, 's', 0, '', 0, 0)")
        )
    return engine


def differences(url):
    """What the tables have that the code does not, and the other way round."""
    engine = create_engine(url)
    with engine.connect() as db:
        ours = {table.name for table in t.metadata.tables.values()}
        context = MigrationContext.configure(
            db, opts={"version_table": REVISIONS, "include_name": lambda name, kind, _: kind != "table" or name in ours}
        )
        return compare_metadata(context, t.metadata), db.execute(
            text(f"SELECT version_num FROM {REVISIONS}")
        ).scalars().all()


@pytest.mark.parametrize("version", [0, 1, 2])
def test_tables_that_were_brought_up_to_date_are_those_that_are_made_anew(url, version):
    if version:
        before(url, version).dispose()
    ledger = Ledger(url, "s")
    assert differences(url) == ([], [f"{t.VERSION:04}"])
    ledger.acquire_lease("me", 0, 0)
    fill(ledger)
    assert list(verify(ledger, Report(), replay=True)) == []
    ledger.close()


def test_what_ended_a_lease_is_read_out_of_its_words(url):
    causes = {
        "taken away by the spot market": "interrupted",
        "died": "died",
        "died: it left the scheduler": "cut off",
        "drained": "drained",
        "died: it did not find the scheduler": "never joined",
        "refused: no capacity": "refused",
        "refused: failed: X()": "fault",
        "gone while no governor watched": "unwatched",
        "left": "left",
        "1 tasks of load wait": "",
    }
    with before(url, 2).begin() as db:
        for id, cause in enumerate(causes, 1):
            ended = "NULL" if "wait" in cause else "9"
            db.execute(
                text(
                    "INSERT INTO orc_lease (chain, id, pool, kind, worker, asked_ms, ended_ms, cause, price, "
                    "usd_micros)"
                    f" VALUES (1, {id}, 'spot', 'spot', 'spot-0', 1, {ended}, :cause, '', 0)"
                ),
                {"cause": cause},
            )
    ledger = Ledger(url, "s")
    with ledger.reading() as db:
        assert dict(db.execute(select(t.lease.c.cause, t.lease.c.end_cause)).all()) == causes
    ledger.close()


def test_of_two_that_open_a_ledger_of_before_at_once_one_migrates_it_and_the_other_waits(url):
    before(url, 1).dispose()
    opened, wrong = [], []

    def begin():
        try:
            opened.append(Ledger(url, "s"))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert differences(url) == ([], [f"{t.VERSION:04}"])
    for ledger in opened:
        ledger.close()


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(url):
    made = Ledger(url, "s")
    with made.database.writing() as db:
        db.execute(update(t.version).values(version=t.VERSION + 1))
    with pytest.raises(LedgerNewerError, match="newer orc-agent"):
        Ledger(url, "other")
    with made.reading() as db:
        assert db.execute(select(t.chain.c.scheduler)).scalars().all() == ["s"]
    made.close()
