"""The mind: follows the ledger with a cursor and does what is slow. Kill it: placement goes on, and it catches up."""
