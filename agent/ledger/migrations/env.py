"""Alembic's own entry: it runs the revisions in the transaction that `agent.ledger.migrate` has begun."""

from __future__ import annotations

from alembic import context

from agent.ledger import schema
from agent.ledger.migrate import REVISIONS

context.configure(
    connection=context.config.attributes["connection"], target_metadata=schema.metadata, version_table=REVISIONS
)
with context.begin_transaction():
    context.run_migrations()
