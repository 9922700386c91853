"""State changes of task runs on their way to the Prefect server: what is told, in batches, until it is recorded."""
