"""Revisions of the ledger's tables, by Alembic. `agent.ledger.migrate` runs them."""
