"""Whose work a decision is, what ended a lease, and what statistics need of an outcome.

A record's own team, trace and root run stay where they are, since they are hashed: those of the last task of its round.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, case, column, table

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, and read the ends of leases out of their words."""
    op.add_column("orc_run", Column("trace", String, nullable=False, server_default=""))
    op.add_column("orc_run", Column("seq", BigInteger, nullable=False, server_default="0"))
    op.create_index("orc_run_seq", "orc_run", ["chain", "seq"])
    op.add_column("orc_decision", Column("team", String, nullable=False, server_default=""))
    op.add_column("orc_outcome", Column("ran_in", String, nullable=False, server_default=""))
    op.add_column("orc_outcome", Column("spared_ms", BigInteger, nullable=False, server_default="0"))
    op.add_column("orc_outcome", Column("items", Integer, nullable=False, server_default="1"))
    op.add_column("orc_lease", Column("end_cause", String, nullable=False, server_default=""))
    lease = table("orc_lease", column("cause", String), column("end_cause", String), column("ended_ms", BigInteger))
    cause = lease.c.cause
    ends = case(
        (cause.startswith("refused: failed"), "fault"),
        (cause.startswith("refused"), "refused"),
        (cause.startswith("taken"), "interrupted"),
        (cause.startswith("died: it did not find"), "never joined"),
        (cause.startswith("died: "), "cut off"),
        (cause.startswith("died"), "died"),
        (cause.startswith("gone while"), "unwatched"),
        (cause.in_(("drained", "ended")), "drained"),
        else_="left",
    )
    op.execute(lease.update().where(lease.c.ended_ms.is_not(None)).values(end_cause=ends))
