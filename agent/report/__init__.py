"""What happened, read from the ledger: a run's placements, leases and what they cost beside on-demand."""
