"""The governor: one for each scheduler. Follows deltas, plans, commits, instructs."""
