"""A placement knows the placements whose results it takes in."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("orc_placement", Column("upstream", String, nullable=False, server_default=""))
