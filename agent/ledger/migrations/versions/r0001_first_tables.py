"""The tables as the first ledgers had them."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, SmallInteger, String

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table("orc_version", Column("version", Integer, primary_key=True))
    op.create_table(
        "orc_chain",
        Column("id", Integer, primary_key=True),
        Column("scheduler", String, unique=True, nullable=False),
        Column("epoch", Integer, nullable=False),
        Column("holder", String, nullable=False),
        Column("seen_ms", BigInteger, nullable=False),
        Column("last_seq", BigInteger, nullable=False),
    )
    op.create_table(
        "orc_record",
        Column("chain", Integer, ForeignKey("orc_chain.id"), primary_key=True),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("epoch", Integer, nullable=False),
        Column("kind", String, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("mode", String, nullable=False),
        Column("actor", String, nullable=False),
        Column("team", String, nullable=False),
        Column("trace", String, nullable=False),
        Column("root_run", String, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("hash", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "orc_part",
        Column("digest", LargeBinary, primary_key=True),
        Column("body", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    _runs_and_placements()
    _leases_and_money()
    op.create_table(
        "orc_cursor",
        Column("consumer", String, primary_key=True),
        Column("chain", Integer, primary_key=True),
        Column("seq", BigInteger, nullable=False),
    )


def _runs_and_placements() -> None:
    op.create_table(
        "orc_run",
        Column("chain", Integer, primary_key=True),
        Column("no", Integer, primary_key=True, autoincrement=False),
        Column("flow_run", String, nullable=False),
        Column("root_run", String, nullable=False),
        Column("flow", String, nullable=False),
        Column("deployment", String, nullable=False),
        Column("team", String, nullable=False),
    )
    op.create_index("orc_run_flow_run", "orc_run", ["flow_run"])
    op.create_table(
        "orc_decision",
        Column("chain", Integer, primary_key=True),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("seq", BigInteger, nullable=False),
        Column("run", Integer, nullable=False),
        Column("task_class", String, nullable=False),
        Column("pool", String, nullable=False),
        Column("verb", String, nullable=False),
        Column("body", LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("orc_decision_run", "orc_decision", ["chain", "run"])
    op.create_index("orc_decision_seq", "orc_decision", ["chain", "seq"])
    op.create_table(
        "orc_placement",
        Column("chain", Integer, primary_key=True),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("seq", BigInteger, nullable=False),
        Column("decision", BigInteger, nullable=False),
        Column("key", String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("orc_placement_seq", "orc_placement", ["chain", "seq"])
    op.create_table(
        "orc_outcome",
        Column("chain", Integer, primary_key=True),
        Column("placement", BigInteger, primary_key=True, autoincrement=False),
        Column("seq", BigInteger, nullable=False),
        Column("result", SmallInteger, nullable=False),
        Column("lease", Integer, nullable=False),
        Column("start_ms", BigInteger, nullable=False),
        Column("run_ms", BigInteger, nullable=False),
        Column("usd_micros", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("orc_outcome_seq", "orc_outcome", ["chain", "seq"])


def _leases_and_money() -> None:
    op.create_table(
        "orc_lease",
        Column("chain", Integer, primary_key=True),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("pool", String, nullable=False),
        Column("kind", String, nullable=False),
        Column("worker", String, nullable=False),
        Column("asked_ms", BigInteger, nullable=False),
        Column("granted_ms", BigInteger),
        Column("ready_ms", BigInteger),
        Column("ended_ms", BigInteger),
        Column("cause", String, nullable=False),
        Column("price", String, nullable=False),
        Column("usd_micros", BigInteger, nullable=False),
    )
    op.create_table(
        "orc_budget",
        Column("name", String, primary_key=True),
        Column("limit_usd_micros", BigInteger, nullable=False),
        Column("reserved_usd_micros", BigInteger, nullable=False),
        Column("spent_usd_micros", BigInteger, nullable=False),
        Column("overrun_usd_micros", BigInteger, nullable=False),
    )
    op.create_table(
        "orc_reservation",
        Column("chain", Integer, primary_key=True),
        Column("placement", BigInteger, primary_key=True, autoincrement=False),
        Column("budget", String, nullable=False),
        Column("usd_micros", BigInteger, nullable=False),
        Column("settled_usd_micros", BigInteger),
    )
