"""Prefect entry points. Composition only: the tasks are in `flows.steps`."""
