"""A long checkpointed job over the zones of a spot market: where it runs now, by the expected cost of the rest."""
